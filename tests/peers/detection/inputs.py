"""Boxes of every kind, ordinary and extreme."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KINDS = (
    "random", "whole", "same", "nested", "touching", "thin", "empty", "point", "huge", "tiny", "beyond", "far", "none", "one",
)  # fmt: skip
"""`whole`: corners on a coarse grid, so that overlaps tie. `touching`: neighbours that share an edge. `empty`: some without a side.
`point`: all without extent. `beyond`: across and outside the border of the image. `far`: a large offset, which float32 rounds."""

SOLID = tuple(kind for kind in KINDS if kind not in ("empty", "point"))
"""Those whose boxes have positive sides."""

SIDE = 100.0
"""Of the image that ordinary boxes lie in, pixels."""


def boxes(kind: str, rng: np.random.Generator, count: int = 12) -> Tensor:
    """Return (N, 4) float32 xyxy; N is `count` but for the kinds `none` and `one`."""
    return torch.from_numpy(_corners(kind, rng, count).astype(np.float32))


def _corners(kind: str, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    if kind in ("none", "one"):
        count = int(kind == "one")
    low = rng.uniform(0, 0.7 * SIDE, (count, 2))
    size = rng.uniform(2, 0.5 * SIDE, (count, 2))
    if kind == "whole":
        low, size = np.floor(low / 10) * 10, np.ceil(size / 20) * 10
    elif kind == "same":
        low, size = np.broadcast_to(low[:1], low.shape), np.broadcast_to(size[:1], size.shape)
    elif kind == "nested":
        step = rng.uniform(0.5, 3, (count, 2)).cumsum(axis=0)
        low, size = 10 + step, 90 - 2 * step
    elif kind == "touching":
        side = float(rng.integers(2, 9))
        low, size = np.stack([np.arange(count) * side, np.full(count, 16.0)], 1), np.full((count, 2), side)
    elif kind == "thin":
        size = size * np.where(rng.random((count, 2)) < 0.5, 1e-3, 1)
    elif kind == "empty":
        size = size * (rng.random((count, 2)) < 0.5)
    elif kind == "point":
        size = np.zeros_like(size)
    elif kind == "huge":
        low, size = low * 1e6, size * 1e6
    elif kind == "tiny":
        low, size = low * 1e-6, size * 1e-6
    elif kind == "beyond":
        low, size = rng.uniform(-SIDE, 1.5 * SIDE, (count, 2)), size * 3
    elif kind == "far":
        low = low + 1e5
    return np.concatenate([low, low + size], axis=1)


def plain_iou(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """Intersection over union in float64, one pair at a time; 0 where there is no union."""
    result = np.zeros((len(a), len(b)))
    for i, one in enumerate(a.double().tolist()):
        for j, other in enumerate(b.double().tolist()):
            width = min(one[2], other[2]) - max(one[0], other[0])
            height = min(one[3], other[3]) - max(one[1], other[1])
            shared = max(width, 0.0) * max(height, 0.0)
            union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
            result[i, j] = shared / union if union > 0 else 0.0
    return result
