"""Which references judge an image: all, the same random ones for every image, or those that resemble it most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paperbench.engine.seeding import hashed
from paperbench.rca.cases import Picture, normalised
from paperbench.rca.config import ReferenceConfig

RANDOM: Final = 121
THUMBNAIL: Final = 16
"""Cells along each axis of the small picture that resemblance is measured on."""


class Selection:
    """Chooses references for one image after the other; their small pictures are made once."""

    def __init__(self, config: ReferenceConfig, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._thumbnails: dict[str, NDArray[np.float64]] = {}

    def choose(self, picture: Picture, references: Sequence[Picture]) -> list[Picture]:
        """References for one image, by name. The choice does not depend on the order in which they come."""
        config = self.config
        ordered = sorted(references, key=lambda reference: reference.name)
        if config.select == "all" or config.count >= len(ordered):
            return ordered
        if config.select == "random":
            drawn = sorted(ordered, key=lambda reference: hashed(self.seed, RANDOM, *reference.name.encode()))
        else:
            own = thumbnail(picture)
            likeness = {r.name: round(float(own @ self._thumbnail(r)), 12) for r in ordered}
            drawn = sorted(ordered, key=lambda reference: (-likeness[reference.name], reference.name))
        return sorted(drawn[: config.count], key=lambda reference: reference.name)

    def _thumbnail(self, reference: Picture) -> NDArray[np.float64]:
        if reference.name not in self._thumbnails:
            self._thumbnails[reference.name] = thumbnail(reference)
        return self._thumbnails[reference.name]


def thumbnail(picture: Picture) -> NDArray[np.float64]:
    """A small picture as a vector of mean 0 and length 1: the product of two is their normalised cross-correlation."""
    small = normalised(picture.image)
    for axis, length in enumerate(small.shape):
        edges = np.linspace(0, length, min(THUMBNAIL, length) + 1).round().astype(int)
        sizes = np.diff(edges).reshape([-1 if other == axis else 1 for other in range(small.ndim)])
        small = np.add.reduceat(small, edges[:-1], axis=axis) / sizes
    vector = np.zeros(THUMBNAIL**small.ndim)
    vector[: small.size] = small.ravel() - small.mean()
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
