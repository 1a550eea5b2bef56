"""From the outputs of the region proposal network to proposals: ranking, decoding, filtering, suppression (section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paperbench.detection import boxes as box_ops
from paperbench.detection.nms import survivors


class Proposals(NamedTuple):
    """Dense over the batch: boxes (B, P, 4) clipped to their image, scores (B, P) decreasing, valid (B, P) bool."""

    boxes: Tensor
    scores: Tensor
    valid: Tensor


@torch.no_grad()
def propose(
    scores: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    sizes: Tensor,
    *,
    pre_nms: int,
    post_nms: int,
    nms_iou: float = 0.7,
    min_size: float | Tensor = 16.0,
) -> Proposals:
    """The best boxes of each image: scores (B, A), deltas (B, A, 4), anchors (A, 4), sizes (B, 2) as (height, width).

    `pre_nms` boxes are ranked and decoded, cut off at the border, and dropped when a side is below `min_size` pixels (a number or
    one value an image: the paper measures it in the original image); up to `post_nms` survive the suppression. Gradients do not
    flow through the coordinates: that is what "approximate" joint training means. P = min(pre_nms, post_nms, A).
    """
    ranked = rank(scores, deltas, anchors, sizes, count=pre_nms, min_size=min_size)
    return suppress(ranked, count=post_nms, nms_iou=nms_iou)


@torch.no_grad()
def rank(
    scores: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    sizes: Tensor,
    *,
    count: int,
    min_size: float | Tensor = 16.0,
) -> Proposals:
    """The first half of `propose`: the `count` boxes with the highest scores, decoded, cut off, those too small not valid."""
    best, index = scores.topk(min(count, scores.shape[1]), dim=1)
    chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
    decoded = box_ops.clip(box_ops.decode(anchors[index], chosen), sizes)
    side = decoded[..., 2:] - decoded[..., :2]
    least = min_size.view(-1, 1, 1) if isinstance(min_size, Tensor) else min_size
    best = best.masked_fill((side < least).any(-1), float("-inf"))
    # Candidates that are not there go last, so that each row stays in order of score.
    best, order = best.sort(dim=1, descending=True, stable=True)
    decoded = decoded.gather(1, order[..., None].expand(-1, -1, 4))
    return Proposals(decoded, best, best > float("-inf"))


@torch.no_grad()
def suppress(ranked: Proposals, *, count: int, nms_iou: float = 0.7) -> Proposals:
    """The second half of `propose`: up to `count` of the ranked boxes, none of which overlaps a better one by more."""
    kept, valid = survivors(ranked.boxes, ranked.scores, iou=nms_iou, keep=count)
    return Proposals(ranked.boxes.gather(1, kept[..., None].expand(-1, -1, 4)), ranked.scores.gather(1, kept), valid)
