"""The nets for house numbers (section 4.2, appendix A.5): CNN, ST-CNN Single and ST-CNN Multi.

Eight 5x5 convolutions with pooling after the first, third, fifth and eighth, two fully connected layers, and a classifier for each
of five places. The paper does not state the strides of the pools; with 2 throughout, 64 pixels become 4x4x192 = 3,072 numbers, the
width of the layers after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.data.image_sets import LONGEST, NONE
from paperbench.stn.config import HouseNumberModel
from paperbench.stn.grids import Affine
from paperbench.stn.layers import channels_last
from paperbench.stn.transformer import SpatialTransformer, fully_connected, padded_convolutional

FILTERS = (48, 64, 128, 160, 192, 192, 192, 192)
POOLED = (0, 2, 4, 7)
"""Convolutions with 2x2 max pooling after them, counted from 0."""
TRANSFORMERS = {"svhn-cnn": 0, "svhn-st-single": 1, "svhn-st-multi": 4}
"""Number of leading convolutions with a transformer in front."""


class HouseNumberNet(nn.Module):
    """(B, 3, side, side) in 0..1 -> (B, 5, 11) logits: ten digits and no digit, for each place from the left.

    Dropout follows every layer but the first convolution and the localisation nets. Raises ValueError for a side that is too small.
    """

    def __init__(self, config: HouseNumberModel, *, side: int) -> None:
        super().__init__()
        widths = [max(1, round(width * config.filters)) for width in FILTERS]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(entering, leaving, 5, padding=2) for entering, leaving in zip([3, *widths], widths, strict=False)
        )
        self.transformers = nn.ModuleDict()
        transformers = TRANSFORMERS[config.name]
        at = side
        for number, width in enumerate([3, *widths[:-1]]):
            if number < transformers:
                single = transformers == 1
                net, features = padded_convolutional(width, at) if single else fully_connected(width, at, layers=2)
                self.transformers[str(number)] = SpatialTransformer(
                    localisation=net, features=features, grid=Affine((at, at)), padding=config.padding
                )
            at = at // 2 if number in POOLED else at
        if at < 1:
            raise ValueError(f"an input of {side}x{side} pixels is too small for four poolings")
        self.body = nn.Sequential(
            nn.Linear(widths[-1] * at * at, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )
        self.places = nn.Linear(config.hidden, LONGEST * (NONE + 1))
        self.dropout = config.dropout
        self._initialise()

    def _initialise(self) -> None:
        """Initialise after He et al. 2015: against a signal that fades over ten layers; the paper does not state its own."""
        for layer in [*self.convolutions, *self.body]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 5, 11)."""
        x = channels_last(images)
        for number, convolution in enumerate(self.convolutions):
            if str(number) in self.transformers:
                x = channels_last(self.transformers[str(number)](x))
            x = convolution(x)
            x = (F.max_pool2d(x, 2) if number in POOLED else x).relu()
            if number > 0:
                x = F.dropout(x, self.dropout, self.training)
        return self.places(self.body(x.flatten(1))).unflatten(1, (LONGEST, NONE + 1))

    def parameter_groups(self, *, localisation_lr: float) -> Iterator[dict[str, Any]]:
        """Yield groups for `engine.optim.build_optimizer`: the localisation nets with their own rate, and the rest."""
        yield {"params": list(self.transformers.parameters()), "lr_scale": localisation_lr}
        yield {"params": [p for part in (self.convolutions, self.body, self.places) for p in part.parameters()]}


def sequence_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over the places of the mean cross-entropy: logits (B, 5, 11), labels (B, 5)."""
    return LONGEST * F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def wrong_sequences(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) bool, true for numbers with any place wrong."""
    return (logits.argmax(2) != labels).any(1)


def to_number(places: Tensor) -> str:
    """Return the digits of predicted classes (5,) up to the first place without one."""
    digits: list[str] = []
    for label in places.tolist():
        if label == NONE:
            break
        digits.append(str(label))
    return "".join(digits)


def input_theta(net: HouseNumberNet, images: Tensor) -> Tensor | None:
    """Return the parameters (B, 6) of the transformer on the input; None for a net without one."""
    if "0" not in net.transformers:
        return None
    transformer = net.transformers["0"]
    assert isinstance(transformer, SpatialTransformer)
    with torch.no_grad():
        return transformer.theta(images)
