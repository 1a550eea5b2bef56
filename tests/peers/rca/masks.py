"""Pairs of binary masks of every kind: random ones, and those at which a measure of masks breaks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Pair = tuple[Mask, Mask]

SHAPES = {2: (17, 14), 3: (9, 8, 11)}


def random_mask(rng: np.random.Generator, shape: tuple[int, ...], share: float = 0.4) -> Mask:
    """Return a mask of which `share` of the voxels are set, never none."""
    mask = rng.random(shape) < share
    mask.flat[rng.integers(mask.size)] = True
    return mask


def ball(rng: np.random.Generator, shape: tuple[int, ...], *, largest: float = 0.45) -> Mask:
    """Return an ellipsoid, cut off where it crosses the border."""
    centre = [rng.uniform(0.2, 0.8) * length for length in shape]
    radii = [rng.uniform(0.12, largest) * length for length in shape]
    grids = np.meshgrid(*[np.arange(length) + 0.5 for length in shape], indexing="ij")
    inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grids, centre, radii, strict=True)) <= 1
    mask = np.asarray(inside, dtype=bool)
    mask[tuple(int(c) for c in centre)] = True
    return mask


def box(rng: np.random.Generator, shape: tuple[int, ...]) -> Mask:
    """Return an axis-parallel box of one voxel or more."""
    mask = np.zeros(shape, bool)
    ends = [sorted(rng.integers(0, length, 2)) for length in shape]
    mask[tuple(slice(low, high + 1) for low, high in ends)] = True
    return mask


def voxel(rng: np.random.Generator, shape: tuple[int, ...]) -> Mask:
    """Return a mask of one voxel."""
    mask = np.zeros(shape, bool)
    mask.flat[rng.integers(mask.size)] = True
    return mask


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return random_mask(rng, shape), random_mask(rng, shape)


def _sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return random_mask(rng, shape, 0.03), random_mask(rng, shape, 0.03)


def _dense(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return random_mask(rng, shape, 0.95), random_mask(rng, shape, 0.9)


def _balls(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return ball(rng, shape), ball(rng, shape)


def _boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return box(rng, shape), box(rng, shape)


def _voxels(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return voxel(rng, shape), voxel(rng, shape)


def _voxel_in_ball(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return voxel(rng, shape), ball(rng, shape)


def _equal(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    mask = ball(rng, shape)
    return mask, mask.copy()


def _full(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return np.ones(shape, bool), ball(rng, shape)


def _at_the_border(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    first, second = np.zeros(shape, bool), np.zeros(shape, bool)
    axis = int(rng.integers(len(shape)))
    edge = [slice(None)] * len(shape)
    edge[axis] = slice(0, int(rng.integers(1, 4)))
    first[tuple(edge)] = True
    edge[axis] = slice(shape[axis] - int(rng.integers(1, 4)), None)
    second[tuple(edge)] = True
    return first, second


def _hollow(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    outer = np.ones(shape, bool)
    outer[tuple(slice(2, -2) for _ in shape)] = False
    return outer, ball(rng, shape)


def _chequered(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    parity = np.indices(shape).sum(0) % 2 == 0
    return parity, np.roll(parity, int(rng.integers(1, 4)), axis=0)


def _nested(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    outer = ball(rng, shape)
    return outer & random_mask(rng, shape, 0.7) | voxel(rng, shape), outer


def _scattered(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    """A mask that is right but for one voxel far away: the largest distance and its percentile part."""
    mask = ball(rng, shape, largest=0.3)
    other = mask.copy()
    other[tuple(0 if rng.random() < 0.5 else -1 for _ in shape)] ^= True
    other.flat[int(np.flatnonzero(mask)[0])] = True
    return other, mask


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Pair]] = {
    "noise": _noise,
    "sparse": _sparse,
    "dense": _dense,
    "balls": _balls,
    "boxes": _boxes,
    "voxels": _voxels,
    "voxel and ball": _voxel_in_ball,
    "equal": _equal,
    "full": _full,
    "border": _at_the_border,
    "hollow": _hollow,
    "chequered": _chequered,
    "nested": _nested,
    "one voxel off": _scattered,
}


def pair(kind: str, dims: int, seed: int, shape: tuple[int, ...] | None = None) -> Pair:
    """Return a predicted and a true mask of a kind; another seed gives another pair."""
    rng = np.random.default_rng([dims, seed, list(KINDS).index(kind)])
    return KINDS[kind](rng, shape or SHAPES[dims])


def spacing(dims: int, seed: int) -> tuple[float, ...]:
    """Return an anisotropic spacing: neighbouring slices may lie ten times as far apart as pixels."""
    rng = np.random.default_rng([dims, seed, 99])
    return tuple(float(value) for value in np.round(rng.uniform(0.3, 5.0, dims), 3))
