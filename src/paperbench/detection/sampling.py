"""Random minibatches of anchors and regions with a bounded share of positives: sections 3.1.3 and 3.2."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paperbench.detection.matching import NEGATIVE, POSITIVE


class Sample(NamedTuple):
    """`chosen` (B, S) int64 into the references of each image; `valid` (B, S) bool, False where an image had too few."""

    chosen: Tensor
    valid: Tensor


def sample(labels: Tensor, *, count: int, positive_fraction: float, generator: torch.Generator | None = None) -> Sample:
    """Draws up to `count` references an image: at most `positive_fraction` of them positive, the rest negative.

    labels: (B, A) of 1, 0, -1 as `match` gives them; ignored ones are never drawn. Where there are fewer positives than
    allowed, negatives take their places; S = min(count, A). Without replacement, the same for equal generators.
    """
    slots = min(count, labels.shape[1])
    positive_slots = min(int(count * positive_fraction), slots)
    # One uniform key a reference orders both draws: the k largest keys among the eligible are a random k-subset.
    keys = torch.rand(labels.shape, generator=generator, device=labels.device)
    positive_key, positive_index = keys.masked_fill(labels != POSITIVE, -1.0).topk(positive_slots, dim=1)
    negative_key, negative_index = keys.masked_fill(labels != NEGATIVE, -1.0).topk(slots, dim=1)
    drawn_positive = positive_key >= 0
    room = slots - drawn_positive.sum(dim=1, keepdim=True)
    drawn_negative = (negative_key >= 0) & (torch.arange(slots, device=labels.device) < room)

    index = torch.cat([positive_index, negative_index], dim=1)
    drawn = torch.cat([drawn_positive, drawn_negative], dim=1)
    # Positives first, then negatives, then the unused places, cut to the number of slots. A stable sort keeps the order of
    # each part, so that the same keys always give the same minibatch.
    order = drawn.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :slots]
    return Sample(index.gather(1, order), drawn.gather(1, order))
