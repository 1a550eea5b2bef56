"""Images with numbers of several digits on them, and the configurations of their data sets. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from paperbench.config.schema import (
    DataRoot,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Schema,
)

if TYPE_CHECKING:
    from torch import Tensor

LONGEST: Final = 5
"""Digits of the longest number that is used."""
NONE: Final = 10
"""Label of a place behind the last digit."""

Side = Annotated[int, Field(ge=16)]


@dataclass(frozen=True, kw_only=True)
class NumberSet:
    """images: (N, 3, S, S) uint8. labels: (N, 5) int64, the digits from the left, then `NONE`.

    left_out: images not used, by reason.
    """

    images: Tensor
    labels: Tensor
    name: str
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.labels)


def usual_context(size: int) -> float:
    """How much is shown around a number on images of `size` pixels, as a share of its box: 0.3 up to 64, and 1.6 above."""
    return 0.3 if size <= 64 else 1.6


@dataclass(kw_only=True)
class NumbersConfig(Schema):
    """What every set of numbers has."""

    size: Side = 64
    """Side of the images in pixels."""
    max_train_images: NonNegativeInt = 0
    """Use only the first images of the training split; 0 is all of them."""
    max_test_images: NonNegativeInt = 0


@dataclass(kw_only=True)
class GeneratedNumbers(NumbersConfig):
    """House numbers made of handwritten digits; nothing is read from a data folder."""

    name: Literal["numbers"] = "numbers"
    train_images: PositiveInt = 8000
    test_images: PositiveInt = 1000
    data_seed: NonNegativeInt = 0
    """Seed of the images: the data stay the same when the run's seed changes."""


@dataclass(kw_only=True)
class SvhnData(NumbersConfig):
    """Street View House Numbers, full numbers: `svhn/{train,extra,test}` with their PNG files and `digitStruct.mat`."""

    name: Literal["svhn"] = "svhn"
    root: DataRoot = None
    extra: bool = True
    """Train on the additional images as well: about 200,000 more, as the paper does."""
    context: NonNegativeFloat | None = None
    """How much is shown around the number, as a share of its box; null is 0.3 up to 64 pixels and 1.6 above, where the paper
    crops less tightly."""

    def margin(self) -> float:
        """`context`, decided."""
        return self.context if self.context is not None else usual_context(self.size)


NumbersData = Annotated[GeneratedNumbers | SvhnData, Field(discriminator="name")]
