"""Labelled images of one size, and the configurations of the digits that several papers use. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from paperbench.config.schema import (
    DataRoot,
    NonNegativeInt,
    Schema,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One split of a data set, on the host until somebody moves it.

    images: (N, H, W) grey or (N, C, H, W), uint8, 0 is black. labels: (N,) int64, positions in `classes`.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> ImageSet:
        """The first `count` images; 0 is all of them."""
        if count == 0 or count >= len(self):
            return self
        return ImageSet(images=self.images[:count], labels=self.labels[:count], classes=self.classes, name=self.name)


@dataclass(kw_only=True)
class ImageSetConfig(Schema):
    """What every set of labelled images has."""

    max_train_images: NonNegativeInt = 0
    """Use only the first images of the training split; 0 is all of them."""
    max_test_images: NonNegativeInt = 0


@dataclass(kw_only=True)
class DigitsData(ImageSetConfig):
    """scikit-learn's handwritten digits, enlarged to 28x28; nothing is read from a data folder."""

    name: Literal["digits"] = "digits"


@dataclass(kw_only=True)
class MnistData(ImageSetConfig):
    """MNIST in torchvision's layout: `MNIST/raw/*-ubyte`, with or without `.gz`."""

    name: Literal["mnist"] = "mnist"
    root: DataRoot = None
