"""The spatial transformer (section 3): localisation net, grid generator and sampler, for any place in a network.

Several may follow each other or work in parallel; each is a module of its own. The second half are the localisation nets of the
paper: appendix A.4 for digits, A.2 for co-localisation, A.5 for house numbers. Each function returns the net and the number of its
features; the layer from there to the parameters belongs to the transformer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.engine.precision import full_precision
from paperbench.stn.layers import ChannelsLast, ExactLinear, count_features
from paperbench.stn.sampling import Padding, Sampler, sample


class SpatialTransformer(nn.Module):
    """Warps its input by a transformation that a localisation net predicts from the input.

        net, features = fully_connected(channels=1, side=28)
        transformer = SpatialTransformer(localisation=net, features=features, grid=Affine((28, 28)))
        warped = transformer(images)  # (B, 1, 28, 28)

    localisation: a module (B, C, h, w) -> (B, features). grid: a generator of `grids`; its size is that of the output. The last
    layer, from `features` to the grid's parameters, belongs to this module: weights 0, bias `start` (default: the identity), so
    that training begins with the same transformation for every input (appendix A.4).

    antialias: sample on the generator's grid and average over squares of this side, so that a smaller output does not alias; the
    output has the grid's size divided by it. Grids are computed in float32 whatever the precision of the network.
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
        """Return the predicted parameters (B, P), in float32 or the input's higher precision."""
        return self.regression(self.localisation(features))

    def warp(self, images: Tensor, theta: Tensor) -> Tensor:
        """Return `images` (B, C, h, w) under the transformations `theta` (B, P), (B, C, H, W).

        In the precision of `theta` under autocast, whose layers cast for themselves, and in that of the images otherwise.
        """
        kept = theta.dtype if torch.is_autocast_enabled(images.device.type) else images.dtype
        with full_precision(images.device):
            warped = sample(images.to(theta.dtype), self.grid(theta), sampler=self.sampler, padding=self.padding)
            return (F.avg_pool2d(warped, self.antialias) if self.antialias > 1 else warped).to(kept)

    def forward(self, images: Tensor) -> Tensor:
        """Return the warped images (B, C, H, W)."""
        return self.warp(images, self.theta(images))


# --- localisation nets ------------------------------------------------------------------------------------------------

LocalisationNet = tuple[nn.Module, int]
"""A net (B, C, h, w) -> (B, features), and the number of features."""


def fully_connected(channels: int, side: int, *, width: int = 32, layers: int = 3) -> LocalisationNet:
    """Build that of ST-FCN: `layers` fully connected layers of `width` units on the whole input."""
    parts: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * side * side, width), nn.ReLU()]
    for _ in range(layers - 1):
        parts += [ExactLinear(width, width), nn.ReLU()]
    return nn.Sequential(*parts), width


def convolutional(channels: int, side: int, *, filters: int = 20, units: int = 20) -> LocalisationNet:
    """Build that of ST-CNN: half the resolution, 5x5 convolution, pooling, 5x5 convolution, one fully connected layer."""
    body = nn.Sequential(
        nn.AvgPool2d(2),
        ChannelsLast(),
        nn.Conv2d(channels, filters, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(filters, filters, 5),
        nn.ReLU(),
        nn.Flatten(),
    )
    return _add_head(body, channels, side, [units])


def strided_convolutional(channels: int, side: int, *, filters: int = 8, units: int = 8) -> LocalisationNet:
    """Build that of co-localisation: a 9x9 convolution with stride 4, pooling, two fully connected layers (A.2)."""
    body = nn.Sequential(
        ChannelsLast(), nn.Conv2d(channels, filters, 9, stride=4), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()
    )
    return _add_head(body, channels, side, [units, units])


def padded_convolutional(channels: int, side: int, *, filters: int = 32, units: int = 32) -> LocalisationNet:
    """Build that of ST-CNN Single: two padded 5x5 convolutions with pooling between them, two fully connected layers (A.5)."""
    body = nn.Sequential(
        ChannelsLast(),
        nn.Conv2d(channels, filters, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(filters, filters, 5, padding=2),
        nn.ReLU(),
        nn.Flatten(),
    )
    return _add_head(body, channels, side, [units, units])


def _add_head(body: nn.Sequential, channels: int, side: int, units: list[int]) -> LocalisationNet:
    features = count_features(body, channels, side)
    for width in units:
        body.extend([nn.Linear(features, width), nn.ReLU()])
        features = width
    return body, features
