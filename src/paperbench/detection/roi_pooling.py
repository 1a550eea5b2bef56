"""Features of a region at a fixed size: RoIPool (Fast R-CNN, section 2.1) and RoIAlign (Mask R-CNN, section 3).

torchvision has both operators. On a CPU its RoIAlign spends tens of milliseconds an image in the backward pass, which is serial;
RoIAlign is separable in y and x, so `roi_align_separable` computes it, and its gradient, as two batched matrix products. Their
cost grows with the size of the map, so `roi_align` chooses between the two.
"""

from __future__ import annotations

from typing import Literal

import torch
import torchvision
from torch import Tensor

Pooling = Literal["roi-pool", "roi-align"]

SEPARABLE_CELLS = 1600
"""Largest feature map, in cells, for which the matrix products beat torchvision's operator; see `benchmarks/roi_align.py`."""


def axis_weights(low: Tensor, high: Tensor, length: int, bins: int, samples: int) -> Tensor:
    """Weights of the pixels of one axis in each bin: (...,) start and end in feature pixels -> (..., bins, length).

    Each bin averages `samples` linear interpolations at the centres of equal parts. As in torchvision (aligned=False), a region is
    at least one pixel long, samples up to one pixel outside take the border's value, and those beyond count as 0.
    """
    bin_size = (high - low).clamp(min=1.0) / bins
    offsets = (torch.arange(bins * samples, dtype=low.dtype, device=low.device) + 0.5) / samples
    at = low[..., None] + bin_size[..., None] * offsets
    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    pixels = torch.arange(length, dtype=low.dtype, device=low.device)
    hat = (at[..., None] - pixels).abs_().neg_().add_(1).clamp_(min=0)
    hat = hat.mul_(inside[..., None] / samples)
    return hat.view(*low.shape, bins, samples, length).sum(-2)


def roi_align_separable(features: Tensor, boxes: Tensor, *, size: int, scale: float, samples: int = 2) -> Tensor:
    """RoIAlign by matrix products: features (B, F, H, W), boxes (B, R, 4) in image pixels -> (B * R, F, size, size).

    `scale` is feature pixels per image pixel (1 / stride). Equal to `torchvision.ops.roi_align(aligned=False,
    sampling_ratio=samples)` up to rounding. Gradients reach the features, not the boxes.
    """
    batch, channels, height, width = features.shape
    regions = boxes.shape[1]
    box = boxes.detach().float() * scale
    rows = axis_weights(box[..., 1], box[..., 3], height, size, samples).to(features.dtype)
    columns = axis_weights(box[..., 0], box[..., 2], width, size, samples).to(features.dtype)
    channels_last = features.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    pooled = torch.bmm(rows.view(batch, regions * size, height), channels_last)
    pooled = pooled.view(batch * regions, size, width, channels)
    # (N, bins_x, W) @ (N, W, bins_y * F): the column weights are shared by all rows of bins.
    columns = columns.view(batch * regions, 1, size, width).expand(-1, size, -1, -1)
    pooled = torch.matmul(columns, pooled)
    return pooled.permute(0, 3, 1, 2)


def as_rois(boxes: Tensor) -> Tensor:
    """(B, R, 4) -> (B * R, 5) with the image's number first, as torchvision's operators take them."""
    batch, regions, _ = boxes.shape
    image = torch.arange(batch, device=boxes.device, dtype=boxes.dtype).repeat_interleave(regions)
    return torch.cat([image[:, None], boxes.reshape(-1, 4)], dim=1)


def roi_align(features: Tensor, boxes: Tensor, *, size: int, scale: float, samples: int = 2) -> Tensor:
    """RoIAlign by whichever way is faster here; arguments and result as in `roi_align_separable`."""
    cells = features.shape[-1] * features.shape[-2]
    if features.device.type == "cpu" and cells <= SEPARABLE_CELLS:
        return roi_align_separable(features, boxes, size=size, scale=scale, samples=samples)
    # torchvision's operators run in float32: bfloat16 coordinates would be off by pixels.
    pooled = torchvision.ops.roi_align(
        features.float(), as_rois(boxes.detach().float()), size, scale, sampling_ratio=samples, aligned=False
    )
    return pooled.to(features.dtype)


def roi_pool(features: Tensor, boxes: Tensor, *, size: int, scale: float) -> Tensor:
    """RoIPool, the paper's: the maximum over each bin of a grid of whole feature pixels. Arguments as in `roi_align`."""
    pooled = torchvision.ops.roi_pool(features.float(), as_rois(boxes.detach().float()), size, scale)
    return pooled.to(features.dtype)


def pool_regions(features: Tensor, boxes: Tensor, *, kind: Pooling, size: int, scale: float) -> Tensor:
    """Features (B, F, H, W) of boxes (B, R, 4) in image pixels -> (B * R, F, size, size)."""
    if kind == "roi-pool":
        return roi_pool(features, boxes, size=size, scale=scale)
    return roi_align(features, boxes, size=size, scale=scale)
