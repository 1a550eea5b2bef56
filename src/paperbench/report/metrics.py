"""Which way a metric of `results.json` is better, told by its name. Imports nothing that takes time."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

Direction = Literal["higher", "lower", "same"]

_DIRECTIONS: tuple[tuple[str, Direction], ...] = (
    ("coco/*", "higher"),
    ("voc*/*", "higher"),
    ("proposals/*", "higher"),
    ("seconds*", "lower"),
    ("*seconds_per_*", "lower"),
    ("*_per_second", "higher"),
    ("*/error*", "lower"),
    ("*/nll*", "lower"),
    ("*/loss*", "lower"),
    ("*/mae*", "lower"),
    ("*/bound*", "higher"),
    ("*/importance_bound*", "higher"),
    ("*/marginal*", "higher"),
    ("*/squared_error*", "lower"),
    ("*/accuracy*", "higher"),
    ("*/pearson_r*", "higher"),
)
"""Patterns of names, the first that fits decides."""


def direction(metric: str) -> Direction:
    """`higher` or `lower`, whichever is better; `same` for a metric of which that is not known."""
    for pattern, way in _DIRECTIONS:
        if fnmatchcase(metric, pattern):
            return way
    return "same"
