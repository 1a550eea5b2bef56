"""Splits of data that come in one piece: a share of the images is held out for the test, by a seed.

An image's key depends on the seed and its own name alone, so that neither the order of the files nor a folder's place changes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from paperbench.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Part:
    """One side of such a split. fraction: share that is held out. test: the images that are held out, else the others."""

    fraction: float
    seed: int = 0
    test: bool

    @property
    def name(self) -> str:
        return "test" if self.test else "train"

    def of(self, names: Sequence[str], where: str) -> list[bool]:
        """Return which of the images are of this part; at least one is, of either. `where` names the data in the error.

        Raises DataError for a single image, which cannot be both learnt and tested on.
        """
        if len(names) < 2:
            raise DataError(f"{where}: has one image, which cannot be both trained and tested on: add images")
        order = sorted(names, key=self._key)
        held = set(order[: min(len(names) - 1, max(1, round(self.fraction * len(names))))])
        return [(name in held) == self.test for name in names]

    def _key(self, name: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
