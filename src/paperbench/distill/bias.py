"""What to add to the logits of some classes so that fewest images are taken for the wrong class (section 3).

A student that never saw a 3 takes few images for one: adding a constant to the logit of 3 mends most of it. The number of errors
is a step function of that constant, so its minimum is found exactly, by sorting the images' margins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Correction:
    """bias: what is added to the logits. errors: what is left with it, on the images it was chosen on."""

    bias: float
    errors: int


def best_bias(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Correction:
    """The one constant for the logits of `classes` with the fewest errors.

    logits: (N, K), labels: (N,). Between two margins the number of errors does not change; of the ranges with the fewest, the
    widest is taken, and of that the middle. A range that is open to one side ends 1 beyond the last margin.
    """
    inside = torch.zeros(logits.shape[1], dtype=torch.bool)
    inside[list(classes)] = True
    if bool(inside.all()) or not bool(inside.any()):
        raise ValueError("the classes to correct are some, and not all, of the classes")
    z = logits.double().cpu()
    y = labels.cpu()
    own, own_class = z.masked_fill(~inside, -torch.inf).max(1)
    other, other_class = z.masked_fill(inside, -torch.inf).max(1)
    margins, order = torch.sort(other - own)  # above its margin, an image is taken for one of `classes`
    # Beyond the k-th margin k images are taken for one of the classes: change of errors at each.
    change = (own_class != y).long()[order] - (other_class != y).long()[order]
    errors = int((other_class != y).sum()) + torch.cat([torch.zeros(1, dtype=torch.int64), change.cumsum(0)])
    edges = torch.cat([margins[:1] - 2, margins, margins[-1:] + 2])
    widths = edges.diff()
    candidates = (errors == errors[widths > 0].min()) & (widths > 0)
    at = int(torch.where(candidates, widths, -1.0).argmax())
    return Correction(bias=float((edges[at] + edges[at + 1]) / 2), errors=int(errors[at]))


def corrected(logits: Tensor, classes: Sequence[int], bias: float) -> Tensor:
    """(N, K) with `bias` added to the logits of `classes`."""
    added = torch.zeros(logits.shape[1], dtype=torch.float64, device=logits.device)
    added[list(classes)] = bias
    return logits.double() + added
