"""Batches of photographs that stay on the device as uint8."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey

Batch = tuple[Tensor, Tensor]
"""Inputs (B, 3, size, size) float32 in 0..1 and labels (B, ...) int64."""


class Photographs:
    """images (N, 3, S, S) uint8 and labels (N, ...), moved to `device`.

    Training batches are random `size` crops, mirrored half of the time, as functions of (key, sample, epoch); with `size` = S and
    no `mirror` they are the images themselves. Test batches are the middle.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, *, size: int, key: int, device: torch.device, mirror: bool
    ) -> None:
        self.images = images.to(device)
        self.labels = labels.to(device)
        self.size = size
        self.device = device
        self._key = key
        self._mirror = mirror
        self._line = torch.arange(size, device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, key: BatchKey) -> Batch:
        """The batch of a training step."""
        samples, epochs = (torch.from_numpy(part).to(self.device) for part in (key.indices, key.epochs))
        noise = uniform(self._key, samples, epochs, 3)
        room = self.images.shape[-1] - self.size + 1
        left, top = ((noise[:, k] * room).long().clamp_(max=room - 1) for k in (0, 1))
        columns = left[:, None] + self._line
        if self._mirror:
            columns = torch.where(noise[:, 2:] < 0.5, columns.flip(1), columns)
        return self._taken(samples, top[:, None] + self._line, columns), self.labels[samples]

    def all(self, batch: int, *, share: slice | None = None) -> Iterator[Batch]:
        """Every image once, in order, `batch` at a time; of the batches only those in `share`."""
        middle = (self.images.shape[-1] - self.size) // 2 + self._line
        for start in range(0, len(self), batch)[share or slice(None)]:
            samples = torch.arange(start, min(start + batch, len(self)), device=self.device)
            lines = middle.expand(len(samples), -1)
            yield self._taken(samples, lines, lines), self.labels[samples]

    def _taken(self, samples: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        if self.size == self.images.shape[-1] and not self._mirror:
            return self.images[samples].float().div_(255)
        channels = torch.arange(3, device=self.device)
        crop = self.images[
            samples[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]
        return crop.float().div_(255)
