"""Features of given regions: cut out of a map with a pyramid of grids (SPP-net), or of the warped region itself (R-CNN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor

from paperbench.detection.roi_pooling import as_rois, roi_pool


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
