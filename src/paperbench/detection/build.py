"""From the configuration to a detector: the one place where the room's keys meet its modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.assembly import make_backbone, two_stage_settings
from paperbench.detection.backbones import Backbone
from paperbench.detection.base import Detector
from paperbench.detection.config import FasterRCNNModel, ModelConfig
from paperbench.detection.deformable import deform
from paperbench.detection.detector import FasterRCNN
from paperbench.detection.roi_head import BoxPredictor, two_layer_head
from paperbench.detection.successors.build import build_fpn, build_rfcn, build_ssd, build_yolo
from paperbench.detection.successors.config import FPNModel, RFCNModel, SSDModel, YOLOModel
from paperbench.detection.unshared import UnsharedFasterRCNN, two_of
from paperbench.detection.windows import OneStage
from paperbench.errors import ConfigError


def build(model: ModelConfig, *, classes: Sequence[str], pretrained: bool = True) -> Detector:
    """A detector for the named classes. `pretrained=False` skips the backbone's weights: a checkpoint will replace them."""
    match model:
        case FPNModel():
            return build_fpn(model, classes=classes, pretrained=pretrained)
        case RFCNModel():
            return build_rfcn(model, classes=classes, pretrained=pretrained)
        case SSDModel():
            return build_ssd(model, classes=classes, pretrained=pretrained)
        case YOLOModel():
            return build_yolo(model, classes=classes, pretrained=pretrained)
        case FasterRCNNModel():
            return build_faster_rcnn(model, classes=classes, pretrained=pretrained)


def build_faster_rcnn(model: FasterRCNNModel, *, classes: Sequence[str], pretrained: bool = True) -> FasterRCNN:
    """Faster R-CNN; arguments as of `build`."""
    backbone = make_backbone(model, pretrained=pretrained)
    deform([backbone.features], model.deformable)
    channels, neck = model.projection or backbone.channels, projection(backbone, model.projection)

    own_head = backbone.head is not None and not model.head.hidden
    if own_head and model.projection:
        raise ConfigError(
            f"model.projection={model.projection}: {model.backbone}'s own head needs its own {backbone.channels} channels. "
            "Give model.projection=0, or a width for a new head (model.head.hidden=256)."
        )
    pool_size = model.head.pool_size or backbone.pool_size
    if own_head:
        if pool_size != backbone.pool_size and model.backbone != "resnet50":
            raise ConfigError(
                f"model.head.pool_size={pool_size}: {model.backbone}'s own head takes {backbone.pool_size}. "
                f"Give model.head.pool_size={backbone.pool_size}, or a width for a new head (model.head.hidden=256)."
            )
        assert backbone.head is not None
        head, hidden = backbone.head, backbone.head_channels
        for module in head.modules():
            if isinstance(module, nn.Dropout):
                module.p = model.head.dropout
    else:
        hidden = model.head.hidden or 1024
        head = two_layer_head(
            in_channels=channels,
            pool_size=pool_size,
            hidden=hidden,
            batch_norm=model.head.batch_norm,
            dropout=model.head.dropout,
        )

    anchors = AnchorGrid(sizes=model.anchors.sizes, ratios=model.anchors.ratios, stride=backbone.stride)
    predictor = BoxPredictor(in_channels=hidden, classes=len(classes))
    proposing = _proposing(model, backbone, pretrained=pretrained)
    settings = two_stage_settings(
        model,
        channels=model.projection or proposing.channels,
        rpn_channels=proposing.rpn_channels,
        anchors_per_location=anchors.per_location,
        pool_size=pool_size,
        classes=classes,
    )
    features, net = backbone.features, FasterRCNN
    if model.stages == 1:
        if not model.shared:
            raise ConfigError(
                "model.shared=false: with model.stages=1 nothing is proposed and nothing to be shared; leave it out"
            )
        settings, net = {**settings, "rpn": nn.Identity()}, OneStage
    elif not model.shared:
        net = UnsharedFasterRCNN
        other = None if proposing is backbone else proposing
        features = two_of(features, other and other.features)
        neck = two_of(neck or nn.Identity(), other and (projection(other, model.projection) or nn.Identity()))
    return net(
        backbone=features,
        neck=neck,
        head=head,
        predictor=predictor,
        anchors=anchors,
        **settings,
    )


def projection(backbone: Backbone, channels: int) -> nn.Module | None:
    """A 1x1 convolution from a backbone's features to so many channels; None for 0."""
    if not channels:
        return None
    return nn.Sequential(nn.Conv2d(backbone.channels, channels, 1), nn.ReLU(inplace=True))


def _proposing(model: FasterRCNNModel, backbone: Backbone, *, pretrained: bool) -> Backbone:
    """What the proposals are made of: the detector's backbone, or another where the configuration names one."""
    if model.proposals_backbone is None:
        return backbone
    own = replace(
        model, backbone=model.proposals_backbone, weights=model.proposals_weights, frozen_layers=None, deformable=0
    )
    other = make_backbone(own, pretrained=pretrained)
    if other.stride != backbone.stride:
        raise ConfigError(
            f"model.proposals_backbone={other.name} has a cell every {other.stride} pixels, model.backbone={backbone.name} every "
            f"{backbone.stride}; give two of the same stride"
        )
    return other


def parameter_groups(model: nn.Module, *, backbone_lr_scale: float) -> list[dict[str, Any]]:
    """Trained parameters with the multiple of the learning rate each group gets: new layers 1, the backbone its own."""
    pretrained, new = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (pretrained if name.startswith("backbone.") else new).append((name, parameter))
    return [
        {"params": new, "lr_scale": 1.0},  # first: its rate is the one that is shown
        {"params": pretrained, "lr_scale": backbone_lr_scale},
    ]
