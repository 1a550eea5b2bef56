"""The nets of the digit experiments (appendix A.4): classifiers, the front ends before them, and their construction.

Each classifier has three layers with weights. `channels` x `side` x `side` is its input, `classes` its output.

The paper says that its nets have about the same number of parameters, around 400,000, and gives widths with which they do not
(28x28: 208,586 for CNN with 64 filters, 269,322 for FCN with 256 units). The widths of `scale=paper` are those with the number; the
defaults are the largest that the paper states, and `model.parameters` solves for another number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.errors import ConfigError
from paperbench.stn.config import CnnModel, DcnModel, FcnModel, StCnnModel, StFcnModel, TransformerModel
from paperbench.stn.deformable import DeformableFront
from paperbench.stn.distortions import SIDE
from paperbench.stn.grids import make_grid
from paperbench.stn.layers import OneChannelConv2d, Resize, channels_last, count_features, count_parameters
from paperbench.stn.transformer import SpatialTransformer, convolutional, fully_connected

MAX_WIDTH = 8192
"""Of the search for a number of parameters."""


class FullyConnectedNet(nn.Module):
    """FCN: two hidden layers of `units`."""

    def __init__(self, *, channels: int, side: int, units: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels * side * side, units)
        self.second = nn.Linear(units, units)
        self.classifier = nn.Linear(units, classes)

    def activations(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the activations of the three layers, (B, ...) each; the last are the logits."""
        first = self.first(images.flatten(1)).relu()
        second = self.second(first).relu()
        return first, second, self.classifier(second)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.activations(images)[-1]


class ConvolutionalNet(nn.Module):
    """CNN: 9x9 and 7x7 convolutions without padding, each with 2x2 max pooling, and a fully connected layer.

    Pooling comes before the ReLU: the result is the same, on a quarter of the values. Activations have their channels last:
    max pooling on a CPU is fifteen times as fast that way.
    """

    def __init__(self, *, channels: int, side: int, filters: int, classes: int) -> None:
        super().__init__()
        self.first = OneChannelConv2d(filters, 9) if channels == 1 else nn.Conv2d(channels, filters, 9)
        self.second = nn.Conv2d(filters, filters, 7)
        body = nn.Sequential(self.first, nn.MaxPool2d(2), self.second, nn.MaxPool2d(2))
        self.classifier = nn.Linear(count_features(body, channels, side), classes)

    def activations(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the activations of the three layers, (B, ...) each; the last are the logits."""
        first = F.max_pool2d(self.first(channels_last(images)), 2).relu()
        second = F.max_pool2d(self.second(first), 2).relu()
        return first, second, self.classifier(second.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.activations(images)[-1]


class SpatialTransformerNet(nn.Module):
    """Transformers in parallel on the input, their outputs concatenated as channels for the classifier (ST-FCN, ST-CNN)."""

    def __init__(self, transformers: Sequence[SpatialTransformer], classifier: nn.Module) -> None:
        super().__init__()
        self.transformers = nn.ModuleList(transformers)
        self.classifier = classifier

    def spatial_transformers(self) -> list[SpatialTransformer]:
        """Return the transformers, in order."""
        return [module for module in self.transformers if isinstance(module, SpatialTransformer)]

    def classifier_input(self, images: Tensor) -> Tensor:
        """Return the warped images (B, transformers * C, H, W)."""
        outputs = [transformer(images) for transformer in self.spatial_transformers()]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.classifier(self.classifier_input(images))


class FrontEndNet(nn.Module):
    """A classifier behind a front end other than a transformer: a resize (FCN, CNN) or a deformable convolution (DCN)."""

    def __init__(self, front: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.front = front
        self.classifier = classifier

    def classifier_input(self, images: Tensor) -> Tensor:
        """Return the output of the front end."""
        return self.front(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.classifier(self.front(images))


# --- from the configuration -------------------------------------------------------------------------------------------

Model = FcnModel | CnnModel | StFcnModel | StCnnModel | DcnModel
Net = FrontEndNet | SpatialTransformerNet


def build_net(model: Model, *, transform: str, canvas: int, channels: int = 1, classes: int = 10) -> Net:
    """Build the net of `model` for inputs of `channels` x `canvas` x `canvas`.

    Raises ConfigError when no width gives the wanted number of weights and ValueError when the input is too small for the net.
    """
    builder = _NetBuilder(model, transform, canvas, channels, classes)
    return builder.net(builder.width())


def has_transformer(model: Any) -> bool:
    """Return True if the model has a spatial transformer, so that `transform` applies."""
    return isinstance(model, TransformerModel)


def parameter_groups(net: Net, *, localisation_lr: float = 1.0) -> Iterator[dict[str, Any]]:
    """Yield groups for `engine.optim.build_optimizer`: the front end, which predicts transformations or offsets, and the rest."""
    front = net.transformers if isinstance(net, SpatialTransformerNet) else net.front
    yield {"params": list(front.parameters()), "lr_scale": localisation_lr}
    yield {"params": list(net.classifier.parameters())}


class _NetBuilder:
    """Builds a configured net at any width: filters of a CNN, units of an FCN, channels of DCN's offset net."""

    def __init__(self, model: Model, transform: str, canvas: int, channels: int, classes: int) -> None:
        self.model, self.transform = model, transform
        self.canvas, self.channels, self.classes = canvas, channels, classes

    def width(self) -> int:
        model = self.model
        if isinstance(model, DcnModel):
            if model.width:
                return model.width
            twin = StCnnModel(filters=model.filters, side=model.side)
            target = count_parameters(
                _NetBuilder(twin, "affine", self.canvas, self.channels, self.classes).net(model.filters)
            )
            return nearest_width(self.net, target, key=f"model.width=0: ST-CNN has {target:,} weights")
        if model.parameters:
            return nearest_width(self.net, model.parameters, key=f"model.parameters={model.parameters}")
        return model.filters if isinstance(model, CnnModel | StCnnModel) else model.units

    def net(self, width: int) -> Net:
        model = self.model
        if isinstance(model, DcnModel):
            front = nn.Sequential(Resize(model.side), DeformableFront(self.channels, width=width))
            return FrontEndNet(front, self._convolutional(model.side, self.channels, model.filters))
        if isinstance(model, TransformerModel):
            transformers = [self._transformer(model) for _ in range(model.transformers)]
            return SpatialTransformerNet(
                transformers, self._classifier(model.side, self.channels * model.transformers, width)
            )
        side = model.side or self.canvas
        front = Resize(side) if side != self.canvas else nn.Identity()
        return FrontEndNet(front, self._classifier(side, self.channels, width))

    def _classifier(self, side: int, channels: int, width: int) -> nn.Module:
        if isinstance(self.model, CnnModel | StCnnModel):
            return self._convolutional(side, channels, width)
        return FullyConnectedNet(channels=channels, side=side, units=width, classes=self.classes)

    def _convolutional(self, side: int, channels: int, filters: int) -> nn.Module:
        return ConvolutionalNet(channels=channels, side=side, filters=filters, classes=self.classes)

    def _transformer(self, model: TransformerModel) -> SpatialTransformer:
        make_localisation = convolutional if isinstance(model, StCnnModel) else fully_connected
        localisation, features = make_localisation(self.channels, self.canvas)
        # The paper halves the transformer's output on its larger canvases. `model.side` says to which size: it is half the canvas
        # at `scale=paper`, but for CNN on RTS, whose convolutions do not fit into half of 42.
        factor = 2 if model.antialias and self.canvas > SIDE else 1
        size = (model.side * factor, model.side * factor)
        return SpatialTransformer(
            localisation=localisation,
            features=features,
            grid=make_grid(self.transform, size, control_points=model.control_points),
            sampler=model.sampler,
            padding=model.padding,
            antialias=factor,
        )


def nearest_width(build: Callable[[int], nn.Module], target: int, *, key: str) -> int:
    """Find the width at which `build(width)` has the number of weights nearest to `target`; the number must grow with the width.

    Raises ConfigError, whose message begins with `key`, when width 1 has more than twice as many already or `MAX_WIDTH` too few.
    """
    minimum = count_parameters(build(1))
    if minimum > 2 * target:
        raise ConfigError(f"{key}: the narrowest such net has {minimum:,} weights already")
    low, high = 1, 2
    while count_parameters(build(high)) < target:
        low, high = high, 2 * high
        if high > MAX_WIDTH:
            raise ConfigError(
                f"{key}: a net of width {MAX_WIDTH} has only {count_parameters(build(MAX_WIDTH)):,} weights"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_parameters(build(middle)) < target else (low, middle)
    return min((low, high), key=lambda width: abs(count_parameters(build(width)) - target))
