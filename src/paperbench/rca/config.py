"""Schemas of the tasks `rca-estimate` and `rca-scores`. Defaults are the single-atlas classifier with the paper's maximum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from paperbench.config.schema import (
    CIRCUMSTANTIAL,
    CONTENT_COUNTS,
    NO_EFFECT,
    AnyPath,
    DataRoot,
    FilePath,
    FolderPath,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    OutputConfig,
    PositiveFloat,
    PositiveInt,
    RunConfig,
    Schema,
)


def _several(value: Any) -> Any:
    """`masks=DIR` is a list of one."""
    return ([value] if value else []) if isinstance(value, str) else value


Paths = Annotated[tuple[AnyPath, ...], BeforeValidator(_several), Field(description="a path or a list of paths")]
MetricName = Literal["dsc", "jaccard", "precision", "recall", "asd", "hd", "hd95"]
MetricNames = Annotated[tuple[MetricName, ...], Field(min_length=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


# --- data of the program's own ----------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class LabelledData(Schema):
    """A labelled set: some are references, some are judged, some calibrate, some teach; the masks to judge are made by
    `segmenters`."""

    references: PositiveInt = 8
    cases: PositiveInt = 24
    """Images that are judged."""
    calibration: NonNegativeInt = 0
    """Images with known truth, none of them judged, for `calibration.kind=labelled`."""
    training: NonNegativeInt = 0
    """Images that segmenters learn from; none of them is a reference, is judged or calibrates."""
    split_seed: NonNegativeInt = 0
    """Decides which image is what; it stays the same when the run's seed changes."""


@dataclass(kw_only=True)
class PhantomData(LabelledData):
    """Generated bodies with five organs; nothing is read from disk."""

    name: Literal["phantoms"] = "phantoms"
    shape: Annotated[
        tuple[Annotated[int, Field(ge=24)], ...],
        Field(min_length=2, max_length=3, description="two or three lengths, each of 24 or more"),
    ] = (96, 96)
    data_seed: NonNegativeInt = 0


@dataclass(kw_only=True)
class JsrtData(LabelledData):
    """JSRT's chest radiographs with five organs, which overlap."""

    name: Literal["jsrt"] = "jsrt"
    root: DataRoot = None


@dataclass(kw_only=True)
class HippocampusData(LabelledData):
    """Task 4 of the Medical Segmentation Decathlon: small MRI volumes, two parts of the hippocampus."""

    name: Literal["hippocampus"] = "hippocampus"
    root: DataRoot = None


DataConfig = Annotated[PhantomData | JsrtData | HippocampusData, Field(discriminator="name")]


@dataclass(kw_only=True)
class SegmenterConfig(Schema):
    """What makes the masks that are judged where `images` is empty."""

    kinds: Annotated[tuple[Literal["deformed"], ...], Field(min_length=1)] = ("deformed",)
    """`deformed`: the truth, made worse by a random amount."""
    masks: PositiveInt = 1
    """Deformed masks an image, each of another quality."""


# --- the user's own files ---------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class LabelConfig(Schema):
    """What the numbers in the masks mean."""

    kind: Literal["values", "bits"] = "values"
    """`bits`: organs overlap, and a voxel holds the sum of their numbers 1, 2, 4, ..."""
    values: tuple[PositiveInt, ...] = ()
    """Labels to judge; empty is all that the references hold."""
    names: tuple[str, ...] = ()
    """A name for each of `values`."""


@dataclass(kw_only=True)
class ReferenceConfig(Schema):
    """Images whose masks are known to be right."""

    images: AnyPath = ""
    masks: AnyPath = ""
    select: Literal["all", "random", "nearest"] = "all"
    """`nearest`: for each image the `count` that resemble it most."""
    count: PositiveInt = 8
    """How many `random` and `nearest` take."""


# --- method -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class RegistrationConfig(Schema):
    """Affine, then cubic B-splines, coarse to fine, on normalised cross-correlation; what is left empty is chosen by dimension, for
    images that are first reduced to 256 voxels a side, volumes to 48."""

    affine: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    """Levels of (reduction of the image, steps). Where these or `bspline` are given, reductions are of the image as it is."""
    bspline: tuple[tuple[PositiveInt, Annotated[int, Field(ge=4)], PositiveInt], ...] = ()
    """Levels of (reduction, control points along each axis, steps)."""
    stiffness: NonNegativeFloat | None = None
    """Weight of the squared differences of neighbouring control points; null chooses by dimension."""
    contrast: Annotated[float, Field(ge=0, le=1)] | None = None
    """Window of the local contrast that is registered, as a share of the image's side; 0 registers intensities, null chooses by
    dimension."""
    focus: Annotated[float, Field(ge=0, le=1)] | None = None
    """How far from a reference's organs voxels weigh more, as a share of the image's side; 0 weighs all alike, null chooses by
    dimension."""
    window: NonNegativeFloat | None = None
    """Standard deviation, in voxels of the level, of the window around each voxel in which B-spline levels correlate; 0 correlates
    whole images, null chooses by dimension."""
    stride: PositiveInt | None = None
    """A step of a B-spline level looks at every so-manieth voxel along each axis; null chooses by dimension."""
    samples: PositiveInt = 1
    """Places along each axis at which a voxel of a reference is asked for its label where its neighbourhood is not of one, each by
    nearest neighbour; most of them decide. 1 asks at its centre alone; 3 suits thin structures whose masks are smooth."""
    choose_stiffness: tuple[NonNegativeFloat, ...] = ()
    """Values to choose from: the one whose predictions for degraded masks of the references, each left out in turn, are nearest."""


@dataclass(kw_only=True)
class CalibrationConfig(Schema):
    """From the raw maximum to an unbiased prediction (a curve that never falls) and an interval (split-conformal)."""

    kind: Literal["none", "references", "labelled"] = "references"
    """`references`: degraded masks of the references, each left out in turn. `labelled`: images with masks and truth."""
    images: AnyPath = ""
    masks: Paths = ()
    truth: AnyPath = ""
    degraded: PositiveInt = 16
    """Degraded masks of each reference."""
    coverage: OpenFraction = 0.9
    """Share of the intervals that shall hold the real value."""
    low: Fraction = 0.4
    high: Fraction = 0.95
    """Quantiles of the reference scores that the interval is widened from (Cosarinsky et al. 2025)."""


@dataclass(kw_only=True)
class RcaOutput(OutputConfig):
    """Where runs are written, and where transforms are kept."""

    transforms: Annotated[FolderPath, NO_EFFECT] | None = None
    """Folder of computed transforms, shared by all runs; null is `<root>/transforms`, empty keeps none."""


@dataclass(kw_only=True)
class JudgedConfig(RunConfig):
    """What both tasks share: what a prediction is turned into."""

    threshold: float = 0.7
    """A predicted value that is worse is flagged (Robinson et al. 2019: a Dice score of 0.7)."""
    flag_on: Literal["max", "mean", "calibrated"] = "max"
    pictures: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 6
    """Pictures of the worst cases, each with the reference that judged it."""


@dataclass(kw_only=True)
class RcaEstimate(JudgedConfig):
    """Task `rca-estimate`."""

    images: AnyPath = ""
    """Folder of the images; empty takes `data`."""
    masks: Paths = ()
    """A folder of masks, or one a segmenter."""
    truth: AnyPath = ""
    """Folder of true masks, where there are any: predictions are then held against them."""
    manifest: Annotated[FilePath, CONTENT_COUNTS] = ""
    """A CSV file in place of folders: role, case, image, segmenter, mask, truth."""
    resample: bool = False
    """Lay masks whose geometry differs over their images, by nearest neighbour, instead of refusing them."""
    data: DataConfig = field(default_factory=PhantomData)
    segmenters: SegmenterConfig = field(default_factory=SegmenterConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    classifier: Literal["atlas", "atlas-sitk", "forest", "cnn"] = "atlas"
    """`atlas`: batched registration, which alone `registration` is for. `atlas-sitk`: SimpleITK's, one reference after the other.
    `forest`: a random forest, `cnn`: a small U-Net, each trained on the one image and its mask."""
    cnn_steps: PositiveInt = 200
    """Training steps of `classifier=cnn` on each mask."""
    metrics: MetricNames = ("dsc",)
    """The first one is judged, calibrated and flagged; the others are predicted beside it."""
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    # The same section with one key more; configurations are not written to after validation.
    output: RcaOutput = field(default_factory=RcaOutput)  # pyright: ignore[reportIncompatibleVariableOverride]


@dataclass(kw_only=True)
class ScoreCalibration(Schema):
    """How intervals are made from scores."""

    coverage: OpenFraction = 0.9
    low: Fraction = 0.4
    high: Fraction = 0.95


@dataclass(kw_only=True)
class RcaScores(JudgedConfig):
    """Task `rca-scores`: the statistics alone, of scores that somebody else computed."""

    scores: Annotated[FilePath, CONTENT_COUNTS] = ""
    """CSV with the columns case, label, reference, score, and truth, segmenter where known."""
    calibration: Annotated[FilePath, CONTENT_COUNTS] = ""
    """CSV of the same columns with truth, of other cases; empty calibrates nothing."""
    higher_is_better: bool = True
    """False for distances: the best reference is then the one with the smallest."""
    interval: ScoreCalibration = field(default_factory=ScoreCalibration)


__all__ = [
    "CalibrationConfig",
    "DataConfig",
    "HippocampusData",
    "JsrtData",
    "JudgedConfig",
    "LabelConfig",
    "LabelledData",
    "MetricName",
    "PhantomData",
    "PositiveFloat",
    "RcaEstimate",
    "RcaScores",
    "ReferenceConfig",
    "RegistrationConfig",
    "SegmenterConfig",
]
