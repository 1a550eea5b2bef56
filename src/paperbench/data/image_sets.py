"""Labelled images in memory, and the configurations of their data sets. Imports no torch.

Images of one class each, folders of classes, numbers of several digits, photographs of fine-grained classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from paperbench.config.schema import (
    NO_EFFECT,
    DataRoot,
    FolderPath,
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


# --- one class for each image -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One split of a data set, on the host until somebody moves it.

    images: (N, H, W) grey or (N, C, H, W), uint8, 0 is black; of folders of photographs that are too many for the memory a
    `data.photographs.PhotographStore`, which is indexed alike. labels: (N,) int64, positions in `classes`; -1 for an image
    without a class.
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
        return self._part(slice(count))

    def split(self, count: int) -> tuple[ImageSet, ImageSet]:
        """All but the last `count` images, and these; `count` is between 1 and the number of images less 1."""
        return self._part(slice(-count)), self._part(slice(-count, None))

    def _part(self, part: slice) -> ImageSet:
        return ImageSet(images=self.images[part], labels=self.labels[part], classes=self.classes, name=self.name)


def shared_images(train: ImageSet, test: ImageSet) -> dict[str, int]:
    """Return a count with its words: test images that are equal to a training image in every pixel. Empty where there is none."""
    known = {image.tobytes() for image in train.images.numpy()}
    count = sum(image.tobytes() in known for image in test.images.numpy())
    same_size = train.images.shape[1:] == test.images.shape[1:]
    words = "test: images that are in the training split too, so that numbers are better than on new ones"
    return {words: count} if count and same_size else {}


@dataclass(kw_only=True)
class ImageSetConfig(Schema):
    """Settings of every set of labelled images."""

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


# --- folders of classes -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class FoldersConfig(ImageSetConfig):
    """Folders of classes: `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (or `val`, `valid`), or one level of `CLASS/*.jpg`.

    `max_train_images` and `max_test_images` take images that are spread over a split, and so over its classes.
    """

    name: Literal["folders"] = "folders"
    root: DataRoot = None
    side: Annotated[int, Field(ge=8)] = 64
    """Side of the images in pixels: the middle square of each, resized."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of every class that is held back where there is no `test` folder."""
    split_seed: NonNegativeInt = 0
    """Of the images that are held back: the split stays the same when the run's seed changes."""
    exif: Literal["apply", "ignore"] = "apply"
    """Photographs that a camera stored turned: shown upright, or as they are stored."""
    cache_mb: Annotated[NonNegativeInt, NO_EFFECT] = 1024
    """Memory for resized images, in MiB; those beyond it are decoded anew at each use, with the same result."""


@dataclass(kw_only=True)
class FoldersData(FoldersConfig):
    """Folders of classes, in colour or grey."""

    colour: bool = True
    """False takes their grey levels: one channel instead of three."""


@dataclass(kw_only=True)
class TransferFoldersData(FoldersData):
    """Folders of classes, and pictures without a class that a student learns from."""

    unlabelled: FolderPath = ""
    """Folder of pictures without classes: the transfer set, whose targets are the teacher's alone. Empty: the training images."""


# --- numbers of several digits ----------------------------------------------------------------------------------------


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
    """Return the margin around a number on images of `size` pixels, as a share of its box: 0.3 up to 64, and 1.6 above."""
    return 0.3 if size <= 64 else 1.6


@dataclass(kw_only=True)
class NumbersConfig(Schema):
    """Settings of every set of numbers."""

    size: Annotated[int, Field(ge=16)] = 64
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
        """Return `context`, or the default for the size."""
        return self.context if self.context is not None else usual_context(self.size)


NumbersData = Annotated[GeneratedNumbers | SvhnData, Field(discriminator="name")]


# --- fine-grained classes ---------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class FineGrainedConfig(Schema):
    """Settings of every set of fine-grained classes of a known layout."""

    size: Annotated[int, Field(ge=32)] = 448
    """Side of the inputs in pixels. Images are stored an eighth larger, for random crops in training."""
    max_train_images: NonNegativeInt = 0
    """Use only some images of the training split, spread over it; 0 is all of them."""
    max_test_images: NonNegativeInt = 0


@dataclass(kw_only=True)
class CubData(FineGrainedConfig):
    """Caltech-UCSD Birds-200-2011: `CUB_200_2011` as the archive unpacks."""

    name: Literal["cub"] = "cub"
    root: DataRoot = None


@dataclass(kw_only=True)
class PartsData(FineGrainedConfig):
    """Generated images whose class two small parts show in different places; nothing is read from a data folder."""

    name: Literal["parts"] = "parts"
    train_images: PositiveInt = 3000
    test_images: PositiveInt = 500
    data_seed: NonNegativeInt = 0
    """Seed of the images: the data stay the same when the run's seed changes."""


BirdData = Annotated[PartsData | CubData | FoldersConfig, Field(discriminator="name")]
