"""What the builders of several detectors share: backbones, and the settings of nets with proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paperbench.detection.backbones import BACKBONES, Backbone, freeze
from paperbench.detection.model_config import BackboneModel, FasterRCNNModel
from paperbench.detection.rpn import RPNHead, RPNLoss


def make_backbone(model: BackboneModel, *, pretrained: bool) -> Backbone:
    """The layers up to the features, the first of them frozen."""
    backbone = BACKBONES[model.backbone](model.weights if pretrained else None)
    freeze(backbone, model.frozen_layers)
    return backbone


def two_stage_settings(
    model: FasterRCNNModel,
    *,
    channels: int,
    rpn_channels: int,
    anchors_per_location: int,
    pool_size: int,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Arguments of `FasterRCNN` beside its backbone, neck, head, predictor and anchors.

    channels: of the features; rpn_channels: of the region proposal network, unless the configuration says otherwise.
    """
    rpn, head = model.rpn, model.head
    return {
        "rpn": RPNHead(
            in_channels=channels,
            channels=rpn.channels or rpn_channels,
            anchors=anchors_per_location,
            softmax=rpn.objectness == "softmax",
        ),
        "rpn_loss": RPNLoss(
            positive_iou=rpn.positive_iou,
            negative_iou=rpn.negative_iou,
            sampled=rpn.sampled,
            positive_fraction=rpn.positive_fraction,
            ignore_cross_boundary=rpn.ignore_cross_boundary,
            normalisation=rpn.normalisation,
            weight=rpn.loss_weight,
            sigma=rpn.sigma,
        ),
        "pre_nms_train": rpn.pre_nms_train,
        "pre_nms_test": rpn.pre_nms_test,
        "post_nms_train": rpn.post_nms_train,
        "post_nms_test": rpn.post_nms_test,
        "rpn_nms_iou": rpn.nms_iou,
        "min_size": rpn.min_size,
        "rois": head.rois,
        "positive_fraction": head.positive_fraction,
        "positive_iou": head.positive_iou,
        "negative_iou_low": head.negative_iou_low,
        "pool": head.pool,
        "pool_size": pool_size,
        "target_std": head.target_std,
        "sigma": head.sigma,
        "score_threshold": head.score_threshold,
        "nms_iou": head.nms_iou,
        "detections_per_image": head.detections,
        "mining": head.mining,
        "mining_nms_iou": head.mining_nms_iou,
        "classes": classes,
    }
