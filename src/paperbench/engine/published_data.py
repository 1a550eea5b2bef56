"""Data sets on disk held against the published ones. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from paperbench.catalog import DATASETS
from paperbench.errors import DataError


def departures_of(data: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return in words what the files of a `data` section have other than the published ones; none where that is not known."""
    spec = DATASETS.get(str((data or {}).get("name")))
    if data is None or spec is None or not spec.departures:
        return ()
    module, _, function = spec.departures.partition(":")
    try:
        return tuple(getattr(importlib.import_module(module), function)(data))
    except DataError as error:
        return (f"the files cannot be compared with the published ones: {error}",)
