"""Axes of charts: the scale from values to pixels, its ticks, and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from paperbench.report.html.quantities import minus

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels, with its marks."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    marks: list[float]

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def many(self, values: Floats) -> Floats:
        low, high, at = (
            (np.log10(v) for v in (self.low, self.high, values)) if self.log else (self.low, self.high, values)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def texts(self) -> list[str]:
        return [tick_label(mark) for mark in self.marks] if self.log else tick_labels(self.marks)


def axis(low: float, high: float, start: float, end: float, *, log: bool, most: int, tight: bool = False) -> Axis:
    """Return an axis over [low, high] with a small margin, none if `tight`; equal ends get a range around them."""
    if log:
        if not high > low:
            low, high = low / 2, high * 2
        air = 1.0 if tight else (high / low) ** 0.04
        return Axis(low / air, high * air, start, end, True, log_ticks(low / air, high * air, most))
    if not high > low:
        around = abs(low) * 0.1 or 1.0
        low, high = low - around, high + around
    air = 0.0 if tight else (high - low) * 0.05
    bottom = 0.0 if low >= 0 > low - air else low - air
    return Axis(bottom, high + air, start, end, False, linear_ticks(bottom, high + air, most))


# --- ticks ------------------------------------------------------------------------------------------------------------

_SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round values (1, 2 or 5 times a power of ten apart) within [low, high], at most `most`."""
    if not high > low:
        return [low]
    for power in range(math.floor(math.log10((high - low) / most)), 400):
        for factor in (1, 2, 5):
            step = factor * 10.0**power
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first + 1 <= most:
                return [round(index * step, max(0, -power) + 1) for index in range(first, last + 1)]
    return [low]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return the powers of ten within [low, high], 0 < low < high: every second, third … of them where they are too many, with
    their multiples by 2 and 5 where they are too few, and round values where these are too few as well."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    slack = 1e-9
    for factors in ((1, 2, 5), (1, 3), (1,)):
        marks = [
            factor * 10.0**power
            for power in range(first, last + 1)
            for factor in factors
            if low * (1 - slack) <= factor * 10.0**power <= high * (1 + slack)
        ]
        if len(marks) < 2:
            return linear_ticks(low, high, most)
        if len(marks) <= most:
            return marks
    every = -(-len(marks) // most)
    return marks[::every]


def tick_label(mark: float) -> str:
    """Return the label of one mark by itself, as on a logarithmic axis: `0.03`, `20k`, `1e-6`."""
    scale, suffix = next(((s, w) for s, w in _SUFFIXES if abs(mark) >= s), (1.0, ""))
    return minus(f"{mark / scale:g}{suffix}".replace("e-0", "e-"))


def tick_labels(marks: Sequence[float]) -> list[str]:
    """Return labels with as few digits as tell the marks apart: `0.2`, `2k`, `1.5M`, `1e−6`."""
    largest = max((abs(mark) for mark in marks), default=0.0)
    smallest = min((abs(mark) for mark in marks if mark), default=0.0)
    gaps = [abs(b - a) for a, b in pairwise(marks) if b != a]
    if smallest and (largest < 1e-3 or largest / smallest > 1e6):
        return [tick_label(mark) for mark in marks]
    scale, suffix = next(((s, w) for s, w in _SUFFIXES if largest >= 10 * s or smallest >= s), (1, ""))
    decimals = 0
    if gaps:
        while decimals < 6 and any(abs(round(m / scale, decimals) * scale - m) > min(gaps) / 20 for m in marks):
            decimals += 1
    return [minus(f"{mark / scale:.{decimals}f}{suffix}" if mark else "0") for mark in marks]
