"""The packages of other people that the program is compared with."""

from __future__ import annotations

import warnings
from typing import Any

import pytest


def peer(name: str) -> Any:
    """Return the module `name` of a peer, or skip the test module that asks where the package is not installed.

    A package that is there and cannot be imported is an error. What a peer warns of while it is imported is its own affair.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: uv sync --group peers")
