"""Anchors, proposals and pooled regions on the maps of a pyramid (FPN, section 4).

L levels, finest first; B images, K anchors a location, P proposals, R regions, F channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn

from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.proposals import Proposals
from paperbench.detection.roi_pooling import SEPARABLE_CELLS, Pooling, as_rois, pool_regions
from paperbench.detection.successors.levels import Maps


class PyramidAnchors(nn.Module):
    """One size of anchors a level, in every ratio: the level decides the scale (section 4.1)."""

    def __init__(self, *, sizes: Sequence[float], ratios: Sequence[float], strides: Sequence[int]) -> None:
        super().__init__()
        if len(sizes) != len(strides):
            raise ValueError(f"{len(sizes)} sizes for {len(strides)} levels")
        self.grids = nn.ModuleList(
            AnchorGrid(sizes=(size,), ratios=ratios, stride=stride) for size, stride in zip(sizes, strides, strict=True)
        )
        self.strides = tuple(strides)
        self.stride = max(strides)
        self.per_location = len(ratios)

    def forward(self, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Height and width of each level's map -> (h * w * K, 4) xyxy of each level."""
        return [grid(*shape) for grid, shape in zip(self.grids, shapes, strict=True)]


def best_of_levels(levels: Sequence[Proposals], count: int) -> Proposals:
    """The best `count` proposals of each image over all levels, each level's own having survived its suppression."""
    boxes = torch.cat([level.boxes for level in levels], dim=1)
    valid = torch.cat([level.valid for level in levels], dim=1)
    scores = torch.cat([level.scores for level in levels], dim=1).masked_fill(~valid, float("-inf"))
    best, index = scores.topk(min(count, scores.shape[1]), dim=1)
    return Proposals(boxes.gather(1, index[..., None].expand(-1, -1, 4)), best, valid.gather(1, index))


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
    result = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size)
    for number, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        own = torch.nonzero(level == number)[:, 0]
        result = result.index_put((own,), _pooled(features, rois[own], kind, size, 1 / stride).to(result.dtype))
    return result


def _pooled(features: Tensor, rois: Tensor, kind: Pooling, size: int, scale: float) -> Tensor:
    if kind == "roi-pool":
        return torchvision.ops.roi_pool(features.float(), rois, size, scale)
    return torchvision.ops.roi_align(features.float(), rois, size, scale, sampling_ratio=2, aligned=False)
