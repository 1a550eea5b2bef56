"""Lists of cases for `pytest.mark.parametrize`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any


def grid(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return every combination of one value from each axis."""
    return list(product(*axes))
