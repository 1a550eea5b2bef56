"""The `model` part of a detector's configuration: Faster R-CNN's keys, which others of two stages share.

Section numbers are those of Ren, He, Girshick and Sun, "Faster R-CNN", TPAMI 2016; defaults are that paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from paperbench.config.schema import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Schema


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
    sampled: PositiveInt = 256
    positive_fraction: Fraction = 0.5
    ignore_cross_boundary: bool = True
    normalisation: Literal["paper", "sampled"] = "paper"
    """`paper`: classification over 256 samples, regression over the anchor locations; `sampled`: both over the samples."""
    loss_weight: NonNegativeFloat = 10.0
    """Lambda of equation 1; with `normalisation=sampled` the code lineage uses 1."""
    sigma: PositiveFloat = 3.0
    """Smooth L1: quadratic below 1 / sigma^2."""
    pre_nms_train: PositiveInt = 12000
    pre_nms_test: PositiveInt = 6000
    post_nms_train: PositiveInt = 2000
    post_nms_test: PositiveInt = 300
    nms_iou: Fraction = 0.7
    min_size: NonNegativeFloat = 16.0
    """Smallest side of a proposal, in pixels of the original image."""


@dataclass(kw_only=True)
class HeadConfig(Schema):
    """The Fast R-CNN detector on the proposals."""

    rois: PositiveInt = 128
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
    detections: PositiveInt = 100
    mining: bool = False
    """Online hard example mining: the regions with the largest losses are trained on, `positive_fraction` and
    `negative_iou_low` are not asked (Shrivastava et al., CVPR 2016)."""
    mining_nms_iou: Fraction = 0.7
    """Of two regions that overlap by more, mining counts the one with the larger loss."""


Backbones = Literal["small", "alexnet", "zf", "vgg16", "resnet50", "squeezenet1_1"]


@dataclass(kw_only=True)
class BackboneModel(Schema):
    """The layers that every detector begins with."""

    backbone: Backbones = "vgg16"
    weights: str | None = None
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
    proposals_weights: str | None = None
    """Weights of that one, as `weights`."""
    stages: Literal[1, 2] = 2
    """1 leaves the proposals out: the anchors themselves are classified and regressed, all of them (table 10)."""
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RpnConfig = field(default_factory=RpnConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
