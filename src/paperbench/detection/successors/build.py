"""From the configurations of the successors to their nets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.assembly import make_backbone, two_stage_settings
from paperbench.detection.backbones import Backbone
from paperbench.detection.deformable import deform
from paperbench.detection.model_config import FasterRCNNModel, HeadConfig
from paperbench.detection.roi_head import BoxPredictor, two_layer_head
from paperbench.detection.successors.config import FPNModel, MaskRCNNModel, RFCNModel, SSDModel, YOLOModel
from paperbench.detection.successors.default_boxes import DefaultBoxes
from paperbench.detection.successors.fpn import FPN
from paperbench.detection.successors.levels import BottomUp, Deeper, PyramidNeck
from paperbench.detection.successors.mask_head import MaskHead
from paperbench.detection.successors.mask_rcnn import MaskRCNN
from paperbench.detection.successors.pyramid import PyramidAnchors
from paperbench.detection.successors.rfcn import RFCN, dilated, surroundings
from paperbench.detection.successors.ssd import SSD, Outputs, VGGMaps
from paperbench.detection.successors.yolo import YOLO, ConvolutionalHead, connected_head, further_layers
from paperbench.errors import ConfigError


def build_fpn(model: FPNModel, *, classes: Sequence[str], pretrained: bool = True) -> FPN:
    """FPN, with the branch for masks where the configuration is Mask R-CNN's."""
    _two_shared_stages(model)
    backbone = make_backbone(model, pretrained=pretrained)
    bottom_up = BottomUp(backbone, finest=model.pyramid.finest)
    deform(list(bottom_up.stages), model.deformable)
    pyramid, channels = model.pyramid, model.pyramid.channels
    if model.projection:
        raise ConfigError(
            f"model.projection={model.projection}: maps of a pyramid are projected anyway; give model.pyramid.channels instead"
        )
    pooled_strides = _extended(bottom_up.strides, pyramid.deeper)
    strides = _extended(pooled_strides, pyramid.pooled)
    if len(model.anchors.sizes) != len(strides):
        raise ConfigError(
            f"model.anchors.sizes={list(model.anchors.sizes)}: the pyramid has maps of stride "
            f"{', '.join(map(str, strides))}; give one size for each of these {len(strides)}"
        )
    anchors = PyramidAnchors(sizes=model.anchors.sizes, ratios=model.anchors.ratios, strides=strides)
    pool_size = model.head.pool_size or 7
    hidden = model.head.hidden or 1024
    settings: dict[str, Any] = {
        "backbone": bottom_up,
        "neck": PyramidNeck(bottom_up.channels, channels=channels, deeper=pyramid.deeper, pooled=pyramid.pooled),
        "head": two_layer_head(
            in_channels=channels,
            pool_size=pool_size,
            hidden=hidden,
            batch_norm=model.head.batch_norm,
            dropout=model.head.dropout,
        ),
        "predictor": BoxPredictor(in_channels=hidden, classes=len(classes)),
        "anchors": anchors,
        "pooled_strides": pooled_strides,
        "canonical": pyramid.canonical,
        **two_stage_settings(
            model,
            channels=channels,
            rpn_channels=channels,
            anchors_per_location=anchors.per_location,
            pool_size=pool_size,
            classes=classes,
        ),
    }
    if not isinstance(model, MaskRCNNModel):
        return FPN(**settings)
    mask = model.mask
    return MaskRCNN(
        mask_head=MaskHead(
            in_channels=channels, channels=mask.channels, convolutions=mask.convolutions, classes=len(classes)
        ),
        mask_pool_size=mask.pool_size,
        mask_weight=mask.loss_weight,
        **settings,
    )


def build_rfcn(model: RFCNModel, *, classes: Sequence[str], pretrained: bool = True) -> RFCN:
    """R-FCN."""
    _two_shared_stages(model)
    usual = HeadConfig()
    for key in ("hidden", "batch_norm", "dropout"):
        if getattr(model.head, key) != getattr(usual, key):
            raise ConfigError(
                f"model.head.{key}={getattr(model.head, key)}: regions of R-FCN have no layers of their own; leave it out"
            )
    backbone = make_backbone(model, pretrained=pretrained)
    trunk, channels = _before_the_maps(model, backbone)
    deform([backbone.features, trunk], model.deformable)
    anchors = AnchorGrid(sizes=model.anchors.sizes, ratios=model.anchors.ratios, stride=backbone.stride)
    return RFCN(
        backbone=backbone.features,
        trunk=trunk,
        channels=channels,
        anchors=anchors,
        **two_stage_settings(
            model,
            channels=backbone.channels,
            rpn_channels=backbone.rpn_channels,
            anchors_per_location=anchors.per_location,
            pool_size=model.head.pool_size or 7,
            classes=classes,
        ),
    )


def _before_the_maps(model: RFCNModel, backbone: Backbone) -> tuple[nn.Sequential, int]:
    """What stands between the backbone's map and R-FCN's score maps, and its channels."""
    channels = backbone.channels
    if backbone.name == "resnet50":
        if model.context:
            raise ConfigError(
                f"model.context={model.context}: resnet50 has a stage of its own there; give 0, or another backbone"
            )
        stage = backbone.stages[-1]
        layers, channels = [dilated(stage.module)], stage.channels
    else:
        layers = [surroundings(channels) for _ in range(model.context)]
    if model.projection:
        layers.append(nn.Sequential(nn.Conv2d(channels, model.projection, 1), nn.ReLU(inplace=True)))
        channels = model.projection
    return nn.Sequential(*layers), channels


def _two_shared_stages(model: FasterRCNNModel) -> None:
    if not model.shared or model.stages == 1:
        wrong = "model.stages=1" if model.stages == 1 else "model.shared=false"
        raise ConfigError(f"{wrong} is for model.name=faster-rcnn; leave it out with model.name={model.name}")


def _extended(strides: Sequence[int], more: int) -> tuple[int, ...]:
    return (*strides, *(strides[-1] * 2**step for step in range(1, more + 1)))


def build_ssd(model: SSDModel, *, classes: Sequence[str], pretrained: bool = True) -> SSD:
    """SSD on as many maps as there are entries of `boxes.ratios`; those of VGG-16 are the paper's."""
    maps = len(model.boxes.ratios)
    if len(model.boxes.sizes) != maps + 1:
        raise ConfigError(
            f"model.boxes.sizes={list(model.boxes.sizes)}: {maps} maps (one for each entry of model.boxes.ratios) take "
            f"{maps + 1} sizes, the last for the second square of the coarsest map"
        )
    net, neck, channels = _paper_maps(model, maps, pretrained) or _maps(model, maps, pretrained)
    boxes = DefaultBoxes(side=model.side, sizes=model.boxes.sizes, ratios=model.boxes.ratios)
    return SSD(
        backbone=net,
        neck=neck,
        outputs=Outputs(channels=channels, boxes=boxes.per_location, classes=len(classes)),
        boxes=boxes,
        positive_iou=model.positive_iou,
        negatives=model.negatives,
        loss_weight=model.loss_weight,
        target_std=model.target_std,
        score_threshold=model.score_threshold,
        nms_iou=model.nms_iou,
        detections_per_image=model.detections,
        classes=classes,
    )


def _paper_maps(model: SSDModel, maps: int, pretrained: bool) -> tuple[nn.Module, nn.Module, tuple[int, ...]] | None:
    """SSD300 on VGG-16, whose maps torchvision has; None for anything else. (Its variant for 512 pixels is not the paper's.)"""
    if model.backbone != "vgg16" or (model.side, maps) != (VGGMaps.SIDE, len(VGGMaps.CHANNELS)):
        return None
    if model.deformable:
        raise ConfigError("model.deformable: the paper's maps of VGG-16 are taken as they are; give model.deformable=0")
    backbone = make_backbone(model, pretrained=pretrained)
    assert isinstance(backbone.features, nn.Sequential)
    # torchvision finds its places by the pooling layers, and drops the last.
    return VGGMaps(nn.Sequential(*backbone.features, nn.MaxPool2d(2))), nn.Identity(), VGGMaps.CHANNELS


def _maps(model: SSDModel, maps: int, pretrained: bool) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    """The maps of any backbone from `finest` on, with further stages below until there are enough."""
    bottom_up = BottomUp(make_backbone(model, pretrained=pretrained), finest=model.finest, key="model.finest")
    deform(list(bottom_up.stages), model.deformable)
    deeper = maps - len(bottom_up.channels)
    if deeper < 0:
        raise ConfigError(
            f"model.boxes.ratios: {maps} entries for the {len(bottom_up.channels)} maps that {model.backbone} has from "
            f"model.finest={model.finest} on; give one for each, or a coarser model.finest"
        )
    channels = (*bottom_up.channels, *[model.extra_channels] * deeper)
    return bottom_up, Deeper(bottom_up.channels[-1], channels=model.extra_channels, count=deeper), channels


def build_yolo(model: YOLOModel, *, classes: Sequence[str], pretrained: bool = True) -> YOLO:
    """YOLO."""
    backbone = make_backbone(model, pretrained=pretrained)
    deform([backbone.features], model.deformable)
    halvings = round(math.log2(max(1.0, model.side / (model.grid * backbone.stride))))
    if model.grid * backbone.stride * 2**halvings != model.side:
        sides = ", ".join(str(model.grid * backbone.stride * 2**power) for power in range(4))
        raise ConfigError(
            f"model.side={model.side}: with model.grid={model.grid} and the stride {backbone.stride} of {model.backbone} it can "
            f"be {sides}"
        )
    outputs = 5 * model.boxes + len(classes)
    if model.head == "connected":
        head = connected_head(
            in_channels=model.channels, grid=model.grid, hidden=model.hidden, outputs=outputs, dropout=model.dropout
        )
    else:
        head = ConvolutionalHead(in_channels=model.channels, outputs=outputs)
    return YOLO(
        backbone=backbone.features,
        neck=further_layers(backbone.channels, channels=model.channels, halvings=halvings),
        head=head,
        side=model.side,
        grid=model.grid,
        boxes=model.boxes,
        coordinate_weight=model.coordinate_weight,
        empty_weight=model.empty_weight,
        score_threshold=model.score_threshold,
        nms_iou=model.nms_iou,
        detections_per_image=model.detections,
        classes=classes,
    )
