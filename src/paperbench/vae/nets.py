"""The nets inside encoders and decoders: the paper's (appendix C), with one hidden layer, and convolutional ones.

Every net works on the last axis (pixels or latent dimensions) and takes any axes before it; see `bounds` for the letters.
The linear ones can be stacked (`engine.stacked`): nothing in them names a batch size or counts axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from paperbench.vae.config import NetConfig

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
"""Those that map 0 to 0, so that padding stays without effect."""


class MlpFeatures(nn.Module):
    """(..., inputs) -> (..., hidden): one hidden layer."""

    def __init__(self, *, inputs: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.width = hidden
        self.hidden = nn.Linear(inputs, hidden)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.hidden(x))


class ConvFeatures(nn.Module):
    """(..., C * H * W) images -> (..., hidden): two convolutions of stride 2, then a linear layer.

    size: (H, W) of grey images, (C, H, W) of others.
    """

    def __init__(self, *, size: tuple[int, ...], channels: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.size = (*(size[:-2] or (1,)), *size[-2:])
        self.width = hidden
        height, width = _quarter(size)
        self.layers = nn.Sequential(
            nn.Conv2d(self.size[0], channels, 4, stride=2, padding=1),
            ACTIVATIONS[activation](),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            ACTIVATIONS[activation](),
            nn.Flatten(),
            nn.Linear(2 * channels * height * width, hidden),
            ACTIVATIONS[activation](),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.reshape(-1, *self.size)).unflatten(0, x.shape[:-1])


class ConvPixels(nn.Module):
    """(..., hidden) -> (..., C * H * W): the mirror image of `ConvFeatures`, ending without a nonlinearity."""

    def __init__(self, *, size: tuple[int, ...], channels: int, hidden: int, activation: str) -> None:
        super().__init__()
        height, width = _quarter(size)
        self.layers = nn.Sequential(
            nn.Linear(hidden, 2 * channels * height * width),
            ACTIVATIONS[activation](),
            nn.Unflatten(-1, (2 * channels, height, width)),
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
            ACTIVATIONS[activation](),
            nn.ConvTranspose2d(channels, size[0] if len(size) == 3 else 1, 4, stride=2, padding=1),
            nn.Flatten(),
        )

    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h.flatten(0, -2)).unflatten(0, h.shape[:-1])


def make_features(model: NetConfig, size: tuple[int, ...]) -> nn.Module:
    """Build the net from pixels of images (H, W), or (C, H, W), to hidden units."""
    if model.net == "conv":
        return ConvFeatures(size=size, channels=model.channels, hidden=model.hidden, activation=model.activation)
    return MlpFeatures(inputs=math.prod(size), hidden=model.hidden, activation=model.activation)


def make_pixels(model: NetConfig, size: tuple[int, ...]) -> nn.Module:
    """Build the net from hidden units to pixels of images (H, W), or (C, H, W)."""
    if model.net == "conv":
        return ConvPixels(size=size, channels=model.channels, hidden=model.hidden, activation=model.activation)
    return nn.Linear(model.hidden, math.prod(size))


def _quarter(size: tuple[int, ...]) -> tuple[int, int]:
    height, width = size[-2:]
    if height % 4 or width % 4:
        raise ValueError(f"two strides of 2 need sides that are multiples of 4, not {height} x {width}")
    return height // 4, width // 4


@torch.no_grad()
def initialise(module: nn.Module, std: float | None) -> None:
    """Draw weights and biases from N(0, std^2), as section 5 does; with None, weights from N(0, 1 / fan-in), biases 0.

    The paper's "N(0, 0.01)" does not say whether 0.01 is the variance (std 0.1) or the deviation.
    """
    for layer in module.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            continue
        if std is None:
            nn.init.normal_(layer.weight, std=_fan_in(layer) ** -0.5)
        else:
            nn.init.normal_(layer.weight, std=std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias) if std is None else nn.init.normal_(layer.bias, std=std)


def _fan_in(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    taps = float(layer.weight[0, 0].numel())
    if isinstance(layer, nn.ConvTranspose2d):
        taps /= layer.stride[0] * layer.stride[1]  # only so many of its taps reach one pixel
    return layer.in_channels * taps
