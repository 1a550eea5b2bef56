"""Atlas forests (section III-B.1): a random forest learns one image's mask from where a voxel lies and what surrounds it.

Features of a voxel are its place in the image, its intensity, and means over boxes at random offsets from it, plain and as
differences of two (the offset box features of the paper's forests). Boxes are read from the integral image. One forest is
trained for each mask of each image, which is why this classifier costs more with every segmenter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.engine.seeding import hashed
from paperbench.rca.cases import RECORDED, Picture, normalised, reason
from paperbench.rca.classifier import Drawn

FOREST: Final = 123
FEATURES: Final = 40
TREES: Final = 20
SAMPLES: Final = 20_000
"""Voxels that a forest is trained on, as many of each label as there are, the rarer ones first."""
REACH, LARGEST = 0.25, 0.08
"""Farthest offset and largest half width of a box, as shares of the image's side."""

Boxes = tuple[NDArray[np.float64], NDArray[np.float64]]


class ForestClassifier:
    """Implements `ReverseClassifier`; everything random follows from the seed and the image's name."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def draw(self, picture: Picture, references: Sequence[Picture]) -> Iterator[Drawn]:
        """See `ReverseClassifier`."""
        chosen = boxes(picture.image.ndim, seed=self.seed)
        own = features(normalised(picture.image), chosen)
        forests = {name: self._grown(own, mask, name) for name, mask in picture.masks.items()}
        for reference in references:
            try:
                theirs = features(normalised(reference.image), chosen)
                shape = reference.image.shape
                maps = {
                    n: torch.from_numpy(f.predict(theirs).reshape(shape).astype(np.int64)) for n, f in forests.items()
                }
                yield Drawn(reference=reference.name, maps=maps)
            except RECORDED as error:
                yield Drawn(reference=reference.name, maps={}, failure=reason(error))

    def _grown(self, own: NDArray[np.float32], mask: NDArray[np.int64], name: str) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        key = hashed(self.seed, FOREST, *name.encode())
        flat = mask.ravel()
        chosen = balanced(flat, np.random.default_rng(key), SAMPLES)
        forest = RandomForestClassifier(n_estimators=TREES, min_samples_leaf=2, random_state=key % 2**32, n_jobs=1)
        return forest.fit(own[chosen], flat[chosen])


def balanced(labels: NDArray[np.int64], rng: np.random.Generator, samples: int) -> NDArray[np.int64]:
    """At most so many voxels to learn from: every label gets an equal share, and what rare ones leave goes to the others."""
    values, counts = np.unique(labels, return_counts=True)
    left, taken = samples, []
    for rank, index in enumerate(np.argsort(counts, kind="stable")):
        share = min(int(counts[index]), left // (len(values) - rank))
        taken.append(rng.choice(np.flatnonzero(labels == values[index]), share, replace=False))
        left -= share
    return np.concatenate(taken)


def boxes(dims: int, *, seed: int) -> Boxes:
    """Offsets (F, 2, d) and half widths (F, 2, d) of two boxes a feature, as shares of the image's side."""
    rng = np.random.default_rng(hashed(seed, FOREST, dims))
    offsets = rng.uniform(-REACH, REACH, (FEATURES, 2, dims))
    widths = rng.uniform(0, LARGEST, (FEATURES, 2, dims))
    offsets[: FEATURES // 4] *= 0.2  # close by, where edges are
    return offsets, widths


def features(image: NDArray[np.float64], chosen: Boxes) -> NDArray[np.float32]:
    """(V, d + 1 + F): place from 0 to 1, intensity, and box features, of every voxel of an image in [0, 1].

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
    """Means over a box about every voxel, from the integral image `total` (one longer along each axis)."""
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
