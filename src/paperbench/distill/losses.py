"""The losses of distillation (Hinton, Vinyals, Dean 2015, section 2), as pure functions.

B images, C classes, M teachers. Logits are any real numbers; everything is a mean over the batch, never over the classes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Average = Literal["probabilities", "logits"]


def soft_targets(logits: Tensor, *, temperature: float, average: Average = "probabilities") -> Tensor:
    """p_i = exp(v_i / T) / sum_j exp(v_j / T) of one or several teachers (equation 1).

    logits: (M, ..., C). Returns (..., C), the arithmetic mean of the teachers' probabilities at that temperature, or the
    probabilities of the mean of their logits (which is the geometric mean, normalised).
    """
    if average == "logits":
        return F.softmax(logits.mean(0) / temperature, dim=-1)
    return F.softmax(logits / temperature, dim=-1).mean(0)


def soft_loss(logits: Tensor, targets: Tensor, temperature: float | Tensor) -> Tensor:
    """T^2 KL(p || q), the mean over B.

    logits: (..., B, C) of the student. targets: (..., B, C), p at the same temperature. Gradients of the KL shrink as 1 / T^2:
    with the factor the balance with the hard loss, and the learning rate, stay what they are when T changes. A temperature
    of shape (S,) belongs to S stacked students, and the result is (S,).
    """
    heat = temperature[:, None, None] if isinstance(temperature, Tensor) else temperature
    log_q = F.log_softmax(logits / heat, dim=-1)
    divergence = (torch.xlogy(targets, targets) - targets * log_q).sum(-1).mean(-1)
    return divergence * temperature**2


def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels at T = 1, the mean over B. logits: (..., B, C), labels: (..., B) int64."""
    log_q = F.log_softmax(logits, dim=-1)
    return -log_q.gather(-1, labels.unsqueeze(-1)).squeeze(-1).mean(-1)


def logit_matching(logits: Tensor, targets: Tensor) -> Tensor:
    """The limit of `soft_loss` as T grows (section 2.1): 1 / (2 C) sum_i (z_i - v_i)^2, the mean over B.

    logits, targets: (..., B, C), of the student and of the teacher. Each is taken without its mean over the classes, as the
    limit has it: what is added to all logits of an image changes no probability.
    """
    gap = (logits - logits.mean(-1, keepdim=True)) - (targets - targets.mean(-1, keepdim=True))
    return 0.5 * gap.square().mean(-1).mean(-1)
