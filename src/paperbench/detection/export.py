"""A trained detector for other programs: the whole of it, from pixels to boxes, for one image on a canvas of fixed size.

`detection.deployed` has the module, `detection.outcomes` what its answer may be. What is checked is the file against the code that
the results came from: `detect` itself must give one of these outcomes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paperbench.detection import datasets
from paperbench.detection.batches import BatchMaker
from paperbench.detection.build import load_detector
from paperbench.detection.config import DetectTrain, ModelConfig
from paperbench.detection.deployed import Deployed, DeployedOneStage, DeployedTwoStage, batch_of
from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.ssd import SSD
from paperbench.detection.detectors.yolo import YOLO
from paperbench.detection.model_config import FasterRCNNModel, SSDModel, YOLOModel
from paperbench.detection.outcomes import BOX_TOLERANCE, SCORE_TOLERANCE, differences, outcomes_of
from paperbench.engine.exportable import Exportable, Output, Tensors
from paperbench.errors import ConfigError, ExportError

EXAMPLES = 4
"""Test images that the exported detector is compared on."""


def export_model(config: DetectTrain, run_dir: Path) -> Exportable:
    """The best detector of a run, with images of its test split; see `engine.task.Exports`.

    Raises `ConfigError` for a detector that cannot be written, `CheckpointError` when there are no weights that fit, and
    `DataError` when the test images are not where the configuration says: without any, nothing could be compared. `ExportError`
    when it finds nothing in them: the same.
    """
    _require_exportable(config.model, run_dir)
    model, step = load_detector(config, run_dir, torch.device("cpu"))
    model = model.float().requires_grad_(False)
    examples = _examples(config, model)
    height, width = examples[0][0].shape[-2:]
    names = ("images", "sizes", "scales")
    scaled = "resized by `scales` and "
    if isinstance(model, FasterRCNN):
        module: Deployed = DeployedTwoStage(model, height=height, width=width)
    else:
        assert isinstance(model, SSD | YOLO)
        module, names, scaled = DeployedOneStage(model), names[:2], "resized and "
    reference = outcomes_of(model)
    _require_own_outcome(model, reference, examples, run_dir)
    return Exportable(
        module=module.eval(),
        weights="model",
        inputs=[inputs[: len(names)] for inputs in examples],
        input_names=names,
        outputs=(
            Output(name="boxes", meaning="(D, 4) xyxy in pixels of the canvas", tolerance=BOX_TOLERANCE),
            Output(name="scores", meaning="(D,) probabilities, falling", tolerance=SCORE_TOLERANCE),
            Output(name="labels", meaning="(D,) 1..C in the order of classes, 0: no detection", tolerance=0),
        ),
        meaning=(
            f"detections in one RGB image, {scaled}put into the upper left corner of a canvas of "
            f"{height} x {width} pixels, 0 elsewhere; `sizes` is its (height, width) there"
        ),
        step=step,
        reference=reference,
        differences=differences,
        metadata={"classes": json.dumps(list(model.class_names))},
        translations=_translations,
    )


def _require_exportable(model: ModelConfig, run_dir: Path) -> None:
    """Raise `ConfigError` for a detector that is not written out for one image in `detection.deployed`."""
    if isinstance(model, SSDModel | YOLOModel):
        return
    if type(model) is FasterRCNNModel and model.shared and model.stages == 2:
        return
    kind = f"model.name={model.name}"
    if type(model) is FasterRCNNModel:
        kind += " with model.stages=1" if model.stages == 1 else " with model.shared=false"
    raise ConfigError(
        f"{run_dir}: {kind} cannot be exported; faster-rcnn (with model.shared=true and model.stages=2), ssd and yolo can. "
        "Train one of these, or use the run's own model: `paperbench predict`, or `paperbench.load` from Python"
    )


def _require_own_outcome(model: Detector, reference: Any, examples: list[Tensors], run_dir: Path) -> None:
    """Raise `ExportError` unless `detect` gives an outcome of `reference` for every example, and one of them has a certain one."""
    certain = 0
    for inputs in examples:
        with torch.inference_mode():
            found, _ = model.detect(batch_of(*inputs))
            outcomes = reference(*inputs)
        apart = differences(outcomes, (found.boxes[0], found.scores[0], found.labels[0]))
        if not (apart["boxes"] <= BOX_TOLERANCE and apart["scores"] <= SCORE_TOLERANCE):
            raise ExportError(
                f"{run_dir}: its own detections differ from what its numbers allow (boxes by {apart['boxes']:.3g}, scores by "
                f"{apart['scores']:.3g}), so that no file can be compared with them; nothing was written. Please report this"
            )
        certain += int(outcomes.certain.sum())
    if not certain:
        raise ExportError(
            f"{run_dir}: the detector finds nothing in {len(examples)} test images that rounding could not change, so what is "
            "exported could not be compared with it; train it for longer"
        )


def _examples(config: DetectTrain, model: Detector) -> list[Tensors]:
    """Test images, each on a canvas that holds any image the configuration can make."""
    count = min(EXAMPLES, config.data.max_test_images or EXAMPLES)
    dataset = datasets.load(replace(config.data, max_test_images=count), "test")
    stride = model.anchors.stride if isinstance(model, FasterRCNN) else 1
    make = BatchMaker(
        dataset,
        datasets.store(config.data, dataset, torch.device("cpu")),
        flip=0.0,
        seed=0,
        multiple=model.side or stride,
        square=model.square,
        training=False,
    )
    batches = [make(np.array([index]), np.array([0])) for index in range(len(dataset))]
    longest = max(config.data.max_side, *(side for batch in batches for side in batch.images.shape[-2:]))
    side = model.side or -(-longest // stride) * stride
    return [(_on_canvas(batch.images, side), batch.sizes, batch.scales) for batch in batches]


def _on_canvas(images: Tensor, side: int) -> Tensor:
    height, width = images.shape[-2:]
    return nn.functional.pad(images, (0, side - width, 0, side - height))


def _translations() -> dict[Any, Any]:
    """RoIPool is ONNX's MaxRoiPool; the exporter's own translation expects other arguments than the operator has."""
    from onnxscript import opset18

    def roi_pool(features, rois, spatial_scale: float, pooled_height: int, pooled_width: int):
        pooled = opset18.MaxRoiPool(
            features, rois, pooled_shape=(pooled_height, pooled_width), spatial_scale=spatial_scale
        )
        return pooled, pooled  # the second output, where each maximum came from, is for the gradient and has no reader

    return {torch.ops.torchvision.roi_pool.default: roi_pool}
