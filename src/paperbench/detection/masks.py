"""Masks of objects, and the head that predicts them (He et al., Mask R-CNN, ICCV 2017, section 3).

Nets take masks in the frame of their box, (M, M) cells over its width and height, so that no size of image matters; scores and
drawings take them in pixels of the image. N objects or detections, M cells of a mask on a side, H, W pixels.

A cell holds the share of it that is the object. The type of a mask says its range: floating point 0 to 1, bool 0 or 1, uint8 0 to
`FULL`. `as_shares` and `as_bytes` alone convert between them; whatever computes with a mask asks `as_shares` first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as runs
from torch import Tensor, nn

from paperbench.detection import boxes as box_ops

FRAME = 56
"""Cells on a side of a ground-truth mask in the frame of its box: twice those of the paper's masks."""

FULL = 255
"""Value of a cell that is the object altogether, in masks of uint8."""

INSIDE = 0.5
"""Least share of a cell or pixel that makes it part of the object."""


def as_shares(masks: Tensor) -> Tensor:
    """Return masks as float32 shares in 0..1, (...) of uint8 in 0..`FULL`, bool, or floating point in 0..1.

    Raise TypeError for another type, which says no range.
    """
    if masks.dtype == torch.uint8:
        return masks.float() / FULL
    if masks.dtype == torch.bool or masks.is_floating_point():
        return masks.float()
    raise TypeError(f"masks are uint8 (0 to {FULL}), bool or floating point (0 to 1), not {masks.dtype}")


def as_bytes(masks: Tensor) -> Tensor:
    """Return masks as uint8 in 0..`FULL`, rounded; the types that `as_shares` takes. A share that is no number is 0."""
    return (FULL * as_shares(masks).nan_to_num(nan=0.0).clamp(0, 1)).round().to(torch.uint8)


def in_frames(masks: NDArray[np.bool_], boxes: NDArray[np.float32], size: int = FRAME) -> NDArray[np.uint8]:
    """(N, H, W) and their boxes (N, 4) -> (N, size, size), the share of an object in each cell of its box, `FULL` for all of it.

    RoIAlign of the mask; a soft one, floating point in 0..1, is taken as well.
    """
    from torchvision.ops import (
        roi_align,
    )  # here: it takes seconds to import, and scoring files or drawing needs none of it

    if not len(masks):
        return np.zeros((0, size, size), np.uint8)
    boxes_of = [torch.from_numpy(box[None].astype(np.float32)) for box in boxes]
    planes = as_shares(torch.from_numpy(masks))[:, None]
    return as_bytes(roi_align(planes, boxes_of, size, aligned=True)[:, 0]).numpy()


def _axis_weights(low: float, high: float, cells: int, first: int, last: int) -> NDArray[np.float32]:
    """Weights of M cells between `low` and `high` at the centres of pixels first..last - 1, by linear interpolation; the border's
    value holds beyond the outermost centres: (last - first, M)."""
    at = ((np.arange(first, last) + 0.5 - low) * (cells / max(high - low, 1e-6)) - 0.5).clip(0, cells - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))).astype(np.float32)


def in_image(
    mask: NDArray[np.uint8], box: NDArray[np.floating], height: int, width: int, threshold: float = INSIDE
) -> NDArray[np.bool_]:
    """A mask (M, M) in the frame of `box` (4,) -> (H, W): pixels within the box whose share is at least `threshold`."""
    x1, y1, x2, y2 = box.tolist()
    # Pixels whose centre lies in the box: no pixel belongs to two neighbouring boxes.
    left, top = max(0, int(np.ceil(x1 - 0.5))), max(0, int(np.ceil(y1 - 0.5)))
    right, bottom = min(width, int(np.ceil(x2 - 0.5))), min(height, int(np.ceil(y2 - 0.5)))
    seen = np.zeros((height, width), bool)
    if left < right and top < bottom:
        rows = _axis_weights(y1, y2, mask.shape[0], top, bottom)
        columns = _axis_weights(x1, x2, mask.shape[1], left, right)
        seen[top:bottom, left:right] = rows @ as_shares(torch.from_numpy(mask)).numpy() @ columns.T >= threshold
    return seen


def as_runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """(H, W) -> COCO's compressed runs, `{"size": [H, W], "counts": str}`: ready for JSON and for pycocotools."""
    encoded: Any = runs.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


class MaskHead(nn.Module):
    """Convolutions on pooled regions, one that doubles the resolution, and a mask for every class."""

    def __init__(self, *, in_channels: int, channels: int, convolutions: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(convolutions):
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
            in_channels = channels
        layers += [nn.ConvTranspose2d(in_channels, channels, 2, stride=2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.masks = nn.Conv2d(channels, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """(N, F, m, m) and labels (N,) in 1..C -> logits (N, 2 m, 2 m) of the mask of each region's own class, float32."""
        logits = self.masks(self.layers(pooled))
        own = (labels - 1).clamp(min=0).view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[-2:])
        return logits.gather(1, own)[:, 0].float()


@torch.no_grad()
def mask_targets(masks: Tensor, gt_boxes: Tensor, regions: Tensor, *, size: int) -> Tensor:
    """The part of each region's object that lies within the region: (N, M, M) masks in the frames of their boxes (N, 4), regions
    (N, 4) -> (N, size, size) float32 of 0 and 1. What of a region lies outside its object's box is 0.

    RoIAlign of the mask, then 1 where at least `INSIDE` of a cell is object; masks of any type that `as_shares` takes.
    """
    from torchvision.ops import roi_align

    from paperbench.detection.roi_pooling import as_rois

    cells = masks.shape[-1]
    span = gt_boxes[:, 2:] - gt_boxes[:, :2]
    # Padding has boxes without extent; its regions become points, and what is read there is in no loss.
    per_pixel = torch.where(span > 0, cells / span.clamp(min=1e-6), 0.0)
    corners = (regions.view(-1, 2, 2) - gt_boxes[:, None, :2]) * per_pixel[:, None]  # regions in cells of their mask
    # Positive regions are seldom more than twice as wide as their object: samples then lie no further apart than cells. A number
    # that adapts to the region would have no bound for regions that hardly meet a small object.
    samples = math.ceil(2 * cells / size)
    pooled = roi_align(
        as_shares(masks)[:, None], as_rois(corners.flatten(1)[:, None].float()), size, 1.0, samples, True
    )
    steps = (torch.arange(size, device=masks.device, dtype=torch.float32) + 0.5) / size
    centres = corners[:, :1] + steps[None, :, None] * (corners[:, 1:] - corners[:, :1])  # (N, size, 2): x, y
    within = (centres >= 0) & (centres <= cells)
    return ((pooled[:, 0] >= INSIDE) & within[:, None, :, 0] & within[:, :, None, 1]).float()


def mask_loss(logits: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
    """Mean binary cross-entropy over the pixels of positive regions: logits and targets (N, m, m), positive (N,) bool."""
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
    return (each * positive).sum() / positive.sum().clamp(min=1)


@torch.no_grad()
def matched_objects(boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Tensor:
    """The object that each region overlaps most: boxes (B, R, 4), gt_boxes (B, G, 4), gt_labels (B, G) -> (B, R) int64."""
    overlaps = box_ops.exact_iou(gt_boxes, boxes).masked_fill((gt_labels == 0)[..., None], -1.0)
    return overlaps.argmax(dim=1)
