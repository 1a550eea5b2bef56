"""Coordinates of the room, stated once.

Positions are normalised: x to the right and y downwards, both -1 and 1 at the outer edges of an image, so that the centre of pixel
k of n lies at (2k + 1) / n - 1. torch calls this `align_corners=False`; everything here uses `ALIGN_CORNERS`. An image may be
sampled at another resolution without moving: the edges stay where they are.

A grid tells, for each output pixel, the position in the input that it is sampled from (section 3.2, equation 1).

Letters: B batch, C channels, H, W output height and width, P parameters of a transformation.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

ALIGN_CORNERS: Final = False


def pixel_centres(count: int) -> Tensor:
    """(count,) float64 normalised positions of the pixel centres of a line."""
    return (2 * torch.arange(count, dtype=torch.float64) + 1) / count - 1


def pixel_points(height: int, width: int) -> Tensor:
    """(H * W, 2) float64 x and y of every pixel centre, row by row."""
    y, x = torch.meshgrid(pixel_centres(height), pixel_centres(width), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def to_pixels(positions: Tensor, size: int) -> Tensor:
    """Normalised positions as pixels from the outer edge: -1 is 0 and 1 is `size`."""
    return (positions + 1) * (size / 2)


def boxes_of(theta: Tensor) -> Tensor:
    """(B, 4) x1, y1, x2, y2, normalised, of the windows that attention parameters (B, 3) scale, x, y look at."""
    half = theta[:, :1].abs()
    return torch.cat([theta[:, 1:] - half, theta[:, 1:] + half], dim=1)


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """(B,) intersection over union of boxes (B, 4) in pairs; 0 where both are empty."""
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clamp_min(0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (first, second)]
    union = areas[0] + areas[1] - shared
    return torch.where(union > 0, shared / union.clamp_min(torch.finfo(union.dtype).tiny), torch.zeros_like(union))
