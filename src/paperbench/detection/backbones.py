"""Feature extractors and the heads that belong to them: ZF and VGG-16 of the paper, ResNet-50 (C4), SqueezeNet, and a small one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from paperbench.config.paths import expanded
from paperbench.detection.model_config import BackboneModel
from paperbench.errors import ConfigError, DataError, EnvironmentError_

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Stage:
    """Some layers of a backbone, on the output of the stage before: `channels` at `stride` in all."""

    module: nn.Module
    channels: int
    stride: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """Layers up to the feature map, and what the detector must know about them.

    `features` maps (B, 3, H, W) normalised images to (B, channels, ~H / stride, ~W / stride). `layers` are its parts from the
    input on, the units that `frozen_layers` counts: as many of them are left untrained unless told otherwise. `head` maps
    pooled (N, channels, pool_size, pool_size) features to (N, head_channels) and is None where the backbone has none of its
    own. `pretrained` says whether weights were loaded. `stages` are the same layers, and for ResNet the head's as well, cut where
    the stride changes: what nets on several maps are made from.
    """

    name: str
    features: nn.Module
    layers: tuple[nn.Module, ...]
    channels: int
    stride: int
    rpn_channels: int
    pool_size: int
    frozen_layers: int = 0
    head: nn.Module | None = None
    head_channels: int = 0
    pretrained: bool = False
    stages: tuple[Stage, ...] = ()


# --- weights ----------------------------------------------------------------------------------------------------------


NAMED_WEIGHTS: dict[str, Any] = {
    "alexnet": torchvision.models.AlexNet_Weights,
    "vgg16": torchvision.models.VGG16_Weights,
    "resnet50": torchvision.models.ResNet50_Weights,
    "squeezenet1_1": torchvision.models.SqueezeNet1_1_Weights,
}
"""torchvision's weights of each backbone, by their names there."""


def check_weights(backbone: str, weights: str) -> None:
    """Raise `ConfigError` when `weights` is neither a file nor a name that torchvision has for `backbone`."""
    names = _weight_names(backbone)
    if not expanded(weights).is_file() and weights not in names:
        known = f", or one of {', '.join(names)}" if names else ""
        raise ConfigError(
            f"model.weights={weights}: no such file{known}. model.weights=null starts from random weights."
        )


def _weight_names(backbone: str) -> list[str]:
    return ["DEFAULT", *NAMED_WEIGHTS[backbone].__members__] if backbone in NAMED_WEIGHTS else []


def load_weights(net: nn.Module, weights: str, *, backbone: str) -> None:
    """Load a state dict from a file, or torchvision's weights by name, into `net`, strictly and in float32.

    Raises `DataError` for a file that is no state dict or does not fit, naming what differs; `ConfigError` for a name that
    torchvision does not have; `EnvironmentError_` when the weights cannot be downloaded.
    """
    check_weights(backbone, weights)
    path = expanded(weights)
    if path.is_file():
        state = _read_state(path)
    else:
        try:
            state = NAMED_WEIGHTS[backbone][weights].get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise EnvironmentError_(
                f"model.weights={weights}: torchvision's weights could not be downloaded ({error}). "
                "Give a local file (model.weights=FILE.pth), or none (model.weights=null)."
            ) from error
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    own = net.state_dict()
    wrong = [f"missing {key}" for key in own.keys() - state.keys()]
    wrong += [f"unknown {key}" for key in state.keys() - own.keys()]
    wrong += [
        f"{key} has the shape {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    if wrong:
        raise DataError(
            f"model.weights={weights}: not the weights of this backbone: {'; '.join(sorted(wrong)[:6])}"
            f"{f' and {len(wrong) - 6} more' if len(wrong) > 6 else ''}. Choose the backbone they belong to (model.backbone=…)."
        )
    net.load_state_dict(state)


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises pickle, zip, EOF and runtime errors for the many ways a file can be damaged
        raise DataError(
            f"{path}: cannot be read as a state dict ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). "
            "Fetch it again, or save it with torch.save(net.state_dict(), FILE)."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: holds a {type(state).__name__}, not a state dict of tensors.")
    return state


# --- backbones --------------------------------------------------------------------------------------------------------


def _conv_bn(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def small(weights: str | None = None) -> Backbone:
    """Five 3x3 convolutions of 24, 48, 96, 128, 128 channels with batch normalisation, stride 8: for small images on a CPU."""
    layers = (_conv_bn(3, 24, 2), _conv_bn(24, 48, 2), _conv_bn(48, 96, 2), _conv_bn(96, 128, 1), _conv_bn(128, 128, 1))
    net = nn.Sequential(*layers)
    if weights is not None:
        load_weights(net, weights, backbone="small")
    return Backbone(
        name="small",
        features=net,
        layers=layers,
        channels=128,
        stride=8,
        rpn_channels=128,
        pool_size=7,
        pretrained=weights is not None,
        stages=(Stage(net[:2], 48, 4), Stage(net[2:], 128, 8)),
    )


class ZFNet(nn.Module):
    """Zeiler and Fergus' "fast" net as the paper uses it: five convolutions, stride 16, 256 channels, and two layers of 4096.

    Local response normalisation follows the first two convolutions. No public weights exist for torch; `state_dict` keys are
    `features.*` and `head.*`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2, padding=3),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(3, alpha=5e-5, beta=0.75),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(96, 256, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(3, alpha=5e-5, beta=0.75),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.head = _fc_head(256 * 6 * 6)


def _fc_head(inputs: int, dropout: float = 0.5) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


def zf(weights: str | None = None) -> Backbone:
    """ZF: 5 convolutions, stride 16, fc6 and fc7 of 4096 on 6x6 regions."""
    net = ZFNet()
    if weights is not None:
        load_weights(net, weights, backbone="zf")
    return Backbone(
        name="zf",
        features=net.features,
        layers=tuple(layer for layer in net.features if isinstance(layer, nn.Conv2d)),
        channels=256,
        stride=16,
        rpn_channels=256,
        pool_size=6,
        head=net.head,
        head_channels=4096,
        pretrained=weights is not None,
        stages=(Stage(net.features[:7], 256, 8), Stage(net.features[7:], 256, 16)),
    )


def alexnet(weights: str | None = None) -> Backbone:
    """AlexNet up to conv5, stride 16; fc6 and fc7 on 6x6 regions are its head. torchvision's has fewer filters than Caffe's."""
    net = torchvision.models.alexnet()
    if weights is not None:
        load_weights(net, weights, backbone="alexnet")
    features = nn.Sequential(*list(net.features.children())[:-1])
    dropout, fc6, relu6, again, fc7, relu7, _ = net.classifier
    return Backbone(
        name="alexnet",
        features=features,
        layers=tuple(layer for layer in features if isinstance(layer, nn.Conv2d)),
        channels=256,
        stride=16,
        rpn_channels=256,
        pool_size=6,
        # Dropout after each layer, as in the paper's net, in place of before it.
        head=nn.Sequential(nn.Flatten(), fc6, relu6, dropout, fc7, relu7, again),
        head_channels=4096,
        pretrained=weights is not None,
    )


def vgg16(weights: str | None = None) -> Backbone:
    """VGG-16 up to conv5_3, stride 16; fc6 and fc7 are its head. The paper freezes the four layers before conv3_1."""
    net = torchvision.models.vgg16(init_weights=weights is None)
    if weights is not None:
        load_weights(net, weights, backbone="vgg16")
    features = nn.Sequential(*list(net.features.children())[:-1])
    return Backbone(
        name="vgg16",
        features=features,
        layers=tuple(layer for layer in features if isinstance(layer, nn.Conv2d)),
        channels=512,
        stride=16,
        rpn_channels=512,
        pool_size=7,
        frozen_layers=4,
        head=nn.Sequential(nn.Flatten(), *list(net.classifier)[:-1]),
        head_channels=4096,
        pretrained=weights is not None,
        stages=(Stage(features[:16], 256, 4), Stage(features[16:23], 512, 8), Stage(features[23:], 512, 16)),
    )


def resnet50(weights: str | None = None) -> Backbone:
    """ResNet-50 "C4": features up to stage 4 (stride 16), stage 5 and global pooling as the head, batch norms frozen."""
    frozen_norm: Callable[..., nn.Module] = torchvision.ops.FrozenBatchNorm2d
    net = torchvision.models.resnet50(norm_layer=frozen_norm)
    if weights is not None:
        load_weights(net, weights, backbone="resnet50")
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    features = nn.Sequential(stem, net.layer1, net.layer2, net.layer3)
    return Backbone(
        name="resnet50",
        features=features,
        layers=(stem, net.layer1, net.layer2, net.layer3),
        channels=1024,
        stride=16,
        rpn_channels=1024,
        pool_size=14,
        frozen_layers=2,
        head=nn.Sequential(net.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        head_channels=2048,
        pretrained=weights is not None,
        stages=(
            Stage(nn.Sequential(stem, net.layer1), 256, 4),
            Stage(net.layer2, 512, 8),
            Stage(net.layer3, 1024, 16),
            Stage(net.layer4, 2048, 32),
        ),
    )


def squeezenet1_1(weights: str | None = None) -> Backbone:
    """SqueezeNet 1.1's features, stride 16, 512 channels; it has no fully connected layers of its own."""
    net = torchvision.models.squeezenet1_1()
    if weights is not None:
        load_weights(net, weights, backbone="squeezenet1_1")
    return Backbone(
        name="squeezenet1_1",
        features=net.features,
        layers=tuple(layer for layer in net.features if any(True for _ in layer.parameters())),
        channels=512,
        stride=16,
        rpn_channels=256,
        pool_size=7,
        pretrained=weights is not None,
        stages=(
            Stage(net.features[:5], 128, 4),
            Stage(net.features[5:8], 256, 8),
            Stage(net.features[8:], 512, 16),
        ),
    )


BACKBONES: dict[str, Callable[[str | None], Backbone]] = {
    "small": small,
    "alexnet": alexnet,
    "zf": zf,
    "vgg16": vgg16,
    "resnet50": resnet50,
    "squeezenet1_1": squeezenet1_1,
}


def freeze(backbone: Backbone, layers: int | None = None) -> None:
    """Freeze the first `layers` layers (None: the backbone's own number).

    The detector leaves the batch statistics of frozen layers alone as well.
    """
    layers = backbone.frozen_layers if layers is None else layers
    if layers > len(backbone.layers):
        raise ConfigError(
            f"model.frozen_layers={layers}: {backbone.name} has {len(backbone.layers)} layers; "
            f"give a number from 0 to {len(backbone.layers)}."
        )
    for layer in backbone.layers[:layers]:
        layer.requires_grad_(False)


def make_backbone(model: BackboneModel, *, pretrained: bool) -> Backbone:
    """The layers up to the features, the first of them frozen."""
    backbone = BACKBONES[model.backbone](model.weights if pretrained else None)
    freeze(backbone, model.frozen_layers)
    return backbone


def projection(backbone: Backbone, channels: int) -> nn.Module | None:
    """A 1x1 convolution from a backbone's features to so many channels; None for 0."""
    if not channels:
        return None
    return nn.Sequential(nn.Conv2d(backbone.channels, channels, 1), nn.ReLU(inplace=True))
