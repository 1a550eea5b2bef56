"""Boxes: areas, overlaps, and the parametrisation of section 3.1.2, for any number of leading dimensions.

Boxes are continuous `xyxy`: width is `x2 - x1`, the image spans `(0, 0, width, height)`. All functions are differentiable
where that makes sense and never loop over images.

Shape letters of this package: B images, A anchors (all locations), K anchors a location, G ground-truth boxes (padded),
P proposals, R sampled regions (RoIs), C classes without background.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paperbench.engine.constants import constant

BoxStd = tuple[float, float, float, float]
"""Standard deviations that the regression targets `(tx, ty, tw, th)` are divided by."""

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest |log| of a predicted change of width or height; beyond it exp() would leave every image (torchvision's bound)."""


def area(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy -> (...) in square pixels; a box with inverted corners has area 0."""
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return side[..., 0] * side[..., 1]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every pair: (..., N, 4) and (..., M, 4) -> (..., N, M) in [0, 1]; 0 where the union is empty."""
    ax1, ay1, ax2, ay2 = a.unsqueeze(-2).unbind(-1)
    bx1, by1, bx2, by2 = b.unsqueeze(-3).unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_(min=0)
    intersection = width.mul_(height)
    union = (area(a).unsqueeze(-1) + area(b).unsqueeze(-2)).sub_(intersection)
    return intersection.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def exact_iou(a: Tensor, b: Tensor) -> Tensor:
    """The same as `iou`, computed in float64: a comparison then comes out alike on every device.

    Apple's GPUs have no float64; there it is float32.
    """
    return iou(widest(a), widest(b))


def widest(values: Tensor) -> Tensor:
    """Return the values in float64, or in float32 where the device has no other (Apple's GPUs)."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def encode(reference: Tensor, boxes: Tensor, std: BoxStd = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Regression targets of equation 2: (..., 4) reference and (..., 4) boxes -> (..., 4) `(tx, ty, tw, th) / std`.

    `std` is the standard deviation that targets are normalised by: (.1, .1, .2, .2) in the second stage of py-faster-rcnn.
    References must have positive sides.
    """
    ref_size = reference[..., 2:] - reference[..., :2]
    size = boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + 0.5 * size - reference[..., :2] - 0.5 * ref_size) / ref_size
    scale = torch.log(size / ref_size)
    return torch.cat([shift, scale], dim=-1) / constant(std, shift)


def decode(reference: Tensor, deltas: Tensor, std: BoxStd = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The inverse of `encode`: (..., 4) reference and (..., 4) deltas -> (..., 4) boxes, not clipped to any image."""
    deltas = deltas * constant(std, deltas)
    ref_size = reference[..., 2:] - reference[..., :2]
    centre = reference[..., :2] + 0.5 * ref_size + deltas[..., :2] * ref_size
    half = 0.5 * ref_size * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE))
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes cut off at the border of their image: (B, ..., 4) and (B, 2) as (height, width) -> (B, ..., 4)."""
    limit = sizes.flip(-1).repeat(1, 2).to(boxes.dtype)
    limit = limit.view(len(sizes), *[1] * (boxes.dim() - 2), 4)
    return boxes.clamp(min=0).minimum(limit)


def inside(boxes: Tensor, sizes: Tensor, margin: float = 0.0) -> Tensor:
    """Return which boxes stay within the border, up to `margin` pixels: (A, 4) and (B, 2) as (height, width) -> (B, A) bool."""
    limit = sizes.flip(-1).to(boxes.dtype)[:, None] + margin
    return (boxes[:, :2] >= -margin).all(-1) & (boxes[None, :, 2:] <= limit).all(-1)
