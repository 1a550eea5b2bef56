"""RoIAlign, RoIPool and position-sensitive pooling as their papers write them: one cell at a time, in float64."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def round_half_up(value: float) -> int:
    """C's `round`: halves away from zero."""
    return int(math.floor(abs(value) + 0.5) * math.copysign(1, value))


def value_at(image: Array, y: float, x: float) -> Array:
    """Return (F,), image (F, H, W) between its pixels: the border's value up to one pixel outside, 0 beyond."""
    _, height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(image))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * image[:, top, left] + dx * image[:, top, right]
    return (1 - dy) * upper + dy * ((1 - dx) * image[:, below, left] + dx * image[:, below, right])


def roi_align(image: Array, box: Array, *, size: int, scale: float, samples: int, aligned: bool) -> Array:
    """Return (F, size, size): each cell is the mean of samples x samples interpolations (Mask R-CNN, section 3).

    `samples` 0 takes as many as a cell has pixels. `aligned`: the centre of the first pixel lies at one half, else at 0.
    """
    x1, y1, x2, y2 = (float(corner) * scale - 0.5 * aligned for corner in box)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    across, down = (samples or math.ceil(side / size) for side in (width, height))
    result = np.zeros((len(image), size, size))
    for row in range(size):
        for column in range(size):
            for i in range(down):
                for j in range(across):
                    y = y1 + (row + (i + 0.5) / down) * height / size
                    x = x1 + (column + (j + 0.5) / across) * width / size
                    result[:, row, column] += value_at(image, y, x) / max(down * across, 1)
    return result


def bounds(start: int, length: int, cell: int, size: int, limit: int) -> tuple[int, int]:
    """Return first and last pixel (exclusive) of a cell of a region that begins at `start`: floor and ceil, cut at the border."""
    low, high = start + math.floor(cell * length / size), start + math.ceil((cell + 1) * length / size)
    return min(max(low, 0), limit), min(max(high, 0), limit)


def roi_pool(image: Array, box: Array, *, size: int, scale: float) -> Array:
    """Return (F, size, size): the maximum of each cell of a region of whole pixels, corners included; 0 for an empty one."""
    x1, y1, x2, y2 = (round_half_up(float(corner) * scale) for corner in box)
    _, height, width = image.shape
    result = np.zeros((len(image), size, size))
    for row in range(size):
        top, bottom = bounds(y1, max(y2 - y1 + 1, 1), row, size, height)
        for column in range(size):
            left, right = bounds(x1, max(x2 - x1 + 1, 1), column, size, width)
            if top < bottom and left < right:
                result[:, row, column] = image[:, top:bottom, left:right].max(axis=(1, 2))
    return result


def vote(maps: Array, box: Array, *, size: int, scale: float) -> Array:
    """Return (C,): each cell's mean over its own map, and the mean of those over the cells (R-FCN, equation 1)."""
    x1, y1, x2, y2 = (round_half_up(float(corner) * scale) for corner in box)
    _, height, width = maps.shape
    kinds = len(maps) // size**2
    result = np.zeros(kinds)
    for row in range(size):
        top, bottom = bounds(y1, max(y2 - y1, 1), row, size, height)
        for column in range(size):
            left, right = bounds(x1, max(x2 - x1, 1), column, size, width)
            if top < bottom and left < right:
                own = maps.reshape(kinds, size, size, height, width)[:, row, column, top:bottom, left:right]
                result += own.mean(axis=(1, 2)) / size**2
    return result
