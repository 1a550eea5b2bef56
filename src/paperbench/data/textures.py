"""Colours, textures and strokes of generated scenes. Images are float32 (H, W, 3) in 0..255."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def _enlarge(grid: Array, height: int, width: int) -> Array:
    """Bilinear enlargement of a coarse (h, w, C) grid, corner to corner."""

    def weights(coarse: int, fine: int) -> tuple[NDArray[np.int64], Array]:
        position = np.linspace(0, coarse - 1, fine, dtype=np.float32)
        low = np.minimum(position.astype(np.int64), coarse - 2)
        return low, position - low.astype(np.float32)

    row, down = weights(grid.shape[0], height)
    column, right = weights(grid.shape[1], width)
    across = grid[:, column] + right[:, None] * (grid[:, column + 1] - grid[:, column])
    return (across[row] + down[:, None, None] * (across[row + 1] - across[row])).astype(np.float32, copy=False)


def _stripes(rng: np.random.Generator, height: int, width: int) -> Array:
    """A wave of random direction, (H, W) in -1..1; its period is 5 to 30 pixels."""
    angle, period, phase = rng.random(3).tolist()
    angle, step = math.pi * angle, 2 * math.pi / (5 + 25 * period)
    x = np.arange(width, dtype=np.float32) * np.float32(step * math.cos(angle))
    y = np.arange(height, dtype=np.float32) * np.float32(step * math.sin(angle)) + np.float32(2 * math.pi * phase)
    # sin(x + y) from two sines and cosines: H + W evaluations instead of H * W
    return np.sin(y)[:, None] * np.cos(x) + np.cos(y)[:, None] * np.sin(x)


def _centred(rng: np.random.Generator, *shape: int) -> Array:
    """Uniform in -1..1."""
    return (2 * rng.random(shape, dtype=np.float32) - 1).astype(np.float32, copy=False)


def background(rng: np.random.Generator, side: int) -> tuple[Array, Array]:
    """A gradient between two colours, clouds at several scales, sometimes stripes; and the colours, (2, 3)."""
    colours = 40 + 175 * rng.random((2, 3), dtype=np.float32)
    # The second colour stays near the first: objects must differ from both.
    colours[1] = 0.5 * colours[0] + 0.5 * colours[1]
    # Each of the four corners lies between the two colours; clouds of one scale are added to the corners' own grid
    # before enlarging, so that every scale costs one enlargement.
    share = rng.random((2, 2, 1), dtype=np.float32)
    image = _enlarge(colours[0] + share * (colours[1] - colours[0]), side, side)
    grey = np.zeros((side, side, 1), np.float32)
    for cells in (5, 12, 40):
        if cells < side:
            grey += _enlarge(np.float32(rng.uniform(4, 22)) * _centred(rng, cells, cells, 1), side, side)
    if rng.random() < 0.5:
        grey += np.float32(rng.uniform(6, 22)) * _stripes(rng, side, side)[:, :, None]
    tint = 1 + 0.35 * _centred(rng, 3)
    image += grey * tint
    return image, colours


def fill(rng: np.random.Generator, height: int, width: int, *, unlike: Array) -> Array:
    """Paint for an object, (height, width, 3): plain, shaded, striped or mottled.

    Its colour lies at least 75 of 255 (Euclidean) from every row of `unlike`, where ten draws find such a one.
    """
    candidates = 20 + 215 * rng.random((10, 3), dtype=np.float32)
    distance = np.sqrt(((candidates[:, None] - unlike) ** 2).sum(axis=2)).min(axis=1)
    far = np.flatnonzero(distance >= 75)
    colour = candidates[far[0] if far.size else int(distance.argmax())]
    kind = int(rng.integers(4))
    strength = np.float32(rng.uniform(10, 32))
    if kind == 1:
        texture = _enlarge(strength * _centred(rng, 2, 2, 1), height, width)
    elif kind == 2:
        texture = strength * _stripes(rng, height, width)[:, :, None]
    elif kind == 3:
        cells = max(2, min(height, width) // 6)
        texture = _enlarge(strength * _centred(rng, cells, cells, 1), height, width)
    else:
        texture = np.zeros((1, 1, 1), np.float32)
    return colour + texture * (1 + 0.3 * _centred(rng, 3))


def stroke(rng: np.random.Generator, image: Array) -> None:
    """Paints one straight stroke of random colour, length and width into the image: clutter that is no object."""
    side = min(image.shape[:2])
    x, y, angle, length, thickness = rng.random(5).tolist()
    x, y, angle = x * image.shape[1], y * image.shape[0], 2 * math.pi * angle
    half = side * (0.04 + 0.16 * length)
    radius = max(0.7, side * (0.004 + 0.012 * thickness))
    along_x, along_y = math.cos(angle), math.sin(angle)
    colour = 255 * rng.random(3, dtype=np.float32)
    reach_x, reach_y = half * abs(along_x) + radius + 1, half * abs(along_y) + radius + 1
    left, right = max(0, int(x - reach_x)), min(image.shape[1], int(x + reach_x) + 1)
    top, bottom = max(0, int(y - reach_y)), min(image.shape[0], int(y + reach_y) + 1)
    dx = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)
    dy = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y))[:, None]
    beyond = np.maximum(np.abs(np.float32(along_x) * dx + np.float32(along_y) * dy) - np.float32(half), 0)
    across = np.float32(along_x) * dy - np.float32(along_y) * dx
    alpha = np.clip(np.float32(radius + 0.5) - np.sqrt(beyond * beyond + across * across), 0, 1)[:, :, None]
    patch = image[top:bottom, left:right]
    patch += alpha * (colour - patch)
