"""Fewer points for the same picture: what is drawn keeps every peak and dip of what was measured."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def kept(values: Floats, most: int) -> NDArray[np.int64]:
    """Indices, ascending, of at most `most` (at least 4) of the (N,) values: the ends, and of each of equal stretches of them
    the smallest and the largest, so that no extreme is lost."""
    count = len(values)
    most = max(most, 4)
    if count <= most:
        return np.arange(count)
    buckets = (most - 2) // 2
    edges = np.linspace(1, count - 1, buckets + 1).astype(np.int64)
    chosen = [0, count - 1]
    for first, last in pairwise(edges):
        if last > first:
            stretch = values[first:last]
            chosen += [first + int(np.argmin(stretch)), first + int(np.argmax(stretch))]
    return np.unique(np.array(chosen, np.int64))


def band(x: Floats, middle: Floats, low: Floats, high: Floats, most: int) -> tuple[Floats, Floats, Floats, Floats]:
    """A line with a band around it, all (N,), in at most `most` points: in each of equal stretches the band is as wide as it
    was at its widest, and the line is drawn where it was at its lowest and at its highest."""
    if len(x) <= most:
        return x, middle, low, high
    keep = kept(middle, most)
    starts = np.concatenate(([0], (keep[1:] + keep[:-1] + 1) // 2))
    return x[keep], middle[keep], np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
