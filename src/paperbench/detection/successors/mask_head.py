"""The branch for masks: its net, its targets, its loss (Mask R-CNN, section 3).

Masks are kept in the frame of their box, as (M, M) shares of the box's width and height, so that no size of image matters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.detection import boxes as box_ops


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
    (N, 4) -> (N, size, size) float32 of 0 and 1. What of a region lies outside its object's box is 0."""
    cells = (torch.arange(size, device=masks.device, dtype=torch.float32) + 0.5) / size
    corner, extent = regions[:, None, :2], (regions[:, None, 2:] - regions[:, None, :2])
    points = corner + cells[None, :, None] * extent  # (N, size, 2): x and y of the columns and rows
    span = (gt_boxes[:, None, 2:] - gt_boxes[:, None, :2]).clamp(min=1e-6)
    relative = 2 * (points - gt_boxes[:, None, :2]) / span - 1
    x = relative[:, None, :, 0].expand(-1, size, -1)
    y = relative[:, :, None, 1].expand(-1, -1, size)
    grid = torch.stack([x, y], dim=-1)
    sampled = F.grid_sample(masks[:, None].float(), grid, padding_mode="zeros", align_corners=False)
    inside = (grid.abs() <= 1).all(-1)
    return ((sampled[:, 0] >= 0.5) & inside).float()


def mask_loss(logits: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
    """Mean binary cross-entropy over the pixels of positive regions: logits and targets (N, m, m), positive (N,) bool."""
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
    return (each * positive).sum() / positive.sum().clamp(min=1)


@torch.no_grad()
def matched_objects(boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Tensor:
    """The object that each region overlaps most: boxes (B, R, 4), gt_boxes (B, G, 4), gt_labels (B, G) -> (B, R) int64."""
    overlaps = box_ops.iou(gt_boxes, boxes).masked_fill((gt_labels == 0)[..., None], -1.0)
    return overlaps.argmax(dim=1)
