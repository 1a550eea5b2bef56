"""Where an axis is marked, and with which words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from paperbench.report.html.quantities import minus

_SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def linear(low: float, high: float, most: int = 6) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) within [low, high], at most `most`."""
    if not high > low:
        return [low]
    for power in range(math.floor(math.log10((high - low) / most)), 400):
        for factor in (1, 2, 5):
            step = factor * 10.0**power
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first + 1 <= most:
                return [round(index * step, max(0, -power) + 1) for index in range(first, last + 1)]
    return [low]


def logarithmic(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten within [low, high], 0 < low < high; every second, third … of them where there are too many, with their
    multiples by 2 and 5 where there are too few, and round values where even those are."""
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
            return linear(low, high, most)
        if len(marks) <= most:
            return marks
    every = -(-len(marks) // most)
    return marks[::every]


def label(mark: float) -> str:
    """One mark by itself, as those of a logarithmic axis: `0.03`, `20k`, `1e-6`."""
    scale, suffix = next(((s, w) for s, w in _SUFFIXES if abs(mark) >= s), (1.0, ""))
    return minus(f"{mark / scale:g}{suffix}".replace("e-0", "e-"))


def labels(marks: Sequence[float]) -> list[str]:
    """The marks in as few digits as tell them apart: `0.2`, `2k`, `1.5M`, `1e−6`."""
    largest = max((abs(mark) for mark in marks), default=0.0)
    smallest = min((abs(mark) for mark in marks if mark), default=0.0)
    gaps = [abs(b - a) for a, b in pairwise(marks) if b != a]
    if smallest and (largest < 1e-3 or largest / smallest > 1e6):
        return [label(mark) for mark in marks]
    scale, suffix = next(((s, w) for s, w in _SUFFIXES if largest >= 10 * s or smallest >= s), (1, ""))
    decimals = 0
    if gaps:
        while decimals < 6 and any(abs(round(m / scale, decimals) * scale - m) > min(gaps) / 20 for m in marks):
            decimals += 1
    return [minus(f"{mark / scale:.{decimals}f}{suffix}" if mark else "0") for mark in marks]
