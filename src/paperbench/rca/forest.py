"""Atlas forests (section III-B.1): a random forest learns one image's mask from the position and surroundings of voxels.

Features of a voxel are its position in the image, its intensity, and means over boxes at random offsets from it, plain and as
differences of two (the offset box features of the paper's forests). Boxes are read from the integral image. One forest is
trained for each mask of each image, so the cost grows with the number of segmenters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.engine.seeding import hashed
from paperbench.rca.cases import RECORDED, Image, normalised, reason
from paperbench.rca.scoring import ReferenceLabels

FOREST: Final = 123
FEATURES: Final = 40
TREES: Final = 20
SAMPLES: Final = 20_000
"""Training voxels of a forest, balanced over the labels."""
REACH, LARGEST = 0.25, 0.08
"""Farthest offset and largest half width of a box, as fractions of the image's side."""

Boxes = tuple[NDArray[np.float64], NDArray[np.float64]]


class ForestClassifier:
    """Implements `ReverseClassifier`; everything random follows from the seed and the image's name."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def segment(self, image: Image, references: Sequence[Image]) -> Iterator[ReferenceLabels]:
        """See `ReverseClassifier`."""
        chosen = boxes(image.intensities.ndim, seed=self.seed)
        image_features = features(normalised(image.intensities), chosen)
        forests = {name: self._fit(image_features, mask, name) for name, mask in image.masks.items()}
        for reference in references:
            try:
                reference_features = features(normalised(reference.intensities), chosen)
                shape = reference.intensities.shape
                maps = {
                    n: torch.from_numpy(f.predict(reference_features).reshape(shape).astype(np.int64))
                    for n, f in forests.items()
                }
                yield ReferenceLabels(reference=reference.name, maps=maps)
            except RECORDED as error:
                yield ReferenceLabels(reference=reference.name, maps={}, failure=reason(error))

    def _fit(self, image_features: NDArray[np.float32], mask: NDArray[np.int64], name: str) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        key = hashed(self.seed, FOREST, *name.encode())
        flat = mask.ravel()
        chosen = balanced(flat, np.random.default_rng(key), SAMPLES)
        forest = RandomForestClassifier(n_estimators=TREES, min_samples_leaf=2, random_state=key % 2**32, n_jobs=1)
        return forest.fit(image_features[chosen], flat[chosen])


def balanced(labels: NDArray[np.int64], rng: np.random.Generator, samples: int) -> NDArray[np.int64]:
    """Return at most `samples` training voxels: an equal number for each label; the others fill up for rare ones."""
    values, counts = np.unique(labels, return_counts=True)
    left, taken = samples, []
    for rank, index in enumerate(np.argsort(counts, kind="stable")):
        share = min(int(counts[index]), left // (len(values) - rank))
        taken.append(rng.choice(np.flatnonzero(labels == values[index]), share, replace=False))
        left -= share
    return np.concatenate(taken)


def boxes(dims: int, *, seed: int) -> Boxes:
    """Draw offsets (F, 2, d) and half widths (F, 2, d) of two boxes for each feature, as fractions of the image's side."""
    rng = np.random.default_rng(hashed(seed, FOREST, dims))
    offsets = rng.uniform(-REACH, REACH, (FEATURES, 2, dims))
    widths = rng.uniform(0, LARGEST, (FEATURES, 2, dims))
    offsets[: FEATURES // 4] *= 0.2  # near boxes see edges
    return offsets, widths


def features(image: NDArray[np.float64], chosen: Boxes) -> NDArray[np.float32]:
    """Return (V, d + 1 + F): position from 0 to 1, intensity, and box features, of every voxel of an image in [0, 1].

    The first half of the boxes are means, the second differences of two means. Boxes are cut off at the border of the image.
    """
    shape = image.shape
    place = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij"))
    total = np.pad(image, [(1, 0)] * image.ndim).cumsum(0).cumsum(1)
    total = total.cumsum(2) if image.ndim == 3 else total
    columns = [*place, image]
    for number, (offset, width) in enumerate(zip(*chosen, strict=True)):
        first = box_means(total, shape, offset[0], width[0])
        columns.append(first if number < FEATURES // 2 else first - box_means(total, shape, offset[1], width[1]))
    return np.stack([column.ravel() for column in columns], axis=1).astype(np.float32)


def box_means(
    total: NDArray[np.float64], shape: Sequence[int], offset: NDArray[np.float64], width: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return means over a box around every voxel, from the integral image `total` (one longer along each axis)."""
    ends = []
    for axis, length in enumerate(shape):
        centre = np.arange(length) + round(float(offset[axis]) * length)
        half = round(float(width[axis]) * length)
        low = np.clip(centre - half, 0, length - 1)
        ends.append((low, np.maximum(np.clip(centre + half + 1, 0, length), low + 1)))
    out = np.zeros(tuple(shape))
    for corner in range(2 ** len(shape)):
        picks = [ends[axis][corner >> axis & 1] for axis in range(len(shape))]
        sign = (-1) ** (len(shape) - corner.bit_count())
        out += sign * total[np.ix_(*picks)]
    size = np.ones(())
    for low, high in ends:
        size = np.multiply.outer(size, high - low)
    return out / size
