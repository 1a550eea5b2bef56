"""What the trainer trains: a net with the loss of its targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from paperbench.distill.inputs import Jittered
from paperbench.distill.losses import hard_loss, logit_matching, soft_loss
from paperbench.distill.nets import Net
from paperbench.engine.order import BatchKey


class Batch(NamedTuple):
    """inputs: (B, D) float32. labels: (B,). targets: (B, K) of the teacher, or None where there is none. rows: (B,), where the
    images stand in the training set."""

    inputs: Tensor
    labels: Tensor
    targets: Tensor | None = None
    rows: Tensor | None = None


class Lessons:
    """Called with the key of a step, gives its batch: images with their labels and, if there is a teacher, what it says.

    targets: (N, K), one row for each training image, on the device.
    """

    def __init__(self, images: Jittered, targets: Tensor | None = None) -> None:
        self.images = images
        self.targets = targets

    def __call__(self, key: BatchKey) -> Batch:
        inputs, labels, rows = self.images(key)
        return Batch(inputs, labels, None if self.targets is None else self.targets[rows], rows)


class HardLearner(nn.Module):
    """A net that learns from labels."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": hard_loss(self.net(batch.inputs).float(), batch.labels)}


class SoftLearner(nn.Module):
    """A net that learns from a teacher, and from labels with a weight of their own (section 2)."""

    def __init__(
        self, net: Net, *, temperature: float, soft_weight: float, hard_weight: float, match_logits: bool = False
    ) -> None:
        super().__init__()
        self.net = net
        self.temperature = temperature
        self.soft_weight = soft_weight
        self.hard_weight = hard_weight
        self.match_logits = match_logits

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert batch.targets is not None
        logits = self.net(batch.inputs).float()
        hard = self.hard_weight * hard_loss(logits, batch.labels)
        return {"loss_soft": self.soft_weight * self._told(logits, batch.targets), "loss_hard": hard}

    def _told(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.match_logits:
            return logit_matching(logits, targets)
        return soft_loss(logits, targets, self.temperature)
