"""Non-maximum suppression of many groups (images, classes) by one call of torchvision's operator."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Indices that survive, by decreasing score: boxes (N, 4), scores (N,), groups (N,) int64 -> (M,) int64.

    A box is suppressed by a better one of its own group that overlaps it by more than `iou` (strictly, as in torchvision).
    Groups are moved apart on a line far enough not to meet; the overlaps inside a group are unchanged but for rounding, which
    float64 keeps below 1e-9 of a pixel.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    apart = boxes.double()
    span = apart.max() - apart.min().clamp(max=0) + 1
    return torchvision.ops.nms(apart + (groups.double() * span)[:, None], scores.double(), iou)


def survivors(boxes: Tensor, scores: Tensor, *, iou: float, keep: int) -> tuple[Tensor, Tensor]:
    """The best boxes of each image after suppression, dense: boxes (B, N, 4), scores (B, N) by decreasing score.

    Returns `index` (B, min(keep, N)) int64 and `valid` of the same shape. Scores of -inf mark candidates that are not there:
    they suppress nothing, since every other one comes before them, and are never returned as valid.
    """
    images, candidates = scores.shape
    groups = torch.arange(images, device=boxes.device).repeat_interleave(candidates)
    kept = grouped_nms(boxes.reshape(-1, 4), scores.reshape(-1), groups, iou)
    alive = torch.zeros(images * candidates, dtype=torch.bool, device=boxes.device)
    alive[kept] = True
    alive = alive.view(images, candidates) & (scores > float("-inf"))
    # Candidates are in order of score, so the first survivors of each row are its best.
    order = alive.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :keep]
    return order, alive.gather(1, order)
