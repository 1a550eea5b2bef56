"""Labelled images on the device, and the batches of a training.

Images stay on the device as bytes; the batch of a step is gathered, shifted and converted to float there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from paperbench.data.image_sets import ImageSet
from paperbench.data.photographs import PhotographStore
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey
from paperbench.engine.seeding import hashed
from paperbench.engine.store import content_key
from paperbench.engine.transfer import to_device

_HASHED_AT_ONCE = 4096
JITTER = 100
"""First key of the stream of shifts."""


@dataclass(frozen=True, eq=False)
class Images:
    """N images of C x H x W pixels with their labels, on a device.

    pixels: (N, C, H, W) uint8, a tensor or a `PhotographStore`. labels: (N,) int64, -1 for an image without a class. classes: K
    names. name: of the data set and split.
    """

    pixels: Tensor | PhotographStore
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, images: ImageSet, device: torch.device) -> Images:
        pixels: Tensor | PhotographStore = images.images
        if isinstance(pixels, Tensor):
            pixels = (pixels if pixels.ndim == 4 else pixels.unsqueeze(1)).contiguous()
        return cls(pixels.to(device), images.labels.to(device), images.classes, images.name)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def inputs(self) -> int:
        """D = C * H * W."""
        return math.prod(self.size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels and labels, wherever the files lay."""
        recipe = repr((tuple(self.pixels.shape), self.classes))
        parts = (self.pixels[start : start + _HASHED_AT_ONCE] for start in range(0, len(self), _HASHED_AT_ONCE))
        return content_key(recipe, *(part.cpu().numpy() for part in parts), self.labels.cpu().numpy())

    def select(self, rows: Tensor | None) -> Images:
        """Return the images at `rows`, (n,) int64; all of them for None."""
        if rows is None:
            return self
        pixels = self.pixels.part(rows) if isinstance(self.pixels, PhotographStore) else self.pixels[rows]
        return Images(pixels, self.labels[rows], self.classes, self.name)

    @property
    def labelled(self) -> Tensor:
        """(n,) int64: the rows of images with a class."""
        return (self.labels >= 0).nonzero().squeeze(1)

    @property
    def unlabelled(self) -> Tensor:
        """(n,) int64: the rows of images without a class."""
        return (self.labels < 0).nonzero().squeeze(1)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Every image once, in order, (<= size, D) float32 in 0..1."""
        for start in range(0, len(self), size):
            yield as_float(self.pixels[start : start + size])


def as_float(pixels: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> (B, D) float32 in 0..1."""
    return pixels.flatten(1).to(torch.float32).mul_(1.0 / 255.0)


class JitteredBatches:
    """Batches of a training: the images of a `BatchKey`, each shifted by its own whole number of pixels.

    The shift of an image is a function of (seed, image, epoch) alone; both coordinates are uniform in -reach..reach, and pixels
    that enter are black. rows: (n,) int64, the images to train on, which the key counts; None is all of them.
    """

    def __init__(self, images: Images, *, reach: int, seed: int, rows: Tensor | None = None) -> None:
        self.images = images
        self.rows = rows
        self._reach = reach
        self._key = hashed(seed, JITTER)
        digest = None if rows is None else content_key("", rows.cpu().numpy())
        self.identity = (id(images), reach, self._key if reach else None, digest)
        """Equal identities give equal batches for equal keys, within one process."""
        self._windows: Tensor | None = None
        if reach and isinstance(images.pixels, Tensor):
            self._windows = _shifted(images.pixels, reach)

    def __len__(self) -> int:
        return len(self.images) if self.rows is None else len(self.rows)

    def __call__(self, key: BatchKey) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs (B, D) float32, labels (B,) and rows (B,), the images' positions in the training set."""
        own = self._to_device(key.indices)
        rows = own if self.rows is None else self.rows[own]
        if not self._reach:
            pixels = self.images.pixels[rows]
        else:
            shifts = uniform(self._key, rows, self._to_device(key.epochs), 2)
            down, right = (shifts * (2 * self._reach + 1)).long().unbind(1)
            if self._windows is not None:
                pixels = self._windows[rows, down, right]
            else:  # of images that are not all in memory, those of the batch alone
                own = torch.arange(len(rows), device=rows.device)
                pixels = _shifted(self.images.pixels[rows], self._reach)[own, down, right]
        return as_float(pixels), self.images.labels[rows], rows

    def _to_device(self, numbers: NDArray[np.int64]) -> Tensor:
        return to_device(numbers, self.images.pixels.device)


def _shifted(pixels: Tensor, reach: int) -> Tensor:
    """(N, C, H, W) -> (N, shifts down, shifts right, C, H, W) without a copy: selecting a window is indexing."""
    height, width = pixels.shape[2:]
    return F.pad(pixels, (reach,) * 4).unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5)


class Batch(NamedTuple):
    """inputs: (B, D) float32. labels: (B,) int64. targets: (B, K) of the teacher, or None without one."""

    inputs: Tensor
    labels: Tensor
    targets: Tensor | None = None


class LabelledBatches:
    """Batches of images with their labels and, with a teacher, its targets; called with the `BatchKey` of a step.

    targets: (N, K), one row for each training image, on the device.
    """

    def __init__(self, images: JitteredBatches, targets: Tensor | None = None) -> None:
        self.images = images
        self.targets = targets

    def __call__(self, key: BatchKey) -> Batch:
        inputs, labels, rows = self.images(key)
        return Batch(inputs, labels, None if self.targets is None else self.targets[rows])
