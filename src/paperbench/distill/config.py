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
from paperbench.data.image_sets import DigitsData, ImageSetConfig, MnistData

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
    """Where the digits come from: scikit-learn's, which need no download, or MNIST below `data.root`."""
    root: DataRoot = None
    train_images: PositiveInt = 20_000
    test_images: PositiveInt = 5_000
    data_seed: NonNegativeInt = 0
    """Seed of the pairs: the data stay the same when the run's seed changes."""


DataConfig = Annotated[DigitsData | MnistData | EmnistData | Cifar100Data | DigitPairsData, Field(discriminator="name")]


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


def _teacher_net() -> NetConfig:
    return NetConfig(width=1200, dropout=0.5, input_dropout=0.2, max_norm=3.8729833)


@dataclass(kw_only=True)
class TeachingConfig(Schema):
    """How a teacher is trained where none is given (section 3): dropout, constrained weights, jittered images.

    The paper refers to the dropout papers for the numbers: half of the hidden units, a fifth of the pixels, a squared norm of 15.
    """

    net: NetConfig = field(default_factory=_teacher_net)
    optim: OptimConfig = field(default_factory=OptimConfig)
    samples: PositiveInt = 1000
    batch_size: PositiveInt = 100
    jitter: NonNegativeInt = 2
    """Images are shifted by up to so many pixels in each direction."""
    members: PositiveInt = 1
    """Teachers in the ensemble; they differ in their seeds."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over the ensemble."""
    seed: NonNegativeInt | None = None
    """Null is the run's own seed. A fixed one gives students of several seeds the same teacher."""


# --- the student's data -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class TransferConfig(Schema):
    """The images that the student learns from; the teacher has seen all of the training set."""

    omit: Annotated[tuple[ClassName, ...], BeforeValidator(_several)] = ()
    """Classes whose images the student does not see."""
    only: Annotated[tuple[ClassName, ...], BeforeValidator(_several)] = ()
    """The only classes whose images it sees."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the images left that it sees, the same of every class (section 6 takes 3 %)."""
    seed: NonNegativeInt = 0
    """Of the choice of images: the same for runs of all seeds."""


@dataclass(kw_only=True)
class ValidationConfig(Schema):
    """Training images held back from students: what the bias of an omitted class and an early stop may be chosen on."""

    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the training set, the same of every class; teachers see them. 0 holds none back."""
    seed: NonNegativeInt = 0


@dataclass(kw_only=True)
class BaselineConfig(Schema):
    """The student trained on hard targets alone, which the distilled one is held against."""

    train: bool = True
    images: Literal["all", "transfer"] = "all"
    """What it learns from: the whole training set, or what the distilled student sees."""
    early_stopping: bool = False
    """Keep the weights that were best on the validation images, at the evaluations every `train.evaluate_every` steps."""


@dataclass(kw_only=True)
class EvaluationConfig(Schema):
    """How nets are scored; in float32."""

    batch_size: PositiveInt = 1000
    examples: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 8
    """Test images whose hard and soft targets are drawn."""


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Distill(TrainConfig):
    """Task `distill`: teacher, baseline student, distilled student. `model`, `optim` and `train` are the students'."""

    data: DataConfig = field(default_factory=DigitsData)
    model: NetConfig = field(default_factory=NetConfig)
    temperature: PositiveFloat = 20.0
    targets: Literal["soft", "logits"] = "soft"
    """`soft`: the teacher's probabilities at `temperature`. `logits`: its logits, the limit of high temperatures (section 2.1)."""
    soft_weight: NonNegativeFloat = 1.0
    hard_weight: NonNegativeFloat = 0.1
    """Weight of the cross-entropy with the labels; "considerably lower" than that of the soft targets (section 2)."""
    teacher: Annotated[tuple[Annotated[AnyPath, OR_NAME, CONTENT_COUNTS], ...], BeforeValidator(_several)] = ()
    """Teachers that are trained already: runs of this task, state dicts, or stored logits. Empty trains one, or finds it."""
    teacher_mean: float = 0.0
    """Of state dicts that are no run's: what their training subtracted from pixels in 0..1 …"""
    teacher_std: PositiveFloat = 1.0
    """… and what it then divided them by."""
    teaching: TeachingConfig = field(default_factory=TeachingConfig)
    jitter: NonNegativeInt = 0
    """Pixels by which students' images are shifted at most, with the soft targets of the image in its place (section 3: 0)."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(kw_only=True)
class ClusterConfig(Schema):
    """The predictions that decide which classes are confusable; no label is used."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training images that they are made for."""
    temperature: PositiveFloat = 1.0
    """Of the predictions (the paper: 1). A generalist that is sure of nearly all of its training images shows at T = 1 hardly any
    confusion, and k-means then separates single classes from all the rest."""


@dataclass(kw_only=True)
class SpecialistConfig(Schema):
    """Specialists on classes that the generalist confuses (section 5)."""

    count: PositiveInt = 8
    size: NonNegativeInt = 0
    """Classes of a specialist: the nearest to its cluster's centre, so that specialists overlap. 0: the cluster itself."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    samples: PositiveInt = 1000
    """Training samples that each specialist sees."""
    batch_size: Annotated[int, Field(ge=2, multiple_of=2)] = 100
    """Half of it from the special classes, half from all others."""
    soft_weight: NonNegativeFloat = 0.0
    """Weight of the generalist's soft targets beside the labels (section 6.1), against forgetting."""
    temperature: PositiveFloat = 2.0
    """Of these soft targets."""
    top: PositiveInt = 1
    """Classes of the generalist that call the specialists which know them (section 5.5: 1)."""


@dataclass(kw_only=True)
class Specialists(TrainConfig):
    """Task `distill-specialists`. `model`, `optim` and `train` are the generalist's."""

    data: DataConfig = field(default_factory=DigitPairsData)
    model: NetConfig = field(default_factory=NetConfig)
    jitter: NonNegativeInt = 0
    """Pixels by which training images are shifted at most."""
    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    specialists: SpecialistConfig = field(default_factory=SpecialistConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
