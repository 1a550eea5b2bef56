"""From overlaps to a minibatch: each reference box gets an object or the background, and some of them are trained on.

Matching is section 3.1.2 of Faster R-CNN, random sampling sections 3.1.3 and 3.2; hard examples are those of OHEM (Shrivastava,
Gupta, Girshick, CVPR 2016) and of SSD (Liu et al., ECCV 2016, section 2.2).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paperbench.detection.nms import batched_nms

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1

TIE = 5e-6
"""Relative difference below which two overlaps are the same.

Anchors of one shape overlap an object that they hold by the same amount, but for the rounding of their corners to float32: up to
2e-6 for anchors of 32 pixels in an image of 1,000, 6e-6 for 20 pixels in 1,333. Overlaps that do differ are rarely within 1e-4.
"""


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
    bipartite: bool = False,
    eligible: Tensor | None = None,
) -> Matches:
    """Label references by their overlap with the ground truth of their own image.

    iou: (B, G, A) overlaps. valid: (B, G) bool, False for padding. A reference is positive when its best overlap is at least
    `positive`, negative when it is below `negative` and at least `negative_low`, else ignored.

    `best_for_each` is the paper's rule (i): the reference(s) with the highest overlap for an object are positive whatever that
    overlap is, all ties included (py-faster-rcnn does the same). Such a reference keeps the object it overlaps most, which can
    be another one. An object that overlaps nothing claims nothing. Overlaps that differ by `TIE` or less are ties.

    `bipartite` is SSD's rule (section 2.2, matching strategy): first every object gets a reference of its own (`best_pairs`), which
    is positive for it whatever else overlaps that reference more.

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
        claimed = ((iou >= highest * (1 - TIE)) & (highest > 0)).any(dim=1)
        labels = labels.masked_fill(claimed, POSITIVE)
    if bipartite:
        owner = best_pairs(iou)
        matched = torch.where(owner >= 0, owner, matched)
        labels = labels.masked_fill(owner >= 0, POSITIVE)
    if eligible is not None:
        labels = labels.masked_fill(~eligible, IGNORED)
    return Matches(matched, labels)


def best_pairs(iou: Tensor) -> Tensor:
    """Pair objects with references, no two with the same one: (B, G, A) -> (B, A) int64, row of the object, -1 for none.

    The pair with the largest overlap of the image is taken first, then the largest of what is left, as long as there is any
    overlap: the bipartite matching of SSD's code. Of equal overlaps the first in the order of (object, reference) is taken.
    """
    images, objects, references = iou.shape
    left = iou.clamp(min=0)
    row = torch.arange(images, device=iou.device)
    owner = torch.full((images, references), -1, dtype=torch.int64, device=iou.device)
    for _ in range(objects):
        pair = left.flatten(1).argmax(dim=1)
        own, reference = pair // references, pair % references
        present = left[row, own, reference] > 0
        owner[row, reference] = torch.where(present, own, owner[row, reference])
        left[row, own] = 0
        left[row, :, reference] = 0
    return owner


class Sample(NamedTuple):
    """`chosen` (B, S) int64 into the references of each image; `valid` (B, S) bool, False where an image had too few."""

    chosen: Tensor
    valid: Tensor


def sample(labels: Tensor, *, count: int, positive_fraction: float, generator: torch.Generator | None = None) -> Sample:
    """Draw up to `count` references an image: at most `positive_fraction` of them positive, the rest negative.

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


@torch.no_grad()
def sample_hardest(boxes: Tensor, losses: Tensor, valid: Tensor, *, count: int, nms_iou: float) -> Sample:
    """The `count` regions of each image with the largest losses, of those that overlap only the worst (section 4.2).

    boxes (B, N, 4), losses (B, N), valid (B, N) bool. Regions that overlap by more than `nms_iou` cost about the same, since they
    are pooled from the same features, and would be counted twice. There is no share of positives: the losses decide. Slots of
    images with too few regions are not valid.
    """
    ranked, order = losses.masked_fill(~valid, float("-inf")).sort(dim=1, descending=True, stable=True)
    by_loss = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    kept, present = batched_nms(by_loss, ranked, iou=nms_iou, keep=count)
    return Sample(order.gather(1, kept), present)


def hardest_negatives(nll: Tensor, positive: Tensor, per_positive: float) -> Tensor:
    """Select the background boxes with the largest loss: `per_positive` for each positive of their image.

    nll: (B, A) loss of each box as background; positive: (B, A) bool -> (B, A) bool.
    """
    candidates = nll.detach().masked_fill(positive, float("-inf"))
    rank = candidates.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < per_positive * positive.sum(1, keepdim=True)) & ~positive
