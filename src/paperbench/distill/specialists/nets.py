"""A specialist: the generalist's trunk, with a head for the classes it knows and a dustbin for all others (section 5.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.distill.learners import Batch
from paperbench.distill.losses import hard_loss, soft_loss
from paperbench.distill.nets import Net


@torch.no_grad()
def specialist_from(generalist: Net, members: Sequence[int]) -> Net:
    """A copy of the generalist that gives (B, |members| + 1) logits, the last one the dustbin's.

    The rows of the known classes are the generalist's. The dustbin starts as the mean of the other rows, with the log of their
    number in its bias: the mass that they would have together if they were alike.
    """
    weight, bias = generalist.head.weight, generalist.head.bias
    others = [number for number in range(len(weight)) if number not in set(members)]
    if not others:
        raise ValueError("a specialist that knows every class has no dustbin")
    head = nn.Linear(weight.shape[1], len(members) + 1).to(device=weight.device, dtype=weight.dtype)
    head.weight[:-1] = weight[list(members)]
    head.bias[:-1] = bias[list(members)]
    head.weight[-1] = weight[others].mean(0)
    head.bias[-1] = bias[others].mean() + math.log(len(others))
    return Net(deepcopy(generalist.trunk), head, max_norm=generalist.max_norm)


def labels_for(members: Sequence[int], classes: int) -> Tensor:
    """(classes,) int64: the specialist's own number of each class, the dustbin's for those that it does not know."""
    own = torch.full((classes,), len(members), dtype=torch.int64)
    own[list(members)] = torch.arange(len(members))
    return own


def as_specialist(logits: Tensor, members: Sequence[int], correction: float) -> Tensor:
    """(B, classes) logits of the generalist -> (B, |members| + 1): the same answer as a specialist's logits.

    That is before `correction` is added to the dustbin's: a specialist that learns these beside labels that were oversampled
    is pulled one way by both, and gives, corrected, what the generalist gives.
    """
    log_p = F.log_softmax(logits, dim=1)
    rest = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    rest[list(members)] = False
    dustbin = log_p[:, rest].logsumexp(1, keepdim=True) - correction
    return torch.cat([log_p[:, list(members)], dustbin], dim=1)


def scattered(probabilities: Tensor, members: Sequence[int], classes: int) -> Tensor:
    """(B, |members| + 1) -> (B, classes + 1), the form that `combining` takes."""
    spread = probabilities.new_zeros((len(probabilities), classes + 1))
    spread[:, list(members)] = probabilities[:, :-1]
    spread[:, -1] = probabilities[:, -1]
    return spread


class SpecialistLearner(nn.Module):
    """A specialist with its losses: labels, and with a weight of its own what the generalist says (section 6.1)."""

    def __init__(self, net: Net, *, soft_weight: float, temperature: float) -> None:
        super().__init__()
        self.net = net
        self.soft_weight = soft_weight
        self.temperature = temperature

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """batch.targets: (B, |members| + 1) of the generalist at `temperature`, or None without a soft loss."""
        logits = self.net(batch.inputs).float()
        losses = {"loss_hard": hard_loss(logits, batch.labels)}
        if batch.targets is not None:
            losses["loss_soft"] = self.soft_weight * soft_loss(logits, batch.targets, self.temperature)
        return losses


def softmax_corrected(logits: Tensor, correction: float) -> Tensor:
    """(B, n) probabilities with `correction` added to the last logit, the dustbin's."""
    adjusted = logits.double()
    adjusted[:, -1] += correction
    return F.softmax(adjusted, dim=1)
