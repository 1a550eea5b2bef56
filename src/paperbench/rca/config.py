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
    """A labelled set, split into references, cases, calibration and training images; `segmenters` makes the masks of the cases."""

    references: PositiveInt = 8
    cases: PositiveInt = 24
    """Images whose masks are scored."""
    calibration: NonNegativeInt = 0
    """Further images with known truth, for `calibration.kind=labelled`."""
    training: NonNegativeInt = 0
    """Further images that segmenters learn from."""
    split_seed: NonNegativeInt = 0
    """Seed of the split: it stays the same when the run's seed changes."""


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
    """Source of the masks that are scored where `images` is empty."""

    kinds: Annotated[tuple[Literal["deformed"], ...], Field(min_length=1)] = ("deformed",)
    """`deformed`: the truth, degraded by a random amount."""
    masks: PositiveInt = 1
    """Deformed masks of each image, each of another quality."""


# --- the user's own files ---------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class LabelConfig(Schema):
    """Meaning of the values in the masks."""

    kind: Literal["values", "bits"] = "values"
    """`bits`: organs overlap, and a voxel holds the sum of their numbers 1, 2, 4, ..."""
    values: tuple[PositiveInt, ...] = ()
    """Labels to score; empty: all that the references hold."""
    names: tuple[str, ...] = ()
    """A name for each of `values`."""


@dataclass(kw_only=True)
class ReferenceConfig(Schema):
    """Images with correct masks."""

    images: AnyPath = ""
    masks: AnyPath = ""
    select: Literal["all", "random", "nearest"] = "all"
    """`nearest`: for each image the `count` most similar ones."""
    count: PositiveInt = 8
    """Number of references for `random` and `nearest`."""


# --- method -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class RegistrationConfig(Schema):
    """Affine, then cubic B-splines, coarse to fine, on normalised cross-correlation. Empty keys are chosen on the references, from
    the defaults for two or three dimensions, for images that are first reduced to 256 voxels a side, volumes to 48."""

    choose: bool = True
    """Choose the empty ones of `contrast`, `window`, `focus`, `resolution` and `stiffness` by the error on degraded masks of the
    references, each left out in turn; false, or with fewer than three references: the defaults."""

    affine: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    """Levels of (reduction of the image, steps). Where these or `bspline` are given, reductions are of the image as it is."""
    bspline: tuple[tuple[PositiveInt, Annotated[int, Field(ge=4)], PositiveInt], ...] = ()
    """Levels of (reduction, control points along each axis, steps)."""
    resolution: Annotated[float, Field(ge=0.125, le=8)] | None = None
    """Divides the reductions of all levels, none below 1: 2 registers at twice the resolution; null: chosen, default 1."""
    stiffness: NonNegativeFloat | None = None
    """Weight of the squared differences of neighbouring control points; null: chosen, default 0.03, for volumes 0.0005."""
    contrast: Annotated[float, Field(ge=0, le=1)] | None = None
    """Window of the local contrast that is registered, as a fraction of the image's side; 0 registers intensities; null: chosen,
    default 0."""
    focus: Annotated[float, Field(ge=0, le=1)] | None = None
    """Distance from a reference's organs up to which voxels count more, as a fraction of the image's side; 0: all count alike;
    null: chosen, default 0.05, for volumes 0."""
    window: NonNegativeFloat | None = None
    """Standard deviation, in voxels of the level, of the window around each voxel in which B-spline levels correlate; 0 correlates
    whole images; null: chosen, default 2."""
    stride: PositiveInt | None = None
    """Stride of the sampling grid of B-spline levels: every n-th voxel along each axis; null: default of the dimension."""
    samples: PositiveInt = 1
    """Points along each axis at which a reference's voxel at a label boundary is sampled, each by nearest neighbour; the majority
    decides. 1 samples the centre alone; 3 suits thin structures with smooth masks."""
    choose_stiffness: tuple[NonNegativeFloat, ...] = ()
    """Candidates for `stiffness` in place of those of `choose`, also with `choose=false`: the one with the smallest error."""


@dataclass(kw_only=True)
class CalibrationConfig(Schema):
    """Calibration of the maximum: a monotone curve, and a split-conformal interval."""

    kind: Literal["none", "references", "labelled"] = "references"
    """`references`: degraded masks of the references, each left out in turn. `labelled`: images with masks and truth."""
    images: AnyPath = ""
    masks: Paths = ()
    truth: AnyPath = ""
    degraded: PositiveInt = 16
    """Degraded masks of each reference."""
    coverage: OpenFraction = 0.9
    """Nominal coverage of the intervals."""
    low: Fraction = 0.4
    high: Fraction = 0.95
    """Quantiles of the reference scores between which the interval lies before it is widened (Cosarinsky et al. 2025)."""


@dataclass(kw_only=True)
class RcaOutput(OutputConfig):
    """Folders of runs and of computed transforms."""

    transforms: Annotated[FolderPath, NO_EFFECT] | None = None
    """Folder of computed transforms, shared by all runs; null is `<root>/transforms`, empty stores none."""


@dataclass(kw_only=True)
class QualityConfig(RunConfig):
    """Keys of both tasks: thresholds and figures."""

    threshold: float | None = None
    """Masks with a worse predicted value are flagged. Null: that of the metric, 0.7 for `dsc` (Robinson et al. 2019) and 0.538, the
    same, for `jaccard`; the others have none, and no mask is flagged."""
    flag_on: Literal["max", "mean", "calibrated"] = "max"
    pictures: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 6
    """Number of figures of the worst masks, each with the reference of its best score."""


@dataclass(kw_only=True)
class RcaEstimate(QualityConfig):
    """Task `rca-estimate`."""

    images: AnyPath = ""
    """Folder of the images, or of an nnU-Net archive (`imagesTr`, `labelsTr`, `imagesTs` and predictions), in which masks,
    references and names of labels are then found; empty takes `data`."""
    masks: Paths = ()
    """A folder of masks, or one for each segmenter."""
    truth: AnyPath = ""
    """Folder of true masks, if there are any: predictions are compared with them."""
    manifest: Annotated[FilePath, CONTENT_COUNTS] = ""
    """A CSV file instead of folders: role, case, image, segmenter, mask, truth."""
    resample: bool = False
    """Resample masks with another geometry than their image, by nearest neighbour, instead of refusing them."""
    data: DataConfig = field(default_factory=PhantomData)
    segmenters: SegmenterConfig = field(default_factory=SegmenterConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    classifier: Literal["atlas", "atlas-sitk", "forest", "cnn"] = "atlas"
    """`atlas`: batched registration, configured by `registration`. `atlas-sitk`: SimpleITK's, one reference after another.
    `forest`: a random forest, `cnn`: a small U-Net, each trained on one image and its mask."""
    cnn_steps: PositiveInt = 200
    """Training steps of `classifier=cnn` on each mask."""
    metrics: MetricNames = ("dsc",)
    """The first is predicted, calibrated and flagged; the others are predicted too."""
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    # The same section with one key more; configurations are not written to after validation.
    output: RcaOutput = field(default_factory=RcaOutput)  # pyright: ignore[reportIncompatibleVariableOverride]


@dataclass(kw_only=True)
class ScoreCalibration(Schema):
    """Prediction intervals from scores."""

    coverage: OpenFraction = 0.9
    low: Fraction = 0.4
    high: Fraction = 0.95


@dataclass(kw_only=True)
class RcaScores(QualityConfig):
    """Task `rca-scores`: predictions and statistics of scores that another program computed."""

    scores: Annotated[FilePath, CONTENT_COUNTS] = ""
    """CSV with the columns case, label, reference, score, and truth, segmenter where known."""
    calibration: Annotated[FilePath, CONTENT_COUNTS] = ""
    """CSV of the same columns with truth, of other cases; empty: no calibration."""
    metric: MetricName | None = None
    """Metric of the scores, where the file has no column `metric`; null: an overlap in 0..1, if all scores are in that range."""
    higher_is_better: bool | None = None
    """Direction of a metric that is none of `metric`: false for distances, whose best reference has the smallest."""
    interval: ScoreCalibration = field(default_factory=ScoreCalibration)


__all__ = [
    "CalibrationConfig",
    "DataConfig",
    "HippocampusData",
    "JsrtData",
    "LabelConfig",
    "LabelledData",
    "MetricName",
    "PhantomData",
    "PositiveFloat",
    "QualityConfig",
    "RcaEstimate",
    "RcaScores",
    "ReferenceConfig",
    "RegistrationConfig",
    "SegmenterConfig",
]
