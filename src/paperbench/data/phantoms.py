"""Generated anatomy: bodies with five organs, deformed, shaded and noisy, in two or three dimensions; nothing is read from disk.

A phantom is a pure function of `(data_seed, number)`. `degraded` turns a true label map into a segmentation of any quality,
also of real data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Map = NDArray[np.int64]
Field = NDArray[np.float64]


@dataclass(frozen=True)
class Organ:
    """An ellipsoid in a body that reaches from -1 to 1 along each axis; brightness from 0 to 1."""

    name: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    brightness: float


ORGANS: Final = (
    Organ("liver", (0.1, -0.34, 0.0), (0.34, 0.27, 0.45), 0.62),
    Organ("heart", (-0.42, 0.12, 0.05), (0.2, 0.24, 0.3), 0.85),
    Organ("spleen", (0.08, 0.46, 0.1), (0.2, 0.13, 0.25), 0.7),
    Organ("right kidney", (0.52, -0.25, -0.1), (0.15, 0.11, 0.25), 0.95),
    Organ("left kidney", (0.48, 0.27, -0.1), (0.15, 0.11, 0.25), 0.95),
)
"""Label k + 1 is organ k."""

NAMES: Final = tuple(organ.name for organ in ORGANS)
_BODY = (0.86, 0.74, 0.9)
_PURPOSE_PHANTOM: Final = 7301


def phantom(number: int, *, shape: Sequence[int], data_seed: int = 0) -> tuple[NDArray[np.float32], Map]:
    """Image (arbitrary positive intensities) and labels 0 to 5 of one phantom, both of `shape` (two or three axes)."""
    rng = np.random.default_rng([data_seed, _PURPOSE_PHANTOM, number])
    dims = len(shape)
    axes = [np.linspace(-1, 1, length) for length in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    place = _posed(grid, rng) + np.stack([smooth_field(shape, rng, knots=5, size=0.05) for _ in range(dims)])

    labels = np.zeros(tuple(shape), np.int64)
    image = np.where(_inside(place, (0.0,) * dims, _BODY[:dims]), 0.35, 0.05)
    for label, organ in enumerate(ORGANS, start=1):
        centre = np.array(organ.centre[:dims]) + rng.normal(0, 0.025, dims)
        radii = np.array(organ.radii[:dims]) * rng.uniform(0.85, 1.15, dims)
        within = _inside(place, centre, radii)
        labels[within] = label
        image[within] = organ.brightness * rng.uniform(0.92, 1.08)
    return _taken(image, rng), labels


def _posed(grid: Field, rng: np.random.Generator) -> Field:
    """Another size, place and small shear of the body, (d, ...)."""
    dims = len(grid)
    matrix = np.diag(rng.uniform(0.88, 1.12, dims)) + rng.normal(0, 0.03, (dims, dims))
    moved = np.tensordot(matrix, grid, axes=1)
    return moved + rng.normal(0, 0.04, dims).reshape(dims, *[1] * dims)


def _inside(place: Field, centre: Any, radii: Any) -> NDArray[np.bool_]:
    dims = len(place)
    offset = (place - np.reshape(centre, (dims, *[1] * dims))) / np.reshape(radii, (dims, *[1] * dims))
    return np.asarray((offset**2).sum(0) <= 1)


def _taken(image: Field, rng: np.random.Generator) -> NDArray[np.float32]:
    """Simulate a scanner: blur of the voxel, shading, noise, a scale of its own."""
    blurred = ndimage.gaussian_filter(image, 0.6)
    shaded = blurred * (1 + smooth_field(image.shape, rng, knots=4, size=0.12))
    noisy = shaded + rng.normal(0, 0.04, image.shape)
    return (np.clip(noisy, 0, None) * 10 ** rng.uniform(1.5, 4)).astype(np.float32)


def smooth_field(shape: Sequence[int], rng: np.random.Generator, *, knots: int, size: float) -> Field:
    """A random field that varies over about `1 / knots` of the image, of standard deviation about `size`."""
    coarse = rng.normal(0, size, [knots] * len(shape))
    zoom = [length / knots for length in shape]
    return np.asarray(ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True), np.float64)


def degraded(planes: NDArray[np.bool_], severity: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Binary masks (L, ...) degraded together: bent, shifted, each grown or shrunk, at last one lost; the same shape.

    `severity` is 0 (the masks themselves) to 1 (organs hardly met). A lost organ is what segmenters do, and what an average must
    not hide: it happens to at most one in five masks of severity above 0.6.
    """
    if not 0 <= severity <= 1:
        raise ValueError(f"severity is {severity}; it lies between 0 and 1")
    if severity == 0:
        return planes.copy()
    shape = planes.shape[1:]
    extent = max(2.0, _typical_extent(planes))
    index = np.stack(np.meshgrid(*[np.arange(length) for length in shape], indexing="ij")).astype(np.float64)
    shift = rng.normal(0, 1, len(shape))
    shift *= 0.45 * severity * extent * rng.uniform(0.3, 1) / max(np.linalg.norm(shift), 1e-9)
    for axis in range(len(shape)):
        index[axis] += shift[axis] + smooth_field(shape, rng, knots=6, size=0.22 * severity * extent)
    nearest = tuple(np.clip(np.rint(index[a]), 0, shape[a] - 1).astype(np.int64) for a in range(len(shape)))
    out = planes[(slice(None), *nearest)].copy()
    for plane in range(len(out)):
        own = max(1.0, _typical_extent(planes[plane : plane + 1]))
        steps = round(rng.normal(0, 0.12) * severity * own)
        if steps and out[plane].any():
            grow = ndimage.binary_dilation if steps > 0 else ndimage.binary_erosion
            out[plane] = grow(out[plane], iterations=abs(steps))
    if severity > 0.6 and rng.uniform() < 0.2:
        out[rng.integers(len(out))] = False
    return out


def _typical_extent(planes: NDArray[np.bool_]) -> float:
    """Side of a cube that holds as many voxels as the median mask that is not empty; 0 if all are."""
    counts = [int(plane.sum()) for plane in planes if plane.any()]
    return float(np.median(counts)) ** (1 / (planes.ndim - 1)) if counts else 0.0
