"""The spatial transformer (section 3): localisation network, grid generator, sampler, for any place in a network.

Several may stand one after the other or side by side; each is a module of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.stn.localisation import ExactLinear
from paperbench.stn.sampling import Padding, Sampler, sample


class SpatialTransformer(nn.Module):
    """Warps its input by a transformation that it reads off the input.

    localisation: a module (B, C, h, w) -> (B, features). grid: a generator of `grids`, `tps` or `volumes`; its size is that of the
    output. The last layer, from `features` to the grid's parameters, is made here: weights 0, bias `start` (default: the
    identity), so that training begins with the same transformation for every input (appendix A.4).

    antialias: samples on the generator's grid and averages over squares of this side, so that a smaller output does not alias;
    the output is the grid's size divided by it. Grids are made in float32 whatever the precision of the network.
    """

    def __init__(
        self,
        *,
        localisation: nn.Module,
        features: int,
        grid: nn.Module,
        sampler: Sampler = "bilinear",
        padding: Padding = "zeros",
        antialias: int = 1,
        start: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.localisation = localisation
        self.grid = grid
        self.sampler: Sampler = sampler
        self.padding: Padding = padding
        self.antialias = antialias
        first: Tensor = grid.identity() if start is None else start  # type: ignore[operator]
        self.regression = ExactLinear(features, len(first))
        nn.init.zeros_(self.regression.weight)
        with torch.no_grad():
            self.regression.bias.copy_(first)

    def theta(self, features: Tensor) -> Tensor:
        """(B, P) parameters for what the localisation net found, in float32 or the input's higher precision."""
        return self.regression(self.localisation(features))

    def warp(self, images: Tensor, theta: Tensor) -> Tensor:
        """`images` (B, C, h, w) under the transformations `theta` (B, P)."""
        with torch.autocast(images.device.type, enabled=False):
            warped = sample(images.to(theta.dtype), self.grid(theta), sampler=self.sampler, padding=self.padding)
            return F.avg_pool2d(warped, self.antialias) if self.antialias > 1 else warped

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) warped images."""
        return self.warp(images, self.theta(images))
