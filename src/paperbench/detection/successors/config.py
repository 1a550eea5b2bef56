"""The `model` part of the configurations of FPN, Mask R-CNN, R-FCN, SSD and YOLO. Defaults are the papers'."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from paperbench.config.schema import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Schema
from paperbench.detection.model_config import AnchorConfig, BackboneModel, FasterRCNNModel


@dataclass(kw_only=True)
class PyramidConfig(Schema):
    """Which maps there are (Lin et al., FPN, CVPR 2017, sections 3 and 4)."""

    channels: PositiveInt = 256
    """Of every map of the pyramid."""
    finest: PositiveInt = 4
    """Stride of the finest map; the backbone must have one of it."""
    deeper: NonNegativeInt = 0
    """Stages of stride 2 that are added below the backbone's own, for backbones that end early."""
    pooled: NonNegativeInt = 1
    """Maps beyond the coarsest, each every second pixel of the one before; for proposals alone (the paper's P6)."""
    canonical: PositiveFloat = 224.0
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
    finest: PositiveInt = 8
    """Stride of the finest map that is predicted from (conv4_3 in VGG-16)."""
    extra_channels: PositiveInt = 256
    """Of the maps that are added below the backbone's own."""
    boxes: DefaultBoxConfig = field(default_factory=DefaultBoxConfig)
    positive_iou: Fraction = 0.5
    negatives: PositiveFloat = 3.0
    """Background boxes for each object box in the loss, the hardest of them (section 2.2, hard negative mining)."""
    loss_weight: NonNegativeFloat = 1.0
    """Alpha of equation 1."""
    target_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (0.1, 0.1, 0.2, 0.2)
    score_threshold: Fraction = 0.01
    nms_iou: Fraction = 0.45
    detections: PositiveInt = 200


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
    coordinate_weight: NonNegativeFloat = 5.0
    """Lambda coord of equation 3."""
    empty_weight: NonNegativeFloat = 0.5
    """Lambda noobj of equation 3."""
    score_threshold: Fraction = 0.01
    nms_iou: Fraction = 0.5
    detections: PositiveInt = 100
