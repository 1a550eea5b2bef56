"""Localisation networks: what a transformer looks at its input with. The layer from here to the parameters is the transformer's.

Appendix A.4 for digits, A.2 for co-localisation, A.5 for house numbers. Every function of this module returns the network and the
number of its features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Localisation = tuple[nn.Module, int]


def channels_last(images: Tensor) -> Tensor:
    """(B, C, H, W) with C the fastest axis in memory. For C = 1, where any order is as good, the strides have to say it.

    While a graph is being traced it does nothing: the formats that graphs are written in know no strides.
    """
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return images
    _, channels, height, width = images.shape
    if channels > 1:
        return images.contiguous(memory_format=torch.channels_last)
    return images.contiguous().as_strided(images.shape, (height * width, 1, width, 1))


class ChannelsLast(nn.Module):
    """`channels_last` as a layer."""

    def forward(self, images: Tensor) -> Tensor:
        """The same values."""
        return channels_last(images)


class ExactLinear(nn.Linear):
    """A linear layer in the precision of its weights, inside autocast too.

    For the last layers of a localisation net: positions want more than the 8 bits of bfloat16, and with some dozen units a product
    in bfloat16 takes twice as long on a CPU as one in float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., out) of (..., in)."""
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


def fully_connected(channels: int, side: int, *, width: int = 32, layers: int = 3) -> Localisation:
    """ST-FCN: `layers` fully connected layers of `width` units on the whole input."""
    parts: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * side * side, width), nn.ReLU()]
    for _ in range(layers - 1):
        parts += [ExactLinear(width, width), nn.ReLU()]
    return nn.Sequential(*parts), width


def convolutional(channels: int, side: int, *, filters: int = 20, units: int = 20) -> Localisation:
    """ST-CNN: half the resolution, 5x5 convolution, pooling, 5x5 convolution, one fully connected layer."""
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
    return _with_head(body, channels, side, [units])


def strided(channels: int, side: int, *, filters: int = 8, units: int = 8) -> Localisation:
    """Co-localisation: a 9x9 convolution with stride 4, pooling, two fully connected layers (A.2)."""
    body = nn.Sequential(
        ChannelsLast(), nn.Conv2d(channels, filters, 9, stride=4), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()
    )
    return _with_head(body, channels, side, [units, units])


def house_numbers(channels: int, side: int, *, filters: int = 32, units: int = 32) -> Localisation:
    """ST-CNN Single: two padded 5x5 convolutions with pooling between them, two fully connected layers (A.5)."""
    body = nn.Sequential(
        ChannelsLast(),
        nn.Conv2d(channels, filters, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(filters, filters, 5, padding=2),
        nn.ReLU(),
        nn.Flatten(),
    )
    return _with_head(body, channels, side, [units, units])


def _with_head(body: nn.Sequential, channels: int, side: int, units: list[int]) -> Localisation:
    entering = features_of(body, channels, side)
    for width in units:
        body.extend([nn.Linear(entering, width), nn.ReLU()])
        entering = width
    return body, entering


def features_of(body: nn.Module, channels: int, side: int) -> int:
    """Numbers per image that `body` makes of (B, channels, side, side). Raises ValueError if the input is too small for it."""
    device = next((parameter.device for parameter in body.parameters()), torch.device("cpu"))
    with torch.no_grad():
        try:
            out: Tensor = body(torch.zeros(1, channels, side, side, device=device))
        except RuntimeError as error:
            raise ValueError(f"an input of {side}x{side} pixels is too small for the net: {error}") from error
    return out[0].numel()
