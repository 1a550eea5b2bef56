"""The classifiers of the digit experiments (appendix A.4) and what stands in front of them.

Each has three layers with weights. `channels` x `side` x `side` is the input, `classes` the output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.stn.localisation import channels_last, features_of
from paperbench.stn.one_channel import OneChannelConv2d
from paperbench.stn.transformer import SpatialTransformer


class FullyConnectedNet(nn.Module):
    """FCN: two hidden layers of `units`."""

    def __init__(self, *, channels: int, side: int, units: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels * side * side, units)
        self.second = nn.Linear(units, units)
        self.classifier = nn.Linear(units, classes)

    def activations(self, images: Tensor) -> tuple[Tensor, ...]:
        """What each of the three layers gives, (B, ...) each; the last are the logits."""
        first = self.first(images.flatten(1)).relu()
        second = self.second(first).relu()
        return first, second, self.classifier(second)

    def forward(self, images: Tensor) -> Tensor:
        """(B, classes) logits."""
        return self.activations(images)[-1]


class ConvolutionalNet(nn.Module):
    """CNN: 9x9 and 7x7 convolutions without padding, each with 2x2 max pooling, and a fully connected layer.

    Pooling comes before the ReLU: the result is the same, on a quarter of the values. Activations are kept with their channels
    last: max pooling on a CPU is fifteen times as fast that way.
    """

    def __init__(self, *, channels: int, side: int, filters: int, classes: int) -> None:
        super().__init__()
        self.first = OneChannelConv2d(filters, 9) if channels == 1 else nn.Conv2d(channels, filters, 9)
        self.second = nn.Conv2d(filters, filters, 7)
        body = nn.Sequential(self.first, nn.MaxPool2d(2), self.second, nn.MaxPool2d(2))
        self.classifier = nn.Linear(features_of(body, channels, side), classes)

    def activations(self, images: Tensor) -> tuple[Tensor, ...]:
        """What each of the three layers gives, (B, ...) each; the last are the logits."""
        first = F.max_pool2d(self.first(channels_last(images)), 2).relu()
        second = F.max_pool2d(self.second(first), 2).relu()
        return first, second, self.classifier(second.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, classes) logits."""
        return self.activations(images)[-1]


class Resized(nn.Module):
    """Brings images to `side` x `side`, bilinear, with a low-pass filter where they shrink."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, side, side)."""
        if images.shape[-2:] == (self.side, self.side):
            return images
        return F.interpolate(images, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)


class TransformedNet(nn.Module):
    """Transformers side by side on the input, their outputs stacked as channels for the classifier (ST-FCN, ST-CNN)."""

    def __init__(self, transformers: Sequence[SpatialTransformer], classifier: nn.Module) -> None:
        super().__init__()
        self.transformers = nn.ModuleList(transformers)
        self.classifier = classifier

    def each(self) -> list[SpatialTransformer]:
        """The transformers, in order."""
        return [module for module in self.transformers if isinstance(module, SpatialTransformer)]

    def warped(self, images: Tensor) -> Tensor:
        """(B, transformers * C, H, W): what the classifier sees."""
        outputs = [transformer(images) for transformer in self.each()]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, classes) logits."""
        return self.classifier(self.warped(images))


class FrontedNet(nn.Module):
    """Something without a transformer in front of a classifier: a resize (FCN, CNN), a deformable convolution."""

    def __init__(self, front: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.front = front
        self.classifier = classifier

    def warped(self, images: Tensor) -> Tensor:
        """What the classifier sees."""
        return self.front(images)

    def forward(self, images: Tensor) -> Tensor:
        """(B, classes) logits."""
        return self.classifier(self.front(images))
