"""Detectors from their configuration, and from a run's checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from paperbench.detection.config import DetectTrain, FasterRCNNModel, ModelConfig, RCNNTrain
from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.fast_rcnn import build_fast_rcnn
from paperbench.detection.detectors.faster_rcnn import build_faster_rcnn
from paperbench.detection.detectors.fpn import build_fpn
from paperbench.detection.detectors.mask_rcnn import build_mask_rcnn
from paperbench.detection.detectors.one_stage import build_one_stage
from paperbench.detection.detectors.rcnn import build_rcnn
from paperbench.detection.detectors.rfcn import build_rfcn
from paperbench.detection.detectors.spp_net import build_spp_net
from paperbench.detection.detectors.ssd import build_ssd
from paperbench.detection.detectors.unshared import build_unshared
from paperbench.detection.detectors.yolo import build_yolo
from paperbench.detection.model_config import FPNModel, MaskRCNNModel, RFCNModel, SSDModel, YOLOModel
from paperbench.detection.rcnn_config import FastRCNNModel, RCNNModel, RCNNModelConfig, SPPNetModel
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.reporter import Reporter, SilentReporter
from paperbench.errors import CheckpointError


def build(
    model: ModelConfig | RCNNModelConfig, *, classes: Sequence[str], pretrained: bool = True, svm: bool | None = None
) -> Detector:
    """Return a detector for the named classes.

    `pretrained=False` skips the backbone's weights: a checkpoint will replace them. svm: whether a net of the R-CNN family holds
    SVMs; by default as `model.classifier` says.
    """
    match model:
        case MaskRCNNModel():
            return build_mask_rcnn(model, classes=classes, pretrained=pretrained)
        case FPNModel():
            return build_fpn(model, classes=classes, pretrained=pretrained)
        case RFCNModel():
            return build_rfcn(model, classes=classes, pretrained=pretrained)
        case SSDModel():
            return build_ssd(model, classes=classes, pretrained=pretrained)
        case YOLOModel():
            return build_yolo(model, classes=classes, pretrained=pretrained)
        case FasterRCNNModel(stages=1):
            return build_one_stage(model, classes=classes, pretrained=pretrained)
        case FasterRCNNModel(shared=False):
            return build_unshared(model, classes=classes, pretrained=pretrained)
        case FasterRCNNModel():
            return build_faster_rcnn(model, classes=classes, pretrained=pretrained)
        case RCNNModel():
            return build_rcnn(model, classes=classes, pretrained=pretrained, svm=svm)
        case SPPNetModel():
            return build_spp_net(model, classes=classes, pretrained=pretrained, svm=svm)
        case FastRCNNModel():
            return build_fast_rcnn(model, classes=classes, pretrained=pretrained, svm=svm)


def build_for(config: DetectTrain | RCNNTrain, *, classes: Sequence[str], pretrained: bool = True) -> Detector:
    """Return the detector of a configuration, with everything that its evaluation needs."""
    svm = config.needs_svm if isinstance(config, RCNNTrain) else None
    return build(config.model, classes=classes, pretrained=pretrained, svm=svm)


def load_detector(
    config: DetectTrain | RCNNTrain,
    checkpoint: Path | str,
    device: torch.device,
    reporter: Reporter | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> tuple[Detector, int]:
    """Return the trained detector of a run directory or checkpoint file, in test mode, and its step.

    `classes`: the label set of the data it is to be used on; by default the one it was trained on. Raises `CheckpointError` when
    the weights belong to another net or label set.
    """
    state, step, path = load_for_evaluation(checkpoint, reporter or SilentReporter())
    try:
        weights = state["module"]
        names = weights["_extra_state"]["classes"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: holds no detector; give a run of one, such as `paperbench train faster-rcnn` makes"
        ) from error
    model = build_for(config, classes=names if classes is None else classes, pretrained=False)
    if classes is not None:
        model.set_extra_state(weights["_extra_state"])  # says which label set differs before any shape does
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(
            f"{path}: does not fit the model of this configuration ({first}). Leave the model's keys as they were in training."
        ) from error
    return model.to(device).eval(), step


def load_model(config: DetectTrain | RCNNTrain, run_dir: Path) -> Detector:
    """Return the trained detector of a run, or the one that an evaluation names; see `engine.task.LoadsModel`."""
    return load_detector(config, getattr(config, "checkpoint", "") or run_dir, torch.device("cpu"))[0]
