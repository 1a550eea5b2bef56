"""The keys of the detection tasks. Defaults are the Faster R-CNN paper's; `conf/` says where an experiment departs from them.

Section numbers are those of Ren, He, Girshick and Sun, "Faster R-CNN", TPAMI 2016.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from paperbench.config.schema import (
    ABSENT_BY_DEFAULT,
    CIRCUMSTANTIAL,
    CONTENT_COUNTS,
    NO_EFFECT,
    OR_NAME,
    AnyPath,
    DataRoot,
    Fraction,
    LoopConfig,
    NonNegativeInt,
    OutputConfig,
    PositiveFloat,
    PositiveInt,
    RunConfig,
    Schema,
    TrainConfig,
)
from paperbench.data.held_out import Part
from paperbench.detection.model_config import (
    FasterRCNNModel,
    FPNModel,
    MaskRCNNModel,
    RFCNModel,
    SSDModel,
    YOLOModel,
)
from paperbench.detection.rcnn_config import FastRCNNModel, ProposalConfig, RCNNModelConfig

OnBadBox = Literal["error", "drop", "clip"]
Exif = Literal["ignore", "apply"]
CocoEngine = Literal["numpy", "pycocotools"]
VocSource = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_]+/[^/]+$", description="a year and a split, such as 2007/trainval"),
]
TestFraction = Annotated[float, Field(ge=0, lt=1)]
ClassName = Annotated[
    str,
    Field(min_length=1, max_length=200, coerce_numbers_to_str=True),
    AfterValidator(lambda name: unicodedata.normalize("NFC", name)),  # as the readers compose accents
]


def class_mistakes(key: str, classes: Sequence[str]) -> list[str]:
    """Return the mistakes of a label set, each with its key: a class named twice, or with blanks around its name."""
    twice = [name for name, count in Counter(classes).items() if count > 1]
    mistakes = [f"{key}: {name} stands there twice; each class has one label" for name in twice]
    return mistakes + [f"{key}: {name!r} has blanks around it" for name in classes if name != name.strip()]


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ImageConfig(Schema):
    """Keys of every detection data set."""

    short_side: PositiveInt = 600
    """Images are resized to this short side, unless the long one would pass `max_side` (section 3.3)."""
    max_side: PositiveInt = 1000
    flip: Fraction = 0.5
    """Probability of a horizontal flip in training."""
    on_bad_box: OnBadBox = "error"
    """`drop` leaves faulty annotations out and counts them; `clip` does so too, but cuts boxes that leave their image; `error`
    names every one and stops."""
    cache_mb: Annotated[NonNegativeInt, NO_EFFECT] = 2048
    """Memory for decoded images, in MiB; images beyond it are decoded anew each time."""
    max_train_images: NonNegativeInt = 0
    """Use only the first images of the training split; 0 is all of them."""
    max_test_images: NonNegativeInt = 0


@dataclass(kw_only=True)
class HeldOut(Schema):
    """Keys of data without a split to test on: part of the training split is held out, the same in training and in evaluation."""

    test_fraction: Annotated[TestFraction, ABSENT_BY_DEFAULT] = 0.0
    """Share of the images of the training split that is held out and tested on, in place of a split of its own; 0: none."""
    split_seed: Annotated[NonNegativeInt, ABSENT_BY_DEFAULT] = 0
    """Of the images that are held out: the split stays the same when the run's seed changes."""

    def part(self, *, test: bool) -> Part | None:
        """The images that are held out, or the others; None where no split is divided."""
        return Part(fraction=self.test_fraction, seed=self.split_seed, test=test) if self.test_fraction else None


@dataclass(kw_only=True)
class ShapesData(ImageConfig):
    """Generated scenes; nothing is read from disk."""

    name: Literal["shapes"] = "shapes"
    size: Annotated[int, Field(ge=32)] = 160
    """Side of a scene in pixels."""
    train_images: PositiveInt = 2000
    test_images: PositiveInt = 200
    data_seed: NonNegativeInt = 0
    """Seed of the scenes: the data stay the same when the run's seed changes."""
    max_objects: PositiveInt = 6
    empty: Fraction = 0.02
    """Share of scenes without any object."""


@dataclass(kw_only=True)
class VocData(HeldOut, ImageConfig):
    """A PASCAL VOC devkit, or a folder with an XML file for each image."""

    name: Literal["voc"] = "voc"
    root: DataRoot = None
    year: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", coerce_numbers_to_str=True)] = "2007"
    """The folder `VOC<year>` below `VOCdevkit`; any name for a folder that is none of a devkit."""
    train_split: str = "trainval"
    """A list in `ImageSets/Main`. Without lists: `all`, or a folder of images."""
    test_split: str = "test"
    train: Annotated[tuple[VocSource, ...], ABSENT_BY_DEFAULT] = ()
    """Several splits as one training set, in place of `year` and `train_split`: `[2007/trainval,2012/trainval]`."""
    classes: tuple[ClassName, ...] = ()
    """Label set of one's own; empty is the 20 classes of VOC."""
    zero_based: bool = False
    """Whether the XML counts pixels from 0; VOC's own files count from 1, both corners included."""
    exif: Exif = "ignore"
    """`apply` turns images as their cameras say (EXIF), for boxes that were drawn on upright pictures; `ignore` reads pixels as
    they are stored."""


@dataclass(kw_only=True)
class CocoData(HeldOut, ImageConfig):
    """COCO's layout: `annotations/instances_<split>.json` and a folder of images per split."""

    name: Literal["coco"] = "coco"
    root: DataRoot = None
    train_split: str = "train2017"
    """A split of that name, or an annotation file with its folder of images: `FILE.json:FOLDER`; `FILE.json` alone has the images
    beside it."""
    test_split: str = "val2017"
    train: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], ABSENT_BY_DEFAULT] = ()
    """Several splits as one training set, in place of `train_split`, each named as there; classes are joined by name."""
    exif: Exif = "ignore"
    """`apply` turns images as their cameras say (EXIF), for boxes that were drawn on upright pictures; `ignore` reads pixels as
    they are stored."""


@dataclass(kw_only=True)
class YoloData(HeldOut, ImageConfig):
    """The YOLO layout: a `data.yaml`, or `images/<split>` with `labels/<split>/*.txt`."""

    name: Literal["yolo"] = "yolo"
    root: DataRoot = None
    """The folder, or its `data.yaml`."""
    train_split: str = "train"
    test_split: str = "val"
    train: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], ABSENT_BY_DEFAULT] = ()
    """Several folders as one training set, in place of `root`'s own: each is one that `root` takes, and may be relative to it."""
    classes: tuple[ClassName, ...] = ()
    """The classes that are used, by name or number; empty is all of them. Where the data name none, the names of 0, 1, ..."""
    exif: Exif = "apply"
    """`apply` turns images as their cameras say (EXIF), as programs do that read this layout; `ignore` reads pixels as they are
    stored."""


@dataclass(kw_only=True)
class PennFudanData(ImageConfig):
    """Penn-Fudan pedestrians, 170 images; the last `test_images` of a fixed shuffle are held back."""

    name: Literal["pennfudan"] = "pennfudan"
    root: DataRoot = None
    test_images: PositiveInt = 50


DataConfig = Annotated[ShapesData | VocData | CocoData | YoloData | PennFudanData, Field(discriminator="name")]


ModelConfig = Annotated[
    FasterRCNNModel | FPNModel | MaskRCNNModel | RFCNModel | SSDModel | YOLOModel, Field(discriminator="name")
]


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class AlternationConfig(Schema):
    """`train.schedule=alternating`: four steps with shared convolutions, the first two of them without (section 3.2)."""

    samples: NonNegativeInt = 0
    """Training images seen in each step that trains the detector; 0 takes `train.samples`."""
    rpn_samples: NonNegativeInt = 0
    """Training images seen in each step that trains the proposals; 0: as many as in the others."""
    rpn_batch_size: NonNegativeInt = 0
    """In the steps that train proposals; 0 takes `train.batch_size`."""
    milestones: tuple[Fraction, ...] = ()
    """Of each step; empty takes `optim.milestones`."""
    detector_proposals: Literal["rpn", "selective-search"] = "rpn"
    """What a detector that shares nothing is trained on; that of the ablations of table 2 never saw the network's proposals."""


@dataclass(kw_only=True)
class DetectLoop(LoopConfig):
    """Length of training, and the order in which the parts of a detector are trained."""

    schedule: Literal["joint", "alternating"] = "joint"
    """`joint`: approximate joint training; `alternating`: proposals and detector in turn, as in the paper's experiments."""
    alternation: AlternationConfig = field(default_factory=AlternationConfig)


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class CocoScored(Schema):
    """What is scored by COCO's rules."""

    engine: Annotated[CocoEngine, NO_EFFECT, ABSENT_BY_DEFAULT] = "numpy"
    """What computes COCO's numbers; pycocotools, the reference, takes seven times as long for the same ones."""


@dataclass(kw_only=True)
class EvaluationConfig(CocoScored):
    """Inference and scoring."""

    batch_size: PositiveInt = 4
    sheet_images: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 12
    """Test images drawn with ground truth and detections in `figures/`."""
    proposals: bool = True
    """Also score the proposals: recall over IoU and number of proposals."""
    bootstrap: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 0
    """Resamples of the test images for 95 % intervals of the mean average precisions (`<metric>/low`, `<metric>/high`); 0: none.
    They hold which images were tested on, not how training would vary with the seed."""
    ablations: bool = False
    """Also score what is left without parts of the region proposal network: the rows of table 2, all from one more pass."""
    ablation_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Proposals of these rows, as a share of the paper's numbers; null is `model.rpn.pre_nms_test` over the paper's 6,000."""
    pyramid: tuple[PositiveFloat, ...] = ()
    """Sizes of the image, as multiples of its own, at which a one-stage model is evaluated as well: `pyramid/voc07/mAP`."""
    pyramid_side: PositiveFloat = 224.0
    """Windows are pooled at the size that brings them closest to this many pixels squared (SPP-net's choice)."""
    timed_images: NonNegativeInt = 0
    """Test images that are detected one by one to measure the parts of the detector (table 5); 0: none."""


Variant = Literal["no-boxes", "svd", "svm", "softmax"]


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class RCNNEvaluation(CocoScored):
    """Inference and scoring."""

    batch_size: PositiveInt = 4
    sheet_images: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 12
    """Test images drawn with ground truth and detections in `figures/`."""
    proposals: bool = True
    """Also score the proposals: recall over IoU and number of proposals."""
    bootstrap: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 0
    """Resamples of the test images for 95 % intervals of the mean average precisions (`<metric>/low`, `<metric>/high`); 0: none.
    They hold which images were tested on, not how training would vary with the seed."""
    variants: tuple[Variant, ...] = ()
    """Also measured with the same weights, as `<variant>/<metric>`: without box regression, with `model.svd`, with SVMs in
    place of softmax or the other way round."""
    timed_images: NonNegativeInt = 0
    """Test images that are detected one by one to measure where the time goes: `seconds/<part>` (Fast R-CNN, figure 2), and
    `svd/seconds/<part>` with the variant; 0: none."""


@dataclass(kw_only=True)
class DetectTrain(TrainConfig):
    """Task `detect-train`."""

    data: DataConfig = field(default_factory=ShapesData)
    model: ModelConfig = field(default_factory=FasterRCNNModel)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    train: DetectLoop = field(default_factory=DetectLoop)  # pyright: ignore[reportIncompatibleVariableOverride]


@dataclass(kw_only=True)
class DetectEval(DetectTrain):
    """Task `detect-eval` on a trained run: its own configuration, with what the command line changes."""

    checkpoint: Annotated[AnyPath, OR_NAME] = ""
    """Run directory, or a checkpoint file below one."""


@dataclass(kw_only=True)
class ScoreFiles(CocoScored, HeldOut, RunConfig):
    """Task `detect-score`: ground truth and detections from files alone, no model."""

    format: Literal["voc", "coco", "yolo"] = "voc"
    gt: Annotated[AnyPath, CONTENT_COUNTS] = ""
    """voc: the folder VOCdevkit/VOC<year>; coco: instances_<split>.json; yolo: the folder of images and labels or its data.yaml."""
    dt: Annotated[AnyPath, CONTENT_COUNTS] = ""
    """voc: the folder of `comp4_det_<split>_<class>.txt`; coco: the results JSON; yolo: the folder of a text file for each image,
    a line an object, with the confidence last."""
    split: str = "val"
    """voc, yolo: the images that are scored. With `test_fraction`, the split that they were held out of."""
    classes: tuple[ClassName, ...] = ()
    """voc: the label set; empty is the 20 classes of VOC. yolo: the classes that are scored, by name or number; empty is all."""
    zero_based: bool = False
    """voc: whether the annotations count pixels from 0. Lines of detections count from 1 in any case, as the devkit's do and those
    that `paperbench eval` writes."""
    output: OutputConfig = field(default_factory=OutputConfig)


@dataclass(kw_only=True)
class Propose(RunConfig):
    """Task `detect-proposals`."""

    data: DataConfig = field(default_factory=ShapesData)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    splits: Annotated[tuple[Literal["train", "test"], ...], Field(min_length=1)] = ("train", "test")


@dataclass(kw_only=True)
class RCNNTrain(TrainConfig):
    """Task `region-train`."""

    data: DataConfig = field(default_factory=ShapesData)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    model: RCNNModelConfig = field(default_factory=FastRCNNModel)
    evaluation: RCNNEvaluation = field(default_factory=RCNNEvaluation)

    @property
    def needs_svm(self) -> bool:
        """True where SVMs are fitted."""
        return self.model.classifier == "svm" or "svm" in self.evaluation.variants


@dataclass(kw_only=True)
class RCNNEval(RCNNTrain):
    """Task `region-eval` on a trained run: its own configuration, with what the command line changes."""

    checkpoint: Annotated[AnyPath, OR_NAME] = ""
    """Run directory, or a checkpoint file below one."""
