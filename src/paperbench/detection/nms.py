"""Non-maximum suppression of the candidates of all images at once, with torchvision's operator."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms


def survivors(boxes: Tensor, scores: Tensor, *, iou: float, keep: int) -> tuple[Tensor, Tensor]:
    """The best boxes of each image after suppression, dense: boxes (B, N, 4), scores (B, N) by decreasing score.

    Returns `index` (B, min(keep, N)) int64 and `valid` of the same shape. Scores of -inf mark candidates that are not there:
    they suppress nothing, since every other one comes before them, and are never returned as valid.
    """
    images, candidates = scores.shape
    groups = torch.arange(images, device=boxes.device).repeat_interleave(candidates)
    # torchvision chooses between one call on boxes moved apart and one call a group, whichever costs less: the operator is
    # quadratic in the number of boxes it is given, and on a CPU it is serial.
    kept = batched_nms(boxes.reshape(-1, 4), scores.reshape(-1), groups, iou)
    alive = torch.zeros(images * candidates, dtype=torch.bool, device=boxes.device)
    alive[kept] = True
    alive = alive.view(images, candidates) & (scores > float("-inf"))
    # Candidates are in order of score, so the first survivors of each row are its best.
    order = alive.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :keep]
    return order, alive.gather(1, order)
