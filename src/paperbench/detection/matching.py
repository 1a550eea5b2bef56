"""Which ground-truth box, if any, a reference box (anchor or proposal) is responsible for: section 3.1.2."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Matches(NamedTuple):
    """`matched` (B, A) int64: row of the best ground-truth box. `labels` (B, A) int64: 1 positive, 0 negative, -1 ignored.

    `matched` is meaningful where the label is 1; elsewhere it still names the best-overlapping box.
    """

    matched: Tensor
    labels: Tensor


def match(
    iou: Tensor,
    valid: Tensor,
    *,
    positive: float,
    negative: float,
    negative_low: float = 0.0,
    best_for_each: bool = False,
    eligible: Tensor | None = None,
) -> Matches:
    """Labels references by their overlap with the ground truth of their own image.

    iou: (B, G, A) overlaps. valid: (B, G) bool, False for padding. A reference is positive when its best overlap is at least
    `positive`, negative when it is below `negative` and at least `negative_low`, else ignored.

    `best_for_each` is the paper's rule (i): the reference(s) with the highest overlap for an object are positive whatever that
    overlap is, all ties included (py-faster-rcnn does the same). Such a reference keeps the object it overlaps most, which can
    be another one. An object that overlaps nothing claims nothing.

    `eligible` (B, A) bool: others are ignored and claim no object, such as anchors across the border in training.
    Images without objects have only negatives.

    Example, thresholds .7 and .3, one image: overlaps [[.15 .45 .2 .6] [.3 .65 .05 .1] [.05 .4 .25 .4]] give matches [1 1 2 0]
    and labels [-1 1 0 1]: the first is between the thresholds, the second and fourth are the best for an object.
    """
    iou = iou.masked_fill(~valid[..., None], -1.0)
    if eligible is not None:
        iou = iou.masked_fill(~eligible[:, None], -1.0)
    best, matched = iou.max(dim=1)
    best = best.clamp(min=0)

    labels = torch.full_like(matched, IGNORED)
    labels = labels.masked_fill((best < negative) & (best >= negative_low), NEGATIVE)
    labels = labels.masked_fill(best >= positive, POSITIVE)
    if best_for_each:
        highest = iou.amax(dim=2, keepdim=True)
        claimed = ((iou == highest) & (highest > 0)).any(dim=1)
        labels = labels.masked_fill(claimed, POSITIVE)
    if eligible is not None:
        labels = labels.masked_fill(~eligible, IGNORED)
    return Matches(matched, labels)
