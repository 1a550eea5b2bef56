"""The losses of distillation (Hinton, Vinyals, Dean 2015, section 2): pure functions, then the modules that a trainer trains.

B images, C classes, M teachers. Logits are any real numbers; everything is a mean over the batch, never over the classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.distill.batches import Batch
from paperbench.distill.nets import Net
from paperbench.distill.torchvision_nets import Classifier

Average = Literal["probabilities", "logits"]


def soft_targets(logits: Tensor, *, temperature: float, average: Average = "probabilities") -> Tensor:
    """Return p_i = exp(v_i / T) / sum_j exp(v_j / T) of one or several teachers (equation 1).

    logits: (M, ..., C). Returns (..., C), the arithmetic mean of the teachers' probabilities at that temperature, or the
    probabilities of the mean of their logits (which is the geometric mean, normalised).
    """
    if average == "logits":
        return F.softmax(logits.mean(0) / temperature, dim=-1)
    return F.softmax(logits / temperature, dim=-1).mean(0)


def soft_loss(logits: Tensor, targets: Tensor, temperature: float | Tensor) -> Tensor:
    """Return T^2 KL(p || q), the mean over B.

    logits: (..., B, C) of the student. targets: (..., B, C), p at the same temperature. Gradients of the KL shrink as 1 / T^2:
    with the factor the balance with the hard loss, and the learning rate, stay what they are when T changes. A temperature
    of shape (S,) belongs to S stacked students, and the result is (S,).
    """
    heat = temperature[:, None, None] if isinstance(temperature, Tensor) else temperature
    # In doubles, which MPS lacks: at high temperatures the divergence is what two nearly equal sums differ by, and T^2 magnifies
    # their rounding. The sums of p and q are 1 but for the rounding of p, which their difference takes out.
    kind = logits.dtype if logits.device.type == "mps" else torch.float64
    p, log_q = targets.to(kind), F.log_softmax(logits.to(kind) / heat, dim=-1)
    divergence = (torch.xlogy(p, p) - p * (log_q + 1) + log_q.exp()).sum(-1).mean(-1)
    return (divergence * temperature**2).to(logits.dtype)


def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy with the labels at T = 1, the mean over B. logits: (..., B, C), labels: (..., B) int64."""
    log_q = F.log_softmax(logits, dim=-1)
    return -log_q.gather(-1, labels.unsqueeze(-1)).squeeze(-1).mean(-1)


def logit_matching(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 / (2 C) sum_i (z_i - v_i)^2, the mean over B: the limit of `soft_loss` as T grows (section 2.1).

    logits, targets: (..., B, C), of the student and of the teacher. The mean over the classes is subtracted from each, as in the
    limit: a constant added to all logits of an image changes no probability.
    """
    gap = (logits - logits.mean(-1, keepdim=True)) - (targets - targets.mean(-1, keepdim=True))
    return 0.5 * gap.square().mean(-1).mean(-1)


def distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    soft_weight: float,
    hard_weight: float,
) -> Tensor:
    """Return soft_weight T^2 KL(p || q) + hard_weight CE(labels, q at T = 1), the mean over B (section 2).

    logits: (..., B, C) of the student. teacher_logits: (..., B, C) of one teacher. labels: (..., B) int64. p and q are the
    probabilities of teacher and student at the temperature T. Raises `ValueError` for a temperature that is not above 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"temperature={temperature}: give a finite number above 0; 1 leaves the probabilities as they are"
        )
    targets = soft_targets(teacher_logits[None], temperature=temperature)
    return soft_weight * soft_loss(logits, targets, temperature) + hard_weight * hard_loss(logits, labels)


# --- modules ----------------------------------------------------------------------------------------------------------


class SupervisedLoss(nn.Module):
    """A net with the cross-entropy of its labels."""

    def __init__(self, net: Net | Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": hard_loss(self.net(batch.inputs).float(), batch.labels)}


class DistillationLoss(nn.Module):
    """A net with the weighted losses of its teacher's targets and of its labels (section 2).

    match_logits: targets are logits, compared by `logit_matching`; else probabilities at `temperature`, compared by `soft_loss`.
    """

    def __init__(
        self,
        net: Net | Classifier,
        *,
        temperature: float,
        soft_weight: float,
        hard_weight: float,
        match_logits: bool = False,
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
        soft = (
            logit_matching(logits, batch.targets)
            if self.match_logits
            else soft_loss(logits, batch.targets, self.temperature)
        )
        return {"loss_soft": self.soft_weight * soft, "loss_hard": hard}
