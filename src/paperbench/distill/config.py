"""The keys of the distillation tasks. Defaults are the paper's where it states them; `conf/` holds the schedules.

Section numbers are those of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from paperbench.config.schema import (
    CIRCUMSTANTIAL,
    CONTENT_COUNTS,
    OR_NAME,
    AnyPath,
    DataRoot,
    NonNegativeFloat,
    NonNegativeInt,
    OptimConfig,
    PositiveFloat,
    PositiveInt,
    Schema,
    TrainConfig,
)
from paperbench.data.image_sets import DigitsData, ImageSetConfig, MnistData, TransferFoldersData

ClassName = Annotated[str, Field(coerce_numbers_to_str=True, min_length=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


def _several(value: Any) -> Any:
    """One name is a list of one: `teacher=RUN`, `transfer.omit=3`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return ((value,) if value else ()) if isinstance(value, str) else value


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class EmnistData(ImageSetConfig):
    """EMNIST in torchvision's layout: `EMNIST/raw/emnist-<split>-*-ubyte`, with or without `.gz`."""

    name: Literal["emnist"] = "emnist"
    root: DataRoot = None
    split: Literal["balanced", "bymerge", "byclass", "letters", "digits", "mnist"] = "balanced"


@dataclass(kw_only=True)
class Cifar100Data(ImageSetConfig):
    """CIFAR-100 as its authors publish it for Python: `cifar-100-python/{train,test,meta}`."""

    name: Literal["cifar100"] = "cifar100"
    root: DataRoot = None


@dataclass(kw_only=True)
class DigitPairsData(ImageSetConfig):
    """Two different digits that overlap: 45 classes, many of them easily confused."""

    name: Literal["digit-pairs"] = "digit-pairs"
    source: Literal["digits", "mnist"] = "digits"
    """Source of the digits: scikit-learn, which needs no download, or MNIST below `data.root`."""
    root: DataRoot = None
    train_images: PositiveInt = 20_000
    test_images: PositiveInt = 5_000
    data_seed: NonNegativeInt = 0
    """Seed of the pairs: the data stay the same when the run's seed changes."""


SpecialistData = Annotated[
    DigitsData | MnistData | EmnistData | Cifar100Data | DigitPairsData, Field(discriminator="name")
]
DataConfig = Annotated[
    DigitsData | MnistData | EmnistData | Cifar100Data | DigitPairsData | TransferFoldersData,
    Field(discriminator="name"),
]


# --- nets -------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class NetConfig(Schema):
    """A net from an image to logits."""

    name: Literal["mlp", "convnet"] = "mlp"
    """`mlp`: hidden layers of ReLUs. `convnet`: blocks of a 3x3 convolution, batch normalisation, ReLU and 2x2 max pooling."""
    width: PositiveInt = 800
    """Units of every hidden layer; channels of the first block, doubled in each further one."""
    layers: PositiveInt = 2
    """Hidden layers, or blocks."""
    dropout: Dropout = 0.0
    """Of hidden units."""
    input_dropout: Dropout = 0.0
    """Of pixels."""
    max_norm: NonNegativeFloat = 0.0
    """Largest norm of the weights into one unit; 0 sets none."""


@dataclass(kw_only=True)
class TorchvisionNet(Schema):
    """A classifier of torchvision by its name. Images are normalised as for ImageNet; grey ones become three equal channels."""

    name: Literal["torchvision"] = "torchvision"
    arch: str = "resnet18"
    """Its name in `torchvision.models`."""
    weights: Annotated[AnyPath, OR_NAME, CONTENT_COUNTS] = ""
    """State dict that the training starts from: a file, or `DEFAULT` for torchvision's ImageNet weights; empty is from scratch."""
    head: Literal["keep", "new"] = "keep"
    """Last layer of `weights`: `new` replaces it by an untrained one for the classes of these data."""


AnyNet = Annotated[NetConfig | TorchvisionNet, Field(discriminator="name")]


def _teacher_net() -> NetConfig:
    return NetConfig(width=1200, dropout=0.5, input_dropout=0.2, max_norm=3.8729833)


@dataclass(kw_only=True)
class TeachingConfig(Schema):
    """How teachers are trained where `teacher` names none (section 3): dropout, constrained weights, jittered images.

    For the numbers the paper refers to the dropout papers: half of the hidden units, a fifth of the pixels, a squared norm of 15.
    """

    net: NetConfig = field(default_factory=_teacher_net)
    optim: OptimConfig = field(default_factory=OptimConfig)
    samples: PositiveInt = 1000
    batch_size: PositiveInt = 100
    jitter: NonNegativeInt = 2
    """Largest shift of an image in each direction, in pixels."""
    members: PositiveInt = 1
    """Teachers in the ensemble; they differ in their seeds."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """Quantity that is averaged over the ensemble."""
    seed: NonNegativeInt | None = None
    """Null is the seed of the run. A fixed one gives students of several seeds the same teacher."""


# --- the student's data -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class TransferConfig(Schema):
    """The transfer set: images that the student learns from. The teacher learns from the whole training set."""

    omit: Annotated[tuple[ClassName, ...], BeforeValidator(_several)] = ()
    """Classes that the transfer set omits."""
    only: Annotated[tuple[ClassName, ...], BeforeValidator(_several)] = ()
    """The only classes of the transfer set."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the remaining images, the same of every class (section 6: 3 %)."""
    seed: NonNegativeInt = 0
    """Of the random fraction: the same for runs of all seeds."""


@dataclass(kw_only=True)
class ValidationConfig(Schema):
    """Training images that no student learns from: for the bias of omitted classes and for early stopping."""

    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the training set, the same of every class; teachers learn from them. 0: no validation images."""
    seed: NonNegativeInt = 0


@dataclass(kw_only=True)
class BaselineConfig(Schema):
    """The student trained on hard targets alone, with which the distilled one is compared."""

    train: bool = True
    images: Literal["all", "transfer"] = "all"
    """Its training images: the whole training set, or the transfer set."""
    early_stopping: bool = False
    """Keep the weights with the fewest validation errors, at the evaluations every `train.evaluate_every` steps."""


@dataclass(kw_only=True)
class EvaluationConfig(Schema):
    """Evaluation of nets, in float32."""

    batch_size: PositiveInt = 1000
    examples: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 8
    """Test images whose hard and soft targets are drawn."""


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Distill(TrainConfig):
    """Task `distill`: teacher, baseline student, distilled student. `model`, `optim` and `train` are the students'."""

    data: DataConfig = field(default_factory=DigitsData)
    model: AnyNet = field(default_factory=NetConfig)
    temperature: PositiveFloat = 20.0
    targets: Literal["soft", "logits"] = "soft"
    """`soft`: the teacher's probabilities at `temperature`. `logits`: its logits, the limit of high temperatures (section 2.1)."""
    soft_weight: NonNegativeFloat = 1.0
    hard_weight: NonNegativeFloat = 0.1
    """Weight of the cross-entropy with the labels; "considerably lower" than that of the soft targets (section 2)."""
    teacher: Annotated[tuple[Annotated[AnyPath, OR_NAME, CONTENT_COUNTS], ...], BeforeValidator(_several)] = ()
    """Pretrained teachers: runs of this task, state dicts (fully connected, or a classifier of torchvision), TorchScript or ONNX
    files, or stored logits. Empty trains one, or finds it in the store."""
    teacher_mean: float | tuple[float, float, float] = 0.0
    """Normalisation of pixels in 0..1 for nets of other programs, one number or one for each channel: subtracted mean …"""
    teacher_std: PositiveFloat | tuple[PositiveFloat, PositiveFloat, PositiveFloat] = 1.0
    """… and divisor."""
    teacher_values: Literal["logits", "probabilities"] = "logits"
    """What files of logits hold; of probabilities the logarithms are taken."""
    teaching: TeachingConfig = field(default_factory=TeachingConfig)
    jitter: NonNegativeInt = 0
    """Largest shift of the students' images in pixels; soft targets are those of the unshifted image (section 3: 0)."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(kw_only=True)
class ClusterConfig(Schema):
    """The predictions whose covariance decides which classes are confusable; no label is used."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the training images that are predicted."""
    temperature: PositiveFloat = 1.0
    """Of the predictions (the paper: 1). A generalist that is certain about nearly all of its training images shows hardly any
    confusion at T = 1, and k-means then separates single classes from all others."""


@dataclass(kw_only=True)
class SpecialistConfig(Schema):
    """Specialists on classes that the generalist confuses (section 5)."""

    count: PositiveInt = 8
    size: NonNegativeInt = 0
    """Classes of a specialist: the nearest to its cluster's centre, so that specialists overlap. 0: the cluster itself."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    samples: PositiveInt = 1000
    """Training samples of each specialist."""
    batch_size: Annotated[int, Field(ge=2, multiple_of=2)] = 100
    """Half of it from the classes of the specialist, half from all others."""
    soft_weight: NonNegativeFloat = 0.0
    """Weight of the generalist's soft targets beside the labels (section 6.1), against forgetting."""
    temperature: PositiveFloat = 2.0
    """Of these soft targets."""
    top: PositiveInt = 1
    """Most likely classes of the generalist whose specialists are consulted (section 5.5: 1)."""


@dataclass(kw_only=True)
class Specialists(TrainConfig):
    """Task `distill-specialists`. `model`, `optim` and `train` are the generalist's."""

    data: SpecialistData = field(default_factory=DigitPairsData)
    model: NetConfig = field(default_factory=NetConfig)
    jitter: NonNegativeInt = 0
    """Largest shift of training images, in pixels."""
    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    specialists: SpecialistConfig = field(default_factory=SpecialistConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
