"""The keys every experiment has. The schema of a paper's package inherits from `RunConfig` (or `TrainConfig`) and adds its own.

Plain dataclasses, validated by pydantic: ranges are part of the type, so a value out of range is refused with the same
message, at the same moment, as a misspelt key. Nothing here imports torch or Hydra.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from paperbench.config.marks import ABSENT_BY_DEFAULT as ABSENT_BY_DEFAULT
from paperbench.config.marks import AS_WRITTEN as AS_WRITTEN
from paperbench.config.marks import CIRCUMSTANTIAL as CIRCUMSTANTIAL
from paperbench.config.marks import CONTENT_COUNTS as CONTENT_COUNTS
from paperbench.config.marks import NO_EFFECT as NO_EFFECT
from paperbench.config.marks import OR_NAME as OR_NAME
from paperbench.config.marks import AnyPath as AnyPath
from paperbench.config.marks import DataRoot as _DataRoot
from paperbench.config.marks import FilePath as FilePath
from paperbench.config.marks import FolderPath as FolderPath
from paperbench.config.marks import Formerly as Formerly

STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
"""Unknown keys are mistakes, and so are NaN and infinity."""

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
DataRoot = Annotated[FolderPath | None, _DataRoot(), CIRCUMSTANTIAL]
"""Type of `data.root`."""


class Schema:
    """Base of every section of a configuration: a plain dataclass that pydantic validates strictly."""

    __pydantic_config__ = STRICT


@dataclass(kw_only=True)
class OutputConfig(Schema):
    """Where runs are written."""

    root: Annotated[FolderPath, AS_WRITTEN, NO_EFFECT] = "outputs"


@dataclass(kw_only=True)
class RunConfig(Schema):
    """What every run has, whatever its task."""

    experiment: str = ""
    task: str = ""
    scale: Literal["smoke", "short", "paper"] = "short"
    preset: Annotated[str | None, Formerly("recipe")] = None
    """Folder of `conf/preset/`: how long and how large the experiment is at each scale, on each data set."""
    seed: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 0
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="one of auto, cpu, mps, cuda, cuda:N"),
        CIRCUMSTANTIAL,
    ] = "auto"
    nproc: Annotated[PositiveInt, CIRCUMSTANTIAL] = 1
    """Processes on this machine; more than one runs under torchrun."""
    threads: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 0
    """Threads of one process for operations on a CPU; 0 leaves torch's choice."""
    precision: Annotated[Literal["auto", "float32", "tf32", "bfloat16"], CIRCUMSTANTIAL] = "auto"
    """`auto` is bfloat16 where the processor or GPU has instructions for it, else float32; `tf32` rounds the factors of products
    and convolutions, on NVIDIA's GPUs alone."""
    deterministic: Annotated[bool, CIRCUMSTANTIAL, ABSENT_BY_DEFAULT] = False
    """Whether an operation that may give other bits each time ends the run, and cuDNN and cuBLAS may not choose such kernels."""
    tensorboard: Annotated[bool, NO_EFFECT] = False
    output: OutputConfig = field(default_factory=OutputConfig)
    digests: Annotated[dict[str, str], CIRCUMSTANTIAL, ABSENT_BY_DEFAULT] = field(default_factory=dict)
    """SHA-256 of what the files and runs hold that the configuration names, by key, where results depend on it
    (`config.digests`). The program fills it in."""


@dataclass(kw_only=True)
class OptimConfig(Schema):
    """Optimizer and learning-rate schedule; the rate is a pure function of the step."""

    name: Literal["adamw", "sgd", "adagrad"] = "sgd"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    decay_norm_and_bias: bool = True
    """Whether weight decay reaches biases and normalisation layers as well."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    backbone_lr_scale: NonNegativeFloat = 1.0
    """Learning rate of pretrained layers, as a multiple of `lr`."""
    schedule: Literal["constant", "cosine", "step"] = "step"
    warmup_steps: NonNegativeInt = 0
    milestones: tuple[Fraction, ...] = ()
    """`step` schedule: fractions of the training at which the rate is multiplied by `gamma`."""
    gamma: PositiveFloat = 0.1


@dataclass(kw_only=True)
class LoopConfig(Schema):
    """How long to train and how often to write down what happens."""

    samples: PositiveInt = 1000
    """Training samples seen in all; steps = ceil(samples / batch_size)."""
    batch_size: PositiveInt = 1
    """Of one optimizer step, over all processes."""
    clip_norm: NonNegativeFloat = 0.0
    """Largest norm of the gradient; 0 leaves gradients as they are."""
    log_every: Annotated[PositiveInt, NO_EFFECT] = 20
    evaluate_every: NonNegativeInt = 0
    """Steps between evaluations; 0 evaluates at the end only."""
    checkpoint_every: Annotated[PositiveInt, NO_EFFECT] = 200
    """Steps between checkpoints."""
    checkpoint_seconds: Annotated[NonNegativeFloat, NO_EFFECT] = 120.0
    """Longest time without a checkpoint, whatever `checkpoint_every` says; longer where saving would take over 1 % of the time. 0
    leaves it to the steps."""
    prefetch: Annotated[NonNegativeInt | None, NO_EFFECT] = None
    """Batches prepared ahead of the step in a background thread; changes no result. Null is 2 on a GPU and 0 on a CPU."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the training."""
        return -(-self.samples // self.batch_size)


@dataclass(kw_only=True)
class TrainConfig(RunConfig):
    """What every training run has."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
