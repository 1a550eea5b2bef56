"""The `model` part of a detector's configuration: Faster R-CNN's keys, which others of two stages share.

Section numbers are those of Ren, He, Girshick and Sun, "Faster R-CNN", TPAMI 2016; defaults are that paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from paperbench.config.schema import (
    OR_NAME,
    FilePath,
    Formerly,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Schema,
)


@dataclass(kw_only=True)
class AnchorConfig(Schema):
    """Section 3.1.1: 3 scales x 3 aspect ratios = 9 anchors a location."""

    sizes: tuple[PositiveFloat, ...] = (128.0, 256.0, 512.0)
    """Square root of an anchor's area, in pixels of the resized image."""
    ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    """Height over width."""


@dataclass(kw_only=True)
class RpnConfig(Schema):
    """Region proposal network, section 3.1."""

    channels: NonNegativeInt = 0
    """Of the 3x3 convolution; 0 takes the backbone's own (256 for ZF, 512 for VGG-16)."""
    objectness: Literal["softmax", "sigmoid"] = "softmax"
    positive_iou: Fraction = 0.7
    negative_iou: Fraction = 0.3
    batch_size_per_image: Annotated[PositiveInt, Formerly("sampled")] = 256
    """Anchors of an image that a training step draws."""
    positive_fraction: Fraction = 0.5
    ignore_cross_boundary: bool = True
    normalisation: Literal["paper", "sampled"] = "paper"
    """`paper`: classification over the drawn anchors, regression over the anchor locations; `sampled`: both over the drawn ones."""
    loss_weight: NonNegativeFloat = 10.0
    """Lambda of equation 1; py-faster-rcnn, the reference implementation, has `normalisation=sampled` and 1."""
    sigma: PositiveFloat = 3.0
    """Smooth L1: quadratic below 1 / sigma^2."""
    pre_nms_topk_train: Annotated[PositiveInt, Formerly("pre_nms_train")] = 12000
    pre_nms_topk_test: Annotated[PositiveInt, Formerly("pre_nms_test")] = 6000
    post_nms_topk_train: Annotated[PositiveInt, Formerly("post_nms_train")] = 2000
    post_nms_topk_test: Annotated[PositiveInt, Formerly("post_nms_test")] = 300
    nms_iou: Fraction = 0.7
    min_size: NonNegativeFloat = 16.0
    """Smallest side of a proposal, in pixels of the original image."""

    def topk(self, *, training: bool) -> tuple[int, int]:
        """Return how many of the best boxes are kept before and after suppression."""
        if training:
            return self.pre_nms_topk_train, self.post_nms_topk_train
        return self.pre_nms_topk_test, self.post_nms_topk_test


@dataclass(kw_only=True)
class HeadConfig(Schema):
    """The Fast R-CNN detector on the proposals."""

    batch_size_per_image: Annotated[PositiveInt, Formerly("rois")] = 128
    """Regions of an image that a training step draws."""
    positive_fraction: Fraction = 0.25
    positive_iou: Fraction = 0.5
    negative_iou_low: Fraction = 0.0
    pool: Literal["roi-pool", "roi-align"] = "roi-pool"
    pool_size: NonNegativeInt = 0
    """Cells of a pooled region on a side; 0 takes the backbone's own (ZF 6, ResNet 14, others 7)."""
    hidden: NonNegativeInt = 0
    """Width of the two fully connected layers; 0 takes the backbone's own head (ZF, VGG-16: 4096; ResNet: its last stage)."""
    batch_norm: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    target_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (0.1, 0.1, 0.2, 0.2)
    sigma: PositiveFloat = 1.0
    score_threshold: Fraction = 0.05
    nms_iou: Fraction = 0.3
    detections_per_image: Annotated[PositiveInt, Formerly("detections")] = 100
    ohem: Annotated[bool, Formerly("mining")] = False
    """Online hard example mining: the regions with the largest losses are trained on, `positive_fraction` and
    `negative_iou_low` are not asked (Shrivastava et al., CVPR 2016)."""
    ohem_nms_iou: Annotated[Fraction, Formerly("mining_nms_iou")] = 0.7
    """Of two regions that overlap by more, OHEM counts the one with the larger loss."""


Backbones = Literal["small", "alexnet", "zf", "vgg16", "resnet50", "squeezenet1_1"]


@dataclass(kw_only=True)
class BackboneModel(Schema):
    """The layers that every detector begins with."""

    backbone: Backbones = "vgg16"
    weights: Annotated[FilePath, OR_NAME] | None = None
    """None, a file with a state dict, or the name of torchvision's weights (`DEFAULT`, `IMAGENET1K_V1`)."""
    frozen_layers: NonNegativeInt | None = None
    """Leading layers (for ResNet: stages) of the backbone that are not trained; null is the backbone's own number: 4 of VGG-16
    (the paper tunes conv3_1 and up), 2 of ResNet-50, none of the others."""
    deformable: NonNegativeInt = 0
    """How many of the backbone's last 3x3 convolutions sample at offsets that are learned (Dai et al., ICCV 2017)."""


@dataclass(kw_only=True)
class FasterRCNNModel(BackboneModel):
    """Backbone, region proposal network and detection head."""

    name: Literal["faster-rcnn"] = "faster-rcnn"
    projection: NonNegativeInt = 0
    """Channels of a 1x1 convolution after the backbone; 0 leaves its features as they are."""
    shared: bool = True
    """Whether proposals and detector share the backbone; false gives each a backbone of its own (the "unshared" rows)."""
    proposals_backbone: Backbones | None = None
    """Of the proposals, where `shared` is false and theirs is another than the detector's ("RPN+VGG" in table 2)."""
    proposals_weights: Annotated[FilePath, OR_NAME] | None = None
    """Weights of that one, as `weights`."""
    stages: Literal[1, 2] = 2
    """1 leaves the proposals out: the anchors themselves are classified and regressed, all of them (table 10)."""
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RpnConfig = field(default_factory=RpnConfig)
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass(kw_only=True)
class PyramidConfig(Schema):
    """The maps of the pyramid (Lin et al., FPN, CVPR 2017, sections 3 and 4)."""

    channels: PositiveInt = 256
    """Of every map of the pyramid."""
    finest_stride: Annotated[PositiveInt, Formerly("finest")] = 4
    """Stride of the finest map; the backbone must have one of it."""
    extra_stages: Annotated[NonNegativeInt, Formerly("deeper")] = 0
    """Stages of stride 2 that are added below the backbone's own, for backbones that end early."""
    pooled_levels: Annotated[NonNegativeInt, Formerly("pooled")] = 1
    """Maps beyond the coarsest, each every second pixel of the one before; for proposals alone (the paper's P6)."""
    canonical_size: Annotated[PositiveFloat, Formerly("canonical")] = 224.0
    """Side in pixels of a region that is pooled from stride 16 (equation 1)."""


@dataclass(kw_only=True)
class FPNModel(FasterRCNNModel):
    """Faster R-CNN on a feature pyramid. `anchors.sizes` has one size for each map."""

    name: Literal["fpn"] = "fpn"  # pyright: ignore[reportIncompatibleVariableOverride]
    anchors: AnchorConfig = field(default_factory=lambda: AnchorConfig(sizes=(32.0, 64.0, 128.0, 256.0, 512.0)))
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)


@dataclass(kw_only=True)
class MaskConfig(Schema):
    """The branch for masks (He et al., Mask R-CNN, ICCV 2017, section 3 and figure 4, right)."""

    channels: PositiveInt = 256
    convolutions: NonNegativeInt = 4
    """3x3 convolutions before the one that doubles the resolution."""
    pool_size: PositiveInt = 14
    """Cells of a region on a side; masks have twice as many."""
    loss_weight: NonNegativeFloat = 1.0


@dataclass(kw_only=True)
class MaskRCNNModel(FPNModel):
    """FPN with a mask for every detection."""

    name: Literal["mask-rcnn"] = "mask-rcnn"  # pyright: ignore[reportIncompatibleVariableOverride]
    mask: MaskConfig = field(default_factory=MaskConfig)


@dataclass(kw_only=True)
class RFCNModel(FasterRCNNModel):
    """Faster R-CNN whose regions vote in position-sensitive maps (Dai et al., R-FCN, NIPS 2016).

    `projection` is the paper's 1x1 convolution of 1024 channels, before the score maps; `head.pool_size` its k, with 0 for the
    paper's 7; `head.pool` as in Faster R-CNN, position-sensitive. The keys of a head with layers of its own (`hidden`,
    `batch_norm`, `dropout`) have no meaning here and must stay as they are.
    """

    name: Literal["rfcn"] = "rfcn"  # pyright: ignore[reportIncompatibleVariableOverride]
    context: NonNegativeInt = 0
    """3x3 convolutions of as many channels as the backbone's map, dilated by 2, with batch normalisation, between that map, from
    which proposals are made, and the score maps: without layers for each region, each place has to see a whole object. ResNet-50
    has its own, stage 5 with its stride turned into dilation (section 2, "Backbone architecture"), and takes 0."""


@dataclass(kw_only=True)
class DefaultBoxConfig(Schema):
    """Default boxes (Liu et al., SSD, ECCV 2016, section 2.2), smallest first, one entry a map."""

    sizes: tuple[PositiveFloat, ...] = (30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0)
    """Side in pixels of each map's square box; a second square lies halfway (geometrically) to the next size, so there is one
    size more than there are maps."""
    ratios: tuple[tuple[PositiveFloat, ...], ...] = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
    """Of each map: every ratio stands for itself and its inverse."""


@dataclass(kw_only=True)
class SSDModel(BackboneModel):
    """Boxes of every class straight from maps of several strides, by one net."""

    name: Literal["ssd"] = "ssd"
    side: PositiveInt = 300
    """Images lie in the corner of a square of this side; the paper warps them to it. With VGG-16, 300 and six entries of
    `boxes.ratios` the maps are the paper's own."""
    finest_stride: Annotated[PositiveInt, Formerly("finest")] = 8
    """Stride of the finest map that is predicted from (conv4_3 in VGG-16)."""
    extra_channels: PositiveInt = 256
    """Of the maps that are added below the backbone's own."""
    boxes: DefaultBoxConfig = field(default_factory=DefaultBoxConfig)
    positive_iou: Fraction = 0.5
    negatives_per_positive: Annotated[PositiveFloat, Formerly("negatives")] = 3.0
    """Background boxes for each object box in the loss, the hardest of them (section 2.2, hard negative mining)."""
    loss_weight: NonNegativeFloat = 1.0
    """Alpha of equation 1."""
    target_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (0.1, 0.1, 0.2, 0.2)
    score_threshold: Fraction = 0.01
    nms_iou: Fraction = 0.45
    detections_per_image: Annotated[PositiveInt, Formerly("detections")] = 200


@dataclass(kw_only=True)
class YOLOModel(BackboneModel):
    """One net, one grid (Redmon et al., You Only Look Once, CVPR 2016)."""

    name: Literal["yolo"] = "yolo"
    side: PositiveInt = 448
    """Images lie in the corner of a square of this side; the paper warps them to it."""
    grid: PositiveInt = 7
    """S: cells on a side; `side` must be a power of two times as large."""
    boxes: PositiveInt = 2
    """B: boxes of a cell."""
    channels: PositiveInt = 1024
    """Of the layers between the backbone's map and the grid, and of the convolution before the outputs."""
    head: Literal["connected", "convolutional"] = "connected"
    """`connected`: the paper's two fully connected layers, which see the whole image; `convolutional`: 1x1, each cell alone."""
    hidden: PositiveInt = 4096
    """Width of the first fully connected layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    coord_weight: Annotated[NonNegativeFloat, Formerly("coordinate_weight")] = 5.0
    """Lambda coord of equation 3."""
    noobj_weight: Annotated[NonNegativeFloat, Formerly("empty_weight")] = 0.5
    """Lambda noobj of equation 3."""
    score_threshold: Fraction = 0.01
    nms_iou: Fraction = 0.5
    detections_per_image: Annotated[PositiveInt, Formerly("detections")] = 100
