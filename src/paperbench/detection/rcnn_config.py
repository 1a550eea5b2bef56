"""The proposals and the `model` part of R-CNN, SPP-net and Fast R-CNN, which are trained on precomputed boxes.

Sections and equations are those of Girshick, "Fast R-CNN", ICCV 2015, where nothing else is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from paperbench.config.schema import (
    CIRCUMSTANTIAL,
    CONTENT_COUNTS,
    OR_NAME,
    AnyPath,
    FilePath,
    Formerly,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Schema,
)
from paperbench.detection.model_config import BackboneModel, HeadConfig
from paperbench.errors import ConfigError

# --- proposals --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class SelectiveSearchConfig(Schema):
    """Uijlings et al., IJCV 2013, in OpenCV's implementation."""

    mode: Literal["single", "fast", "quality"] = "fast"
    """How many segmentations and similarities are combined: `fast` is what R-CNN, SPP-net and Fast R-CNN use."""
    base_k: PositiveInt = 150
    """Scale of the finest segmentation; less gives more and smaller boxes."""
    width: NonNegativeInt = 500
    """Larger images are searched at this width (R-CNN, section 2.2: "we resize each image to a fixed width"); 0: as they are."""


@dataclass(kw_only=True)
class WindowsConfig(Schema):
    """A regular grid of boxes, in random order: what proposals have to be better than."""

    sizes: tuple[PositiveFloat, ...] = (0.15, 0.25, 0.4, 0.6, 0.9)
    """Square root of a window's area, as a share of the image's short side."""
    ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    step: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Distance between neighbours, as a share of their sides."""


@dataclass(kw_only=True)
class ProposalConfig(Schema):
    """Where the boxes come from, and how many of them are used."""

    method: Literal["selective-search", "sliding-windows", "rpn", "file"] = "selective-search"
    train_count: NonNegativeInt = 2000
    """The best so many of a training image; 0 is all."""
    test_count: NonNegativeInt = 2000
    min_side: PositiveFloat = 1.0
    """Boxes with a smaller side are left out, in pixels of the image as it is stored."""
    selective_search: SelectiveSearchConfig = field(default_factory=SelectiveSearchConfig)
    sliding_windows: WindowsConfig = field(default_factory=WindowsConfig)
    run: Annotated[AnyPath, OR_NAME, CONTENT_COUNTS] | None = None
    """method=rpn: the run, or checkpoint below one, whose region proposal network is asked."""
    train_file: Annotated[FilePath, CONTENT_COUNTS] | None = None
    """method=file: what `paperbench proposals` wrote for the training split."""
    test_file: Annotated[FilePath, CONTENT_COUNTS] | None = None
    workers: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 0
    """Processes that search at the same time; 0 is one a core."""


# --- models -----------------------------------------------------------------------------------------------------------

Boxes = Literal["multi-task", "stage-wise", "ridge", "none"]


@dataclass(kw_only=True)
class SvmConfig(Schema):
    """Linear SVMs on the features of regions, one a class (R-CNN, section 2.3 and its code)."""

    c: PositiveFloat = 1e-3
    negative_iou: Fraction = 0.3
    """Proposals that overlap a class less than this are its negatives; its objects alone are the positives."""
    positive_weight: PositiveFloat = 2.0
    bias_scale: PositiveFloat = 10.0
    """Constant feature that the bias is the weight of: large, so that the bias is hardly regularised."""
    feature_norm: NonNegativeFloat = 20.0
    """Features are scaled so that their mean norm is this; 0 leaves them."""
    start_images: PositiveInt = 1
    """Images of which the first fit sees all negatives; those of the others have to be hard."""
    refit_every: PositiveInt = 2000
    """New hard negatives of a class after which it is fitted again."""


@dataclass(kw_only=True)
class RidgeConfig(Schema):
    """Box regression on pooled features by ridge regression, one a class (R-CNN, appendix C)."""

    weight: PositiveFloat = 1000.0
    """Lambda of the penalty, with features scaled to a mean norm of 20."""
    iou: Fraction = 0.6
    """Least overlap of a proposal with its object."""
    max_examples: Annotated[PositiveInt, Formerly("most")] = 5000
    """Proposals of a class that are used, drawn at random."""


@dataclass(kw_only=True)
class FastRCNNHeadConfig(HeadConfig):
    """With Fast R-CNN's regions: 64 of each of two images, background with an IoU of at least 0.1 (section 2.3)."""

    batch_size_per_image: Annotated[PositiveInt, Formerly("rois")] = 64
    negative_iou_low: Fraction = 0.1


@dataclass(kw_only=True)
class RCNNFamilyModel(BackboneModel):
    """Keys that the three detectors share: a backbone, a head on pooled regions, and what is fitted on its features."""

    projection: NonNegativeInt = 0
    """Channels of a 1x1 convolution after the backbone; 0 leaves its features as they are."""
    classifier: Literal["softmax", "svm"] = "softmax"
    features: Literal["pool5", "fc6", "fc7"] = "fc7"
    """What SVMs look at: the pooled region, or the first or second layer of the head."""
    boxes: Boxes = "multi-task"
    """How boxes are regressed: with the classifier, in a stage after it, by ridge regression on pooled features, or not."""
    svm: SvmConfig = field(default_factory=SvmConfig)
    ridge: RidgeConfig = field(default_factory=RidgeConfig)
    svd: tuple[PositiveInt, ...] = ()
    """Singular values that are kept of each fully connected layer of the head, in order (section 3.1); empty: whole layers."""
    features_mb: Annotated[NonNegativeInt, CIRCUMSTANTIAL] = 4096
    """Disk for features of training regions, in MiB; those beyond it are computed anew."""


@dataclass(kw_only=True)
class FastRCNNModel(RCNNFamilyModel):
    """Fast R-CNN: features of the whole image, a pooled map for each region, one loss for classes and boxes."""

    name: Literal["fast-rcnn"] = "fast-rcnn"
    head: FastRCNNHeadConfig = field(default_factory=FastRCNNHeadConfig)


@dataclass(kw_only=True)
class SPPNetModel(RCNNFamilyModel):
    """SPP-net (He et al., TPAMI 2015): fixed convolutions, a pyramid of pooled maps, SVMs and ridge regression on top."""

    name: Literal["sppnet"] = "sppnet"
    head: FastRCNNHeadConfig = field(default_factory=FastRCNNHeadConfig)
    pyramid: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (6, 3, 2, 1)
    """Cells on a side of each level: 50 in all."""
    classifier: Literal["softmax", "svm"] = "svm"
    boxes: Boxes = "ridge"
    pretrain: NonNegativeInt = 0
    """Images whose warped regions the convolutions learn to classify before they are fixed: stands in for ImageNet where there
    are no weights. 0: they are fixed as they begin."""
    pretrain_crops: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64)
    """Sides that the regions are warped to in turn (multi-size training, section 2.3)."""


@dataclass(kw_only=True)
class RCNNModel(RCNNFamilyModel):
    """R-CNN (Girshick et al., CVPR 2014): each region is warped to one size and goes through the whole net by itself."""

    name: Literal["rcnn"] = "rcnn"
    head: HeadConfig = field(default_factory=HeadConfig)
    crop: PositiveInt = 224
    """Side that regions are warped to, in pixels; the paper's net takes 227."""
    context: NonNegativeInt = 16
    """Pixels of the warped region around the box (appendix A)."""
    crops: PositiveInt = 128
    """Warped regions that go through the net at once at test."""
    classifier: Literal["softmax", "svm"] = "svm"
    boxes: Boxes = "ridge"
    fine_tune: bool = True
    """Whether the net is trained on warped regions before its features are used."""


RCNNModelConfig = Annotated[FastRCNNModel | SPPNetModel | RCNNModel, Field(discriminator="name")]


def check_model(model: FastRCNNModel | SPPNetModel | RCNNModel) -> None:
    """Raise `ConfigError` for settings that do not go together, all of them at once."""
    faults = []
    if model.head.ohem:
        faults.append("model.head.ohem: is not for detectors on precomputed boxes; leave it out")
    if isinstance(model, RCNNModel) and model.crop <= 2 * model.context:
        faults.append(f"model.context={model.context}: leaves nothing of a region of {model.crop} pixels; give less")
    if isinstance(model, RCNNModel) and not model.fine_tune:
        if model.classifier == "softmax":
            faults.append(
                "model.classifier=softmax: is not trained with model.fine_tune=false; give model.classifier=svm"
            )
        if model.boxes in ("multi-task", "stage-wise"):
            faults.append(f"model.boxes={model.boxes}: is not trained with model.fine_tune=false; give ridge or none")
    if model.projection and not model.head.hidden and model.backbone in ("alexnet", "zf", "vgg16", "resnet50"):
        faults.append(f"model.projection={model.projection}: needs a new head as well (model.head.hidden=256)")
    if isinstance(model, SPPNetModel) and model.backbone == "resnet50" and not model.head.hidden:
        faults.append(
            "model.backbone=resnet50: its own head cannot take a pyramid; give a width (model.head.hidden=256)"
        )
    if model.backbone == "resnet50" and not model.head.hidden and model.features == "fc6":
        faults.append("model.features=fc6: resnet50's own head has no such layer; give model.features=fc7")
    if faults:
        raise ConfigError(*faults)
