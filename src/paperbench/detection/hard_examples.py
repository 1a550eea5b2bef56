"""Online hard example mining (Shrivastava, Gupta, Girshick, CVPR 2016): the regions that cost most make the minibatch."""

from __future__ import annotations

import torch
from torch import Tensor

from paperbench.detection.nms import survivors
from paperbench.detection.sampling import Sample


@torch.no_grad()
def hardest(boxes: Tensor, losses: Tensor, valid: Tensor, *, count: int, nms_iou: float = 0.7) -> Sample:
    """The `count` regions of each image with the largest losses, of those that overlap only the worst (section 4.2).

    boxes (B, N, 4), losses (B, N), valid (B, N) bool. Regions that overlap by more than `nms_iou` cost about the same, since they
    are pooled from the same features, and would be counted twice. There is no share of positives: the losses decide. Slots of
    images with too few regions are not valid.
    """
    ranked, order = losses.masked_fill(~valid, float("-inf")).sort(dim=1, descending=True, stable=True)
    by_loss = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    kept, present = survivors(by_loss, ranked, iou=nms_iou, keep=count)
    return Sample(order.gather(1, kept), present)
