"""Coordinates of images and grids, and samplers: the value of an image or a volume at the positions of a grid (section 3.3).

Positions are normalised: x to the right and y downwards, both -1 and 1 at the outer edges of an image, so that the centre of pixel
k of n lies at (2k + 1) / n - 1. torch calls this `align_corners=False`; everything here uses `ALIGN_CORNERS`. An image may be
sampled at another resolution without a shift: the edges stay where they are.

A grid holds, for each output pixel, the position in the input that it is sampled from (section 3.2, equation 1).

Letters: B batch, C channels, H, W output height and width, P parameters of a transformation.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGN_CORNERS: Final = False

Sampler = Literal["bilinear", "nearest", "bicubic"]
Padding = Literal["zeros", "border", "reflection"]


def pixel_centres(count: int) -> Tensor:
    """Return (count,) float64 normalised positions of the pixel centres of a line."""
    return (2 * torch.arange(count, dtype=torch.float64) + 1) / count - 1


def pixel_points(height: int, width: int) -> Tensor:
    """Return (H * W, 2) float64 x and y of every pixel centre, row by row."""
    y, x = torch.meshgrid(pixel_centres(height), pixel_centres(width), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def to_pixels(positions: Tensor, size: int) -> Tensor:
    """Convert normalised positions to pixels from the outer edge: -1 is 0 and 1 is `size`."""
    return (positions + 1) * (size / 2)


def sample(images: Tensor, grid: Tensor, *, sampler: Sampler = "bilinear", padding: Padding = "zeros") -> Tensor:
    """Return values (B, C, H, W) of `images` (B, C, h, w) at `grid` (B, H, W, 2); volumes have one dimension more throughout.

    `bilinear` (equation 5; trilinear on volumes) and `bicubic` have gradients for image and grid, `nearest` (equation 4) for the
    image alone. `padding` fills the outside: black, the nearest edge, or the mirrored image. `zeros` suits inputs whose
    background is 0: subtract no mean in front of a transformer, or it learns to shrink the image. Computed in float32 or the higher
    precision of the two, returned in the images' own. Raises ValueError for
    bicubic sampling of volumes.
    """
    if sampler == "bicubic" and images.dim() == 5:
        raise ValueError("bicubic sampling is for images; volumes take bilinear or nearest")
    # Weights of neighbours in a shorter type than float32 would be those of other places.
    wide = torch.promote_types(torch.promote_types(images.dtype, grid.dtype), torch.float32)
    sampled = F.grid_sample(
        images.to(wide), grid.to(wide), mode=sampler, padding_mode=padding, align_corners=ALIGN_CORNERS
    )
    return sampled.to(images.dtype) if images.is_floating_point() else sampled
