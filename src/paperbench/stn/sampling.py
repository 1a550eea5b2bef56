"""Samplers: what an image or a volume holds at the positions of a grid (section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from paperbench.stn.geometry import ALIGN_CORNERS

Sampler = Literal["bilinear", "nearest", "bicubic"]
Padding = Literal["zeros", "border", "reflection"]


def sample(images: Tensor, grid: Tensor, *, sampler: Sampler = "bilinear", padding: Padding = "zeros") -> Tensor:
    """(B, C, H, W) values of `images` (B, C, h, w) at `grid` (B, H, W, 2); volumes have one dimension more throughout.

    `bilinear` (equation 5; trilinear on volumes) and `bicubic` have gradients for image and grid, `nearest` (equation 4) for the
    image alone. `padding` is what lies outside: black, the nearest edge, or the mirrored image. `zeros` suits inputs whose
    background is 0: subtract no mean in front of a transformer, or it learns to shrink the image. No bicubic on volumes.
    """
    if sampler == "bicubic" and images.dim() == 5:
        raise ValueError("bicubic sampling is for images; volumes take bilinear or nearest")
    return F.grid_sample(images, grid, mode=sampler, padding_mode=padding, align_corners=ALIGN_CORNERS)
