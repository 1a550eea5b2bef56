"""Feature extractors for photographs: torchvision's, with ImageNet weights where they are wanted, and a small one of our own.

The paper takes Inception with batch normalisation (A.6), which torchvision does not have; ResNet stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from paperbench.errors import ConfigError, DataError

Pool = Callable[[Tensor, int], Tensor]

NAMES = ("small", "resnet18", "resnet50", "squeezenet1_1")
_CHANNELS = {"small": 96, "resnet18": 512, "resnet50": 2048, "squeezenet1_1": 512}
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, what torchvision's weights were trained with."""


class Trunk(nn.Module):
    """(B, 3, H, W) in 0..1 -> (B, channels, h, w). Inputs are normalised here, behind any transformer, which needs black at 0."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, body: nn.Module, channels: int, *, pool: Pool = F.adaptive_avg_pool2d) -> None:
        super().__init__()
        self.body = body
        self.channels = channels
        self.pool = pool
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps."""
        normal = (images - self.mean) / self.deviation
        return self.body(normal.contiguous(memory_format=torch.channels_last))

    def describe(self, images: Tensor) -> Tensor:
        """(B, channels): each channel pooled over all places."""
        return self.pool(self(images), 1).flatten(1)


def make_trunk(name: str, weights: str | None) -> Trunk:
    """The trunk called `name`. weights: None, `DEFAULT` for torchvision's own, or a file with their state dict.

    Raises ConfigError for weights that do not fit and DataError for a file that cannot be read or weights that cannot be fetched.
    """
    if name == "small":
        if weights is not None:
            raise ConfigError("model.weights: the small backbone has no published weights; leave them out")
        # The largest answer anywhere: the mean over a map in which a part is a few cells says little of it.
        return Trunk(_small(), _CHANNELS[name], pool=F.adaptive_max_pool2d)
    try:
        model = torchvision.models.get_model(name, weights=weights if weights == "DEFAULT" else None)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"model.weights=DEFAULT: torchvision could not fetch the weights of {name}: {error}; "
            "download them elsewhere and give the file"
        ) from error
    if weights is not None and weights != "DEFAULT":
        _load(model, name, Path(weights))
    return Trunk(_features(name, model), _CHANNELS[name])


def check_weights(name: str, weights: str | None) -> None:
    """Raises ConfigError for weights that cannot be those of the trunk; reads nothing."""
    if weights is None or weights == "DEFAULT":
        return
    if name == "small":
        raise ConfigError("model.weights: the small backbone has no published weights; leave them out")
    if not Path(weights).is_file():
        raise ConfigError(f"model.weights={weights}: no such file; it takes a file with a state dict, DEFAULT or null")


def _load(model: nn.Module, name: str, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except FileNotFoundError:
        raise DataError(f"model.weights={path}: no such file") from None
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"model.weights={path}: not the weights of {name}: {first}") from error


def _features(name: str, model: Any) -> nn.Module:
    """The convolutional part of a torchvision model."""
    if name == "squeezenet1_1":
        return model.features
    return nn.Sequential(*list(model.children())[:-2])


def _small() -> nn.Sequential:
    """Four 3x3 convolutions with batch normalisation, the first two of stride 2."""
    layers: list[nn.Module] = []
    for entering, leaving, stride in ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 96, 1)):
        layers += [
            nn.Conv2d(entering, leaving, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(leaving),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
