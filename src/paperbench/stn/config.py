"""The keys of the spatial transformer tasks. Defaults are the paper's; `conf/` says where an experiment departs from them.

Section numbers are those of Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", arXiv 1506.02025v3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from paperbench.config.schema import (
    CIRCUMSTANTIAL,
    OR_NAME,
    FilePath,
    Formerly,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Schema,
    TrainConfig,
)
from paperbench.data.image_sets import BirdData, DigitsData, GeneratedNumbers, MnistData, NumbersData, PartsData

DigitData = Annotated[DigitsData | MnistData, Field(discriminator="name")]
Distortion = Literal["none", "r", "rts", "p", "e", "tc"]
Transform = Literal["affine", "attention", "similarity", "projective", "tps"]
Backbone = Literal["small", "resnet18", "resnet50", "squeezenet1_1"]


# --- models of the digit experiments ----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class PlainModel(Schema):
    """Keys of the nets without a transformer."""

    side: NonNegativeInt = 0
    """The canvas is resized to this side in front of the net; 0 leaves it as it is."""
    parameters: NonNegativeInt = 0
    """Number of weights of the whole net, met by the nearest width; 0 keeps the stated width."""


@dataclass(kw_only=True)
class TransformerModel(Schema):
    """Keys of the nets with transformers."""

    side: Annotated[int, Field(ge=2)] = 28
    """Side of a transformer's output."""
    antialias: bool = True
    """On canvases larger than a digit, sample at twice that side and average over 2x2 (A.4)."""
    transformers: PositiveInt = 1
    """In parallel, each with a localisation net of its own."""
    control_points: Annotated[int, Field(ge=2, le=10)] = 4
    """Of `transform=tps`, on a side."""
    sampler: Literal["bilinear", "bicubic"] = "bilinear"
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    localisation_lr: NonNegativeFloat = 1.0
    """Learning rate of the localisation nets, as a multiple of `optim.lr`."""
    parameters: NonNegativeInt = 0
    """Number of weights of the whole net, met by the nearest width of the classifier; 0 keeps the stated width."""


@dataclass(kw_only=True)
class FcnModel(PlainModel):
    """Two fully connected hidden layers."""

    name: Literal["fcn"] = "fcn"
    units: PositiveInt = 256


@dataclass(kw_only=True)
class CnnModel(PlainModel):
    """9x9 and 7x7 convolutions."""

    name: Literal["cnn"] = "cnn"
    filters: PositiveInt = 64


@dataclass(kw_only=True)
class StFcnModel(TransformerModel):
    """A transformer in front of FCN."""

    name: Literal["st-fcn"] = "st-fcn"
    units: PositiveInt = 256


@dataclass(kw_only=True)
class StCnnModel(TransformerModel):
    """A transformer in front of CNN."""

    name: Literal["st-cnn"] = "st-cnn"
    filters: PositiveInt = 64


@dataclass(kw_only=True)
class DcnModel(Schema):
    """A deformable convolution in front of CNN, with as many weights as ST-CNN with the affine transformer."""

    name: Literal["dcn"] = "dcn"
    filters: PositiveInt = 64
    side: Annotated[int, Field(ge=2)] = 28
    """The canvas is resized to this side in front of the deformable convolution."""
    width: NonNegativeInt = 0
    """Channels of the offset net; 0 chooses them so that the whole net has as many weights as ST-CNN."""
    localisation_lr: NonNegativeFloat = 1.0
    """Learning rate of the offset net, as a multiple of `optim.lr`."""


DigitModel = Annotated[FcnModel | CnnModel | StFcnModel | StCnnModel | DcnModel, Field(discriminator="name")]
AdditionModel = Annotated[FcnModel | CnnModel | StFcnModel, Field(discriminator="name")]


# --- tasks on digits --------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class DigitEvaluation(Schema):
    """The fixed test set, and the figures."""

    seed: NonNegativeInt = 0
    """Of the distortions of the test set: it stays the same when the run's seed changes."""
    batch_size: PositiveInt = 1000
    pictures: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 8
    """Test images drawn with their grid and their warp."""


@dataclass(kw_only=True)
class DigitValidation(Schema):
    """Training images held back, so that a setting can be chosen without the test set."""

    images: NonNegativeInt = 0
    """The last of the training images: not trained on, and scored as `validation/*` in place of the test set. 0 holds none back."""


@dataclass(kw_only=True)
class StnMnist(TrainConfig):
    """Task `stn-mnist` (section 4.1, table 1)."""

    distortion: Distortion = "rts"
    transform: Transform = "affine"
    data: DigitData = field(default_factory=DigitsData)
    model: DigitModel = field(default_factory=StCnnModel)
    validation: DigitValidation = field(default_factory=DigitValidation)
    evaluation: DigitEvaluation = field(default_factory=DigitEvaluation)


@dataclass(kw_only=True)
class StnAddition(TrainConfig):
    """Task `stn-addition` (A.1, table 4): the sum of two digits, each distorted in a channel of its own."""

    distortion: Distortion = "rts"
    transform: Transform = "affine"
    data: DigitData = field(default_factory=DigitsData)
    model: AdditionModel = field(default_factory=lambda: StFcnModel(transformers=2))
    validation: DigitValidation = field(default_factory=DigitValidation)
    evaluation: DigitEvaluation = field(default_factory=DigitEvaluation)


@dataclass(kw_only=True)
class EncoderConfig(Schema):
    """The digit CNN whose three layers encode a window (A.2)."""

    filters: PositiveInt = 64
    samples: PositiveInt = 256_000
    """Training digits of the encoder, before the localisation begins."""
    distortion: Literal["none", "r", "p", "e"] = "none"
    """Of those digits, 28x28."""
    batch_size: PositiveInt = 256
    lr: Annotated[float, Field(gt=0)] = 2e-3


@dataclass(kw_only=True)
class StnColocalise(TrainConfig):
    """Task `stn-colocalise` (A.2, table 5): find the common object of a set of images, without labels."""

    clutter: NonNegativeInt = 16
    """Patches of other digits around each digit; 0 is the paper's T, 16 its TC."""
    canvas: Annotated[int, Field(ge=40)] = 84
    images: Annotated[int, Field(ge=2)] = 100
    """Of one class, all of them in every step."""
    digits: Annotated[tuple[Annotated[int, Field(ge=0, le=9)], ...], Field(min_length=1)] = tuple(range(10))
    """Classes, each localised by itself."""
    margin: NonNegativeFloat = 1.0
    """Alpha of the triplet objective."""
    attraction: NonNegativeFloat = 0.3
    """Weight of the distance between the windows of two images in the objective; the paper's is 1."""
    initial_scale: Annotated[float, Field(gt=0, le=1), Formerly("start")] = 1.0
    """Scale of the window at the start of training; 1 is the whole image."""
    min_scale: Annotated[float, Field(gt=0, le=1), Formerly("smallest")] = 0.3
    """Least scale of a window."""
    search_weight: Annotated[NonNegativeFloat, Formerly("coarse")] = 300.0
    """Weight of the distance from the windows of a search over a grid of positions; 0 is the paper's objective alone."""
    data: DigitData = field(default_factory=DigitsData)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    evaluation: DigitEvaluation = field(default_factory=DigitEvaluation)


# --- house numbers and birds ------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class PictureEvaluation(Schema):
    """Scoring of the test set, and the figures."""

    batch_size: PositiveInt = 128
    pictures: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 8
    """Test images drawn with their windows."""


@dataclass(kw_only=True)
class HouseNumberModel(Schema):
    """CNN, ST-CNN Single (one transformer, on the input) or ST-CNN Multi (in front of each of the first four convolutions)."""

    name: Literal["svhn-cnn", "svhn-st-single", "svhn-st-multi"] = "svhn-st-multi"
    filters: Annotated[float, Field(gt=0, le=4)] = 1.0
    """A factor on the paper's numbers of filters, 48 to 192."""
    hidden: PositiveInt = 3072
    """Width of the two fully connected layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    """Values beyond the image that transformers sample."""
    localisation_lr: NonNegativeFloat = 0.1
    """Learning rate of the localisation nets, as a multiple of `optim.lr`."""


@dataclass(kw_only=True)
class StnSvhn(TrainConfig):
    """Task `stn-svhn` (section 4.2, table 2)."""

    data: NumbersData = field(default_factory=GeneratedNumbers)
    model: HouseNumberModel = field(default_factory=HouseNumberModel)
    evaluation: PictureEvaluation = field(default_factory=PictureEvaluation)


@dataclass(kw_only=True)
class PartsModel(Schema):
    """A CNN on the whole image, or 2 or 4 windows with a CNN each, placed by one localisation net."""

    name: Literal["parts"] = "parts"
    windows: Literal[0, 2, 4] = 2
    """0 is the plain CNN."""
    backbone: Backbone = "resnet50"
    """Of every window's net and of the localisation net; the paper's Inception with batch normalisation is not in torchvision."""
    weights: Annotated[FilePath, OR_NAME] | None = None
    """None, a file with a state dict, or `DEFAULT` for torchvision's ImageNet weights."""
    side: Annotated[int, Field(ge=32)] = 224
    """Of the nets' inputs: windows are sampled at this side, and the whole image for the localisation net."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.7
    localisation_lr: NonNegativeFloat = 1e-4
    """Learning rate of the localisation net, as a multiple of `optim.lr`."""


@dataclass(kw_only=True)
class StnBirds(TrainConfig):
    """Task `stn-birds` (section 4.3, table 3)."""

    data: BirdData = field(default_factory=PartsData)
    model: PartsModel = field(default_factory=PartsModel)
    evaluation: PictureEvaluation = field(default_factory=PictureEvaluation)
