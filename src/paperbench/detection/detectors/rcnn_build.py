"""From the configuration to a detector on given proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from paperbench.detection.backbones import Backbone, make_backbone
from paperbench.detection.config import RegionTrain
from paperbench.detection.deformable import deform
from paperbench.detection.detectors.fast_rcnn import RegionNet
from paperbench.detection.detectors.linear import LinearBoxes, LinearScores
from paperbench.detection.detectors.rcnn import RCNN
from paperbench.detection.detectors.spp_net import SPPNet
from paperbench.detection.rcnn_config import FastRCNNModel, RCNNModel, SPPNetModel
from paperbench.detection.roi_head import BoxPredictor, two_layer_head
from paperbench.errors import ConfigError

AnyModel = FastRCNNModel | SPPNetModel | RCNNModel


def build(model: AnyModel, *, classes: Sequence[str], pretrained: bool = True, svm: bool | None = None) -> RegionNet:
    """A detector for the named classes. `pretrained=False` skips the backbone's weights: a checkpoint will replace them.

    svm: whether it holds SVMs; by default as `model.classifier` says.
    """
    check(model)
    backbone = make_backbone(model, pretrained=pretrained)
    deform([backbone.features], model.deformable)
    channels, neck = backbone.channels, None
    if model.projection:
        neck = nn.Sequential(nn.Conv2d(channels, model.projection, 1), nn.ReLU(inplace=True))
        channels = model.projection
    pool_size = model.head.pool_size or backbone.pool_size
    pooled = channels * pool_size**2
    if isinstance(model, SPPNetModel):
        pooled = channels * sum(level**2 for level in model.pyramid)
    head, hidden = _head(model, backbone, pooled=pooled, pool_size=pool_size)
    names = len(classes)
    settings: dict[str, Any] = {
        "backbone": backbone.features,
        "neck": neck,
        "head": head,
        "predictor": BoxPredictor(in_channels=hidden, classes=names),
        "stride": backbone.stride,
        "channels": channels,
        "pool": model.head.pool,
        "pool_size": pool_size,
        "rois": model.head.rois,
        "positive_fraction": model.head.positive_fraction,
        "positive_iou": model.head.positive_iou,
        "negative_iou_low": model.head.negative_iou_low,
        "target_std": model.head.target_std,
        "sigma": model.head.sigma,
        "score_threshold": model.head.score_threshold,
        "nms_iou": model.head.nms_iou,
        "detections_per_image": model.head.detections,
        "layer": model.features,
        "classifier": model.classifier,
        "box_source": {"multi-task": "predictor", "stage-wise": "predictor"}.get(model.boxes, model.boxes),
        "classes": classes,
    }
    if model.classifier == "svm" if svm is None else svm:
        width = {"pool5": pooled, "fc6": _first_width(head, hidden), "fc7": hidden}[model.features]
        settings["svm"] = LinearScores(features=width, classes=names)
    if model.boxes == "ridge":
        settings["ridge"] = LinearBoxes(features=pooled, classes=names)
    if isinstance(model, SPPNetModel):
        return SPPNet(pyramid=model.pyramid, **settings)
    if isinstance(model, RCNNModel):
        return RCNN(crop=model.crop, context=model.context, crops=model.crops, frozen=not model.fine_tune, **settings)
    return RegionNet(**settings)


def build_for(config: RegionTrain, *, classes: Sequence[str], pretrained: bool = True) -> RegionNet:
    """`build` with what the evaluation of `config` needs."""
    return build(config.model, classes=classes, pretrained=pretrained, svm=needs_svm(config))


def needs_svm(config: RegionTrain) -> bool:
    """Whether SVMs are fitted."""
    return config.model.classifier == "svm" or "svm" in config.evaluation.variants


def check(model: AnyModel) -> None:
    """Raises `ConfigError` for settings that do not go together, all of them at once."""
    faults = []
    if model.head.mining:
        faults.append("model.head.mining: is not for detectors on given proposals; leave it out")
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


def _head(model: AnyModel, backbone: Backbone, *, pooled: int, pool_size: int) -> tuple[nn.Sequential, int]:
    """The head on pooled regions and the width of its output: the backbone's own, or two new layers."""
    own = backbone.head is not None and not model.head.hidden
    if own and (isinstance(model, SPPNetModel) or pool_size != backbone.pool_size) and model.backbone != "resnet50":
        # Another number of inputs: fc6 begins anew, fc7 keeps its weights.
        layers = list(cast(nn.Sequential, backbone.head))
        place = next(place for place, part in enumerate(layers) if isinstance(part, nn.Linear))
        layers[place] = nn.Linear(pooled, cast(nn.Linear, layers[place]).out_features)
        head, hidden = nn.Sequential(*layers), backbone.head_channels
    elif own:
        head, hidden = cast(nn.Sequential, backbone.head), backbone.head_channels
    else:
        hidden = model.head.hidden or 1024
        head = two_layer_head(
            in_channels=pooled, pool_size=1, hidden=hidden, batch_norm=model.head.batch_norm, dropout=model.head.dropout
        )
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = model.head.dropout
    return head, hidden


def _first_width(head: nn.Sequential, otherwise: int) -> int:
    return next((part.out_features for part in head if isinstance(part, nn.Linear)), otherwise)
