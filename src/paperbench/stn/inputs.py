"""Inputs of the digit experiments: images that stay on the device as uint8, distorted anew for every step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperbench.data.classification import ImageSet
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey
from paperbench.engine.seeding import hashed
from paperbench.stn.distortions import Distortion

TRAIN_NOISE, TEST_NOISE = 100, 101
"""First key of this room's streams."""

Batch = tuple[Tensor, Tensor]
"""Inputs (B, C, H, W) float32 in 0..1 and labels (B,) int64."""


class DistortedImages:
    """Called with samples and the epochs they are drawn in, gives a batch: the same one for the same `key`, samples, epochs.

    An input does not depend on the others of its batch, but for the last bits of its positions, which come out of one product.

    `digits` > 1: an input is that many digits, each distorted for itself, in channels of its own, and the label is their sum
    (section A.1); the others beside a sample are drawn anew every epoch.
    """

    def __init__(
        self, images: ImageSet, distortion: Distortion, *, key: int, device: torch.device, digits: int = 1
    ) -> None:
        self.images = images.images.to(device)
        self.labels = images.labels.to(device)
        self.distortion = distortion.to(device)
        self.digits = digits
        self.classes = len(images.classes) if digits == 1 else digits * (len(images.classes) - 1) + 1
        self.device = device
        self._key = key

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Of an input, in pixels."""
        return self.distortion.canvas

    def __call__(self, samples: Tensor, epochs: Tensor) -> Batch:
        """samples, epochs: (B,) int64 on the device."""
        noise = uniform(self._key, samples, epochs, self.digits * (self.distortion.draws + 1))
        inputs, labels = [], []
        for number, own in enumerate(noise.chunk(self.digits, dim=1)):
            chosen = samples if number == 0 else (own[:, 0] * len(self)).long().clamp_(max=len(self) - 1)
            inputs.append(self.distortion(self.images, chosen, own[:, 1:]))
            labels.append(self.labels[chosen])
        if self.digits == 1:
            return inputs[0], labels[0]
        return torch.cat(inputs, dim=1), torch.stack(labels).sum(0)

    def fetch(self, key: BatchKey) -> Batch:
        """The batch of a training step."""
        return self(self._moved(key.indices), self._moved(key.epochs))

    def all(self, size: int, *, share: slice | None = None) -> Iterator[Batch]:
        """Every sample once, in order, `size` at a time, as of epoch 0; of the batches only those in `share`."""
        starts = range(0, len(self), size)[share or slice(None)]
        for start in starts:
            samples = torch.arange(start, min(start + size, len(self)), device=self.device)
            yield self(samples, torch.zeros_like(samples))

    def _moved(self, numbers: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device, non_blocking=True)


def for_training(
    images: ImageSet, distortion: Distortion, seed: int, device: torch.device, digits: int = 1
) -> DistortedImages:
    """Images for training, distorted anew in every epoch of a run with this seed."""
    return DistortedImages(images, distortion, key=hashed(seed, TRAIN_NOISE), device=device, digits=digits)


def for_test(
    images: ImageSet, distortion: Distortion, seed: int, device: torch.device, digits: int = 1
) -> DistortedImages:
    """A fixed test set: the images distorted once and for all, as `seed` says (that of the test set, not of the run)."""
    return DistortedImages(images, distortion, key=hashed(seed, TEST_NOISE), device=device, digits=digits)
