"""The nets that read house numbers (section 4.2, appendix A.5): CNN, ST-CNN Single and ST-CNN Multi.

Eight 5x5 convolutions with pooling after the first, third, fifth and eighth, two fully connected layers, and a classifier for each
of five places. The fact that pools of stride 2 throughout make 4x4x192 = 3,072 numbers of 64 pixels, the width of the layers
after them, decides what the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.data.sequences import LONGEST, NONE
from paperbench.stn.grids import Affine
from paperbench.stn.localisation import channels_last, fully_connected, house_numbers
from paperbench.stn.sampling import Padding
from paperbench.stn.transformer import SpatialTransformer

FILTERS = (48, 64, 128, 160, 192, 192, 192, 192)
POOLED = (0, 2, 4, 7)
"""Convolutions with 2x2 max pooling after them, counted from 0."""
TRANSFORMED = 4
"""ST-CNN Multi has a transformer in front of each of so many convolutions."""

Transformers = Literal["none", "single", "multi"]


class HouseNumberNet(nn.Module):
    """(B, 3, side, side) in 0..1 -> (B, 5, 11) logits: ten digits and no digit, for each place from the left.

    filters: a factor on the paper's numbers of filters. hidden: width of the fully connected layers. dropout follows every layer
    but the first convolution and the localisation nets. padding: what transformers see beyond the image.
    """

    def __init__(
        self,
        *,
        side: int,
        transformers: Transformers = "none",
        filters: float = 1.0,
        hidden: int = 3072,
        dropout: float = 0.5,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        widths = [max(1, round(width * filters)) for width in FILTERS]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(entering, leaving, 5, padding=2) for entering, leaving in zip([3, *widths], widths, strict=False)
        )
        self.transformers = nn.ModuleDict()
        at = side
        for number, width in enumerate([3, *widths[:-1]]):
            if (transformers == "single" and number == 0) or (transformers == "multi" and number < TRANSFORMED):
                look = house_numbers(width, at) if transformers == "single" else fully_connected(width, at, layers=2)
                self.transformers[str(number)] = SpatialTransformer(
                    localisation=look[0], features=look[1], grid=Affine((at, at)), padding=padding
                )
            at = at // 2 if number in POOLED else at
        if at < 1:
            raise ValueError(f"an input of {side}x{side} pixels is too small for four poolings")
        self.body = nn.Sequential(
            nn.Linear(widths[-1] * at * at, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.places = nn.Linear(hidden, LONGEST * (NONE + 1))
        self.dropout = dropout
        self._initialise()

    def _initialise(self) -> None:
        """He et al. 2015 for what ReLUs follow: with torch's default the signal fades over ten layers. The paper does not say."""
        for layer in [*self.convolutions, *self.body]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 5, 11) logits."""
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
        """Localisation nets with a rate of their own, and the rest."""
        yield {"params": list(self.transformers.parameters()), "lr_scale": localisation_lr}
        yield {"params": [p for part in (self.convolutions, self.body, self.places) for p in part.parameters()]}


def sequence_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over the places of the mean cross-entropy: logits (B, 5, 11), labels (B, 5)."""
    return LONGEST * F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) whether any place of a number was read wrongly."""
    return (logits.argmax(2) != labels).any(1)


def as_number(places: Tensor) -> str:
    """The digits of (5,) predicted classes up to the first place without one."""
    digits: list[str] = []
    for label in places.tolist():
        if label == NONE:
            break
        digits.append(str(label))
    return "".join(digits)


def theta_of_input(net: HouseNumberNet, images: Tensor) -> Tensor | None:
    """(B, 6) parameters of the transformer on the input; None for a net without one."""
    if "0" not in net.transformers:
        return None
    transformer = net.transformers["0"]
    assert isinstance(transformer, SpatialTransformer)
    with torch.no_grad():
        return transformer.theta(images)
