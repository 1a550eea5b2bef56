"""Fine-grained classes by parts (section 4.3, appendix A.6): windows placed by one localisation net, a net of its own for each.

Every window has half the image's side and may only be moved: in the paper more general transformations overfit. The windows start
as tiles of the image. The paper's nets are Inception with batch normalisation, which torchvision does not have; ResNet stands in
for it, with ImageNet weights on request, and a small net for generated images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from paperbench.engine.precision import full_precision
from paperbench.errors import ConfigError, DataError
from paperbench.stn.config import Backbone, PartsModel
from paperbench.stn.grids import Window
from paperbench.stn.layers import Resize
from paperbench.stn.sampling import sample

WINDOW_SCALE = 0.5
"""Side of a window, as a share of the image's."""


def tiles(count: int) -> Tensor:
    """Return the centres (count, 2) of windows of half the side that tile the image: x, y, normalised."""
    if count == 2:
        return torch.tensor([[-0.5, 0.0], [0.5, 0.0]])
    if count == 4:
        return torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    raise ValueError(f"{count} windows: the paper tiles with 2 or 4")


class WindowPlacer(nn.Module):
    """(B, 3, h, w) -> (B, count, 2) centres: a trunk, a 1x1 convolution to `features`, a fully connected layer, a regression.

    `side` is that of the trunk's input; the trunk's last pooling is left out, so that the map keeps its positions.
    """

    def __init__(self, count: int, *, backbone: Backbone, weights: str | None, side: int, features: int = 128) -> None:
        super().__init__()
        self.side = side
        self.resize = Resize(side)
        self.trunk = make_trunk(backbone, weights)
        self.reduce = nn.Conv2d(self.trunk.channels, features, 1)
        with torch.no_grad():
            training = self.trunk.training
            cells = self.trunk.eval()(torch.zeros(1, 3, side, side)).shape[2:].numel()
            self.trunk.train(training)
        self.hidden = nn.Linear(features * cells, features)
        self.regression = nn.Linear(features, 2 * count)
        nn.init.zeros_(self.regression.weight)
        with torch.no_grad():
            self.regression.bias.copy_(tiles(count).flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Return the centres in float32."""
        features = self.hidden(self.reduce(self.trunk(self.resize(images))).relu().flatten(1)).relu()
        with full_precision(images.device):
            return self.regression(features.float()).unflatten(1, (-1, 2))


class PartsNet(nn.Module):
    """(B, 3, H, W) in 0..1 -> (B, classes) logits, by `config.windows` windows, or on the whole image with 0.

    Windows are sampled from the input at its own resolution, `config.side` pixels a side. Each has a trunk of its own, and the
    classifier takes the concatenated pooled features. Without `pretrained` no weights are read: they are about to be replaced.
    """

    def __init__(self, config: PartsModel, *, classes: int, pretrained: bool = True) -> None:
        super().__init__()
        windows, backbone, side = config.windows, config.backbone, config.side
        weights = config.weights if pretrained else None
        self.placer = WindowPlacer(windows, backbone=backbone, weights=weights, side=side) if windows else None
        self.window = Window((side, side), scale=WINDOW_SCALE)
        self.whole = Resize(side)
        self.trunks = nn.ModuleList(make_trunk(backbone, weights) for _ in range(max(1, windows)))
        features = sum(trunk.channels for trunk in self.trunks)  # type: ignore[misc]
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(features, classes)

    def centres(self, images: Tensor) -> Tensor:
        """Return the centres of the windows, (B, windows, 2)."""
        assert self.placer is not None
        return self.placer(images)

    def parts(self, images: Tensor) -> list[Tensor]:
        """Return the input of each trunk, (B, 3, side, side) each."""
        if self.placer is None:
            return [self.whole(images)]
        centres = self.centres(images)
        with full_precision(images.device):
            return [sample(images.float(), self.window(centre), padding="border") for centre in centres.unbind(1)]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        features = [trunk.pooled(part) for trunk, part in zip(self.trunks, self.parts(images), strict=True)]  # type: ignore[operator]
        return self.classifier(self.dropout(torch.cat(features, dim=1)))

    def parameter_groups(self, *, localisation_lr: float) -> Iterator[dict[str, Any]]:
        """Yield groups for `engine.optim.build_optimizer`: the localisation net with its own rate, and the rest."""
        if self.placer is not None:
            yield {"params": list(self.placer.parameters()), "lr_scale": localisation_lr}
        yield {"params": [*self.trunks.parameters(), *self.classifier.parameters()]}


# --- trunks -----------------------------------------------------------------------------------------------------------

Pool = Callable[[Tensor, int], Tensor]

_CHANNELS: dict[Backbone, int] = {"small": 96, "resnet18": 512, "resnet50": 2048, "squeezenet1_1": 512}
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, what torchvision's weights were trained with."""


class Trunk(nn.Module):
    """(B, 3, H, W) in 0..1 -> (B, channels, h, w). Inputs are normalised here, after any transformer, which needs black at 0."""

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
        """Return feature maps."""
        normal = (images - self.mean) / self.deviation
        return self.body(normal.contiguous(memory_format=torch.channels_last))

    def pooled(self, images: Tensor) -> Tensor:
        """Return each channel pooled over all positions, (B, channels)."""
        return self.pool(self(images), 1).flatten(1)


def make_trunk(name: Backbone, weights: str | None) -> Trunk:
    """Build the trunk called `name`. weights: None, `DEFAULT` for torchvision's own, or a file with their state dict.

    Raises ConfigError for weights that do not fit and DataError for a file that cannot be read or weights that cannot be fetched.
    """
    if name == "small":
        if weights is not None:
            raise ConfigError("model.weights: the small backbone has no published weights; leave them out")
        # Max pooling: the mean over a map in which a part is a few cells says little of it.
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


def check_weights(name: Backbone, weights: str | None) -> None:
    """Raise ConfigError for weights that cannot be those of the trunk; no file is read."""
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
    """Return the convolutional part of a torchvision model."""
    if name == "squeezenet1_1":
        return model.features
    return nn.Sequential(*list(model.children())[:-2])


def _small() -> nn.Sequential:
    """Build four 3x3 convolutions with batch normalisation, the first two of stride 2."""
    layers: list[nn.Module] = []
    for channels, filters, stride in ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 96, 1)):
        layers += [
            nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def wrong_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) bool, true for images whose class is wrong."""
    return logits.argmax(1) != labels
