"""Features of a region at a fixed size: RoIPool (Fast R-CNN, section 2.1) and RoIAlign (Mask R-CNN, section 3).

torchvision has both operators. On a CPU its RoIAlign spends tens of milliseconds an image in the backward pass, which is serial;
RoIAlign is separable in y and x, so `roi_align_separable` computes it, and its gradient, as two batched matrix products. Their
cost grows with the size of the map, so `roi_align` chooses between the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torchvision
from torch import Tensor

from paperbench.detection.feature_pyramid import Maps

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


OUTSIDE = -1e6
"""A position, in pixels, that lies outside of every map."""


def level_of(boxes: Tensor, strides: Sequence[int], canonical: float) -> Tensor:
    """Equation 1: the level a region is pooled from, (...,) int64 in 0..L - 1, of boxes (..., 4) xyxy.

    A region of `canonical` pixels a side (224, the size of ImageNet's images) belongs to stride 16, one of half of it to stride
    8, and so on; where there is no such level, the nearest is taken.
    """
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6).prod(-1).sqrt()
    # As torchvision, a hair is added: a region of exactly the canonical size must not fall on either side of it by rounding.
    octave = torch.floor(torch.log2(side / canonical) + 1e-6) + math.log2(16 / strides[0])
    return octave.clamp(0, len(strides) - 1).long()


def pool_from_levels(
    maps: Maps, boxes: Tensor, *, strides: Sequence[int], canonical: float, kind: Pooling, size: int
) -> Tensor:
    """Features of regions, each from the level of its size: maps of L levels, boxes (B, R, 4) -> (B * R, F, size, size)."""
    maps = maps[: len(strides)]
    level = level_of(boxes, strides, canonical).flatten()
    if len(maps) == 1:
        return pool_regions(maps[0], boxes, kind=kind, size=size, scale=1 / strides[0])
    if kind == "roi-align" and boxes.device.type == "cpu" and maps[0].shape[-2:].numel() <= SEPARABLE_CELLS:
        # On small maps the matrix products cost so little that every region is pooled from every level.
        pooled = [
            pool_regions(features, boxes, kind=kind, size=size, scale=1 / stride)
            for features, stride in zip(maps, strides, strict=True)
        ]
        chosen = pooled[0]
        for number, candidate in enumerate(pooled[1:], start=1):
            chosen = torch.where((level == number)[:, None, None, None], candidate, chosen)
        return chosen
    rois = as_rois(boxes.detach().float())
    gather = _pool_chosen if boxes.device.type == "cpu" else _pool_without_waiting
    return gather(maps, rois, level, strides, kind, size).to(maps[0].dtype)


def _pool_chosen(maps: Maps, rois: Tensor, level: Tensor, strides: Sequence[int], kind: Pooling, size: int) -> Tensor:
    """Pool each of rois (N, 5) from its level (N,) alone -> (N, F, size, size). A GPU would have to be waited for at each level."""
    result = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size)
    for number, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        own = torch.nonzero(level == number)[:, 0]
        result = result.index_put((own,), _pooled(features, rois[own], kind, size, 1 / stride).to(result.dtype))
    return result


def _pool_without_waiting(
    maps: Maps, rois: Tensor, level: Tensor, strides: Sequence[int], kind: Pooling, size: int
) -> Tensor:
    """The same as a sum over the levels, on each of which the regions of the others lie outside of the map.

    There they are 0 and read nothing, so that they cost little, and no number of regions has to be known.
    """
    total: Tensor | None = None
    for number, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        own = (level == number)[:, None]
        places = torch.where(own, rois[:, 1:], OUTSIDE)
        part = _pooled(features, torch.cat([rois[:, :1], places], dim=1), kind, size, 1 / stride)
        total = part if total is None else total + part
    assert total is not None
    return total


def _pooled(features: Tensor, rois: Tensor, kind: Pooling, size: int, scale: float) -> Tensor:
    if kind == "roi-pool":
        return torchvision.ops.roi_pool(features.float(), rois, size, scale)
    return torchvision.ops.roi_align(features.float(), rois, size, scale, sampling_ratio=2, aligned=False)


def pyramid_pool(features: Tensor, boxes: Tensor, *, levels: Sequence[int], scale: float) -> Tensor:
    """Spatial pyramid pooling (He et al., TPAMI 2015, section 2.2): the maximum over each cell of several grids.

    features (B, F, H, W), boxes (B, R, 4) in image pixels -> (B * R, F * sum of levels squared), a level after the other; `scale`
    is feature pixels per image pixel.
    """
    grids = [roi_pool(features, boxes, size=level, scale=scale).flatten(1) for level in levels]
    return torch.cat(grids, dim=1)


def with_context(boxes: Tensor, *, size: int, context: int) -> Tensor:
    """Boxes (..., 4) grown about their centres so that, warped to `size` pixels, `context` of them surround the old box.

    Appendix A of R-CNN: with 227 and 16 a box becomes 227 / (227 - 32) times as wide and as high.
    """
    grow = size / (size - 2 * context)
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2 * grow
    return torch.cat([centre - half, centre + half], dim=-1)


def warp(images: Tensor, boxes: Tensor, *, size: int, context: int) -> Tensor:
    """Regions of normalised images, warped to squares whatever their shape: (B, 3, H, W), (B, R, 4) -> (B * R, 3, size, size).

    What lies outside the image is 0, the mean colour (appendix A). Each pixel is the mean of four bilinear samples.
    """
    grown = with_context(boxes.float(), size=size, context=context)
    return torchvision.ops.roi_align(images.float(), as_rois(grown), size, 1.0, sampling_ratio=2, aligned=True)
