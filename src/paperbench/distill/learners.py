"""What the trainer trains: a net with the loss of its targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from paperbench.distill.losses import hard_loss, logit_matching, soft_loss
from paperbench.distill.nets import Net
from paperbench.engine.order import BatchKey


class Batch(NamedTuple):
    """inputs: (B, D) float32. labels: (B,). targets: (B, K) of the teacher, or None where there is none."""

    inputs: Tensor
    labels: Tensor
    targets: Tensor | None = None


Fetch = Callable[[BatchKey], Batch]


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
