"""A trained detector for other programs: the whole of it, from pixels to boxes, for one image on a canvas of fixed size.

`FasterRCNN.detect` works on batches and finds out sizes as it goes; a graph that is traced from it would remember those of the
example. `DeployedDetector` computes the same for one image with operators whose shapes either are fixed or stay inside
the graph, and `export_model` compares the two: what is checked is the file against the code that the results came from.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from paperbench.detection import boxes as box_ops
from paperbench.detection import datasets
from paperbench.detection.batches import Batch, BatchMaker
from paperbench.detection.build import load_detector
from paperbench.detection.config import DetectTrain
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.nms import SMALLEST_SIDE, class_scores
from paperbench.detection.rpn import finite_scores, objectness_score
from paperbench.engine.exportable import Exportable, Output, Tensors
from paperbench.errors import ExportError

EXAMPLES = 4
"""Test images that the exported detector is compared on."""

BOX_TOLERANCE = 0.01
"""Pixels: a hundredth of what one could see."""
SCORE_TOLERANCE = 1e-4


class DeployedDetector(nn.Module):
    """The detector for one image of at most `height` x `width` pixels, both multiples of the backbone's stride.

    Input: the canvas (1, 3, height, width) uint8 RGB with the resized image in its upper left corner, its size (1, 2) int64 as
    (height, width), and the factor (1,) float32 by which it was resized. Output, D = `detections_per_image`: boxes (D, 4)
    xyxy in pixels of the canvas, scores (D,) falling, labels (D,) int64, 1..C and 0 where there is no detection.
    """

    grid: Tensor

    def __init__(self, model: FasterRCNN, *, height: int, width: int) -> None:
        super().__init__()
        self.model = model
        with torch.inference_mode():
            rows, columns = model.neck(model.backbone(torch.zeros(1, 3, height, width))).shape[-2:]
        # Computed now: the model's own cache would end up holding the tracer's tensors.
        self.register_buffer("grid", model.anchors(rows, columns).clone(), persistent=False)
        self.apart = float(max(height, width) + 1)
        self.ranked = min(model.rpn_config.pre_nms_topk_test, len(self.grid))
        self.proposed = min(model.rpn_config.post_nms_topk_test, self.ranked)

    def forward(self, images: Tensor, sizes: Tensor, scales: Tensor) -> Tensors:
        model = self.model
        features = model.neck(model.backbone(model.normalise(images, sizes)))
        objectness, moved = model.rpn(features)
        proposals, there = self._proposals(objectness, moved, sizes, scales)
        logits, deltas = model.classify(features, proposals[None])
        return self._detections(logits, deltas, proposals, there, sizes)

    def _proposals(self, logits: Tensor, deltas: Tensor, sizes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """`rpn.propose` for one image: boxes (P, 4) and which of them are there (P,)."""
        model = self.model
        scores = objectness_score(logits)[0]
        best, index = finite_scores(scores, deltas[0]).topk(self.ranked)
        moved = box_ops.decode(self.grid[index], deltas[0][index])
        best = finite_scores(best, moved)
        decoded = box_ops.clip(moved.masked_fill((best == float("-inf"))[:, None], 0.0)[None], sizes)[0]
        small = (decoded[:, 2:] - decoded[:, :2] < model.rpn_config.min_size * scales).any(-1)
        best = best.masked_fill(small, float("-inf"))
        kept, there = _first(nms(decoded, best, model.rpn_config.nms_iou), self.proposed)
        return decoded[kept], there & (best[kept] > float("-inf"))

    def _detections(self, logits: Tensor, deltas: Tensor, proposals: Tensor, there: Tensor, sizes: Tensor) -> Tensors:
        """`nms.postprocess` for one image."""
        model = self.model
        probability = class_scores(logits) * there[:, None]
        classes = len(model.class_names)
        boxes = box_ops.decode(proposals[:, None].expand(-1, classes, -1), deltas[:, 1:], model.head_config.target_std)
        finite = (deltas[:, 1:].isfinite() & boxes.isfinite()).all(-1)
        boxes = boxes.clamp(min=0).minimum(sizes.flip(-1).repeat(1, 2).to(boxes.dtype))
        large = finite & (boxes[..., 2:] - boxes[..., :2] >= SMALLEST_SIDE).all(-1)
        candidates = ((probability > model.head_config.score_threshold) & large).flatten().nonzero()[:, 0]
        labels = torch.arange(1, classes + 1, device=boxes.device).repeat(self.proposed)[candidates]
        scores, boxes = probability.flatten()[candidates], boxes.reshape(-1, 4)[candidates]
        # Boxes of different classes are moved apart, so that one suppression does for all.
        kept_boxes = nms(boxes + labels[:, None] * self.apart, scores, model.head_config.nms_iou)
        kept, present = _first(kept_boxes, min(model.head_config.detections_per_image, self.proposed * classes))
        # One more row stands for no detection: also where there is no candidate at all, something can be picked.
        kept = torch.where(present, kept, -1)
        boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
        scores = torch.cat([scores, scores.new_zeros(1)])
        return boxes[kept], scores[kept], torch.cat([labels, labels.new_zeros(1)])[kept]


def _first(kept: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` of any number of indices, filled up with 0, and which of them are real: (count,) and (count,) bool."""
    real = torch.cat([torch.ones_like(kept), kept.new_zeros(count)])[:count] > 0
    return torch.cat([kept, kept.new_zeros(count)])[:count], real


def export_model(config: DetectTrain, run_dir: Path) -> Exportable:
    """The best detector of a run, with images of its test split; see `engine.task.Exports`.

    Raises `CheckpointError` when there are no weights that fit, and `DataError` when the test images are not where the
    configuration says: without any, nothing could be compared. `ExportError` when it finds nothing in them: the same.
    """
    model, step = load_detector(config, run_dir, torch.device("cpu"))
    if type(model) is not FasterRCNN:
        raise ExportError(
            f"{run_dir}: a {type(model).__name__} cannot be exported; model.name=faster-rcnn with model.shared=true and "
            "model.stages=2 can"
        )
    model = model.float().requires_grad_(False)
    examples = _examples(config, model)
    height, width = examples[0][0].shape[-2:]

    def detect(images: Tensor, sizes: Tensor, scales: Tensor) -> Tensors:
        found, _ = model.detect(_batch(images, sizes, scales))
        return found.boxes[0], found.scores[0], found.labels[0]

    if not any((detect(*inputs)[2] > 0).any() for inputs in examples):
        raise ExportError(
            f"{run_dir}: the detector finds nothing in {len(examples)} test images, so what is exported could not be "
            "compared with it; train it for longer"
        )
    return Exportable(
        module=DeployedDetector(model, height=height, width=width).eval(),
        weights="model",
        inputs=examples,
        input_names=("images", "sizes", "scales"),
        outputs=(
            Output(name="boxes", meaning="(D, 4) xyxy in pixels of the canvas", tolerance=BOX_TOLERANCE),
            Output(name="scores", meaning="(D,) probabilities, falling", tolerance=SCORE_TOLERANCE),
            Output(name="labels", meaning="(D,) 1..C in the order of classes, 0: no detection", tolerance=0),
        ),
        meaning=(
            f"detections in one RGB image, resized by `scales` and put into the upper left corner of a canvas of "
            f"{height} x {width} pixels, 0 elsewhere; `sizes` is its (height, width) there"
        ),
        step=step,
        reference=detect,
        differences=match_detections,
        metadata={"classes": json.dumps(list(model.class_names))},
        translations=_translations,
    )


def _examples(config: DetectTrain, model: FasterRCNN) -> list[Tensors]:
    """Test images, each on a canvas that holds any image the configuration can make."""
    count = min(EXAMPLES, config.data.max_test_images or EXAMPLES)
    dataset = datasets.load(replace(config.data, max_test_images=count), "test")
    make = BatchMaker(
        dataset,
        datasets.store(config.data, dataset, torch.device("cpu")),
        flip=0.0,
        seed=0,
        multiple=model.anchors.stride,
        training=False,
    )
    batches = [make(np.array([index]), np.array([0])) for index in range(len(dataset))]
    longest = max(config.data.max_side, *(side for batch in batches for side in batch.images.shape[-2:]))
    side = -(-longest // model.anchors.stride) * model.anchors.stride
    return [(_on_canvas(batch.images, side), batch.sizes, batch.scales) for batch in batches]


def _on_canvas(images: Tensor, side: int) -> Tensor:
    height, width = images.shape[-2:]
    return nn.functional.pad(images, (0, side - width, 0, side - height))


def _batch(images: Tensor, sizes: Tensor, scales: Tensor) -> Batch:
    """A batch without ground truth."""
    return Batch(
        images=images,
        sizes=sizes,
        scales=scales,
        boxes=torch.zeros(len(images), 1, 4),
        labels=torch.zeros(len(images), 1, dtype=torch.int64),
        indices=torch.zeros(len(images), dtype=torch.int64),
    )


def match_detections(ours: Tensors, theirs: Tensors) -> dict[str, float]:
    """Differences of two sets of detections (boxes (D, 4), scores (D,), labels (D,)), whatever their order.

    Each of ours is matched with one of theirs of the same label, so that boxes and scores differ least; detections with
    scores that are equal up to rounding may stand in another order. A detection without a counterpart counts as infinite.
    """
    from scipy.optimize import linear_sum_assignment

    (our_boxes, our_scores, our_labels), (boxes, scores, labels) = (
        tuple(values[answer[2] > 0] for values in answer) for answer in (ours, theirs)
    )
    missing = {"boxes": float("inf"), "scores": float("inf"), "labels": float("inf")}
    if our_labels.sort().values.tolist() != labels.sort().values.tolist():
        return missing
    if not len(labels):
        return dict.fromkeys(missing, 0.0)
    in_pixels = (our_boxes[:, None] - boxes[None]).abs().amax(-1)
    in_scores = (our_scores[:, None] - scores[None]).abs()
    # In units of what is allowed; another label costs more than any pair of the same one can.
    cost = in_pixels / BOX_TOLERANCE + in_scores / SCORE_TOLERANCE
    cost = cost + (our_labels[:, None] != labels[None]) * (cost.max() + 1) * len(labels)
    rows, columns = linear_sum_assignment(cost.double().numpy())
    return {
        "boxes": float(in_pixels[rows, columns].max()),
        "scores": float(in_scores[rows, columns].max()),
        "labels": float((our_labels[rows] - labels[columns]).abs().max()),
    }


def _translations() -> dict[Any, Any]:
    """RoIPool is ONNX's MaxRoiPool; the exporter's own translation expects other arguments than the operator has."""
    from onnxscript import opset18

    def roi_pool(features, rois, spatial_scale: float, pooled_height: int, pooled_width: int):
        pooled = opset18.MaxRoiPool(
            features, rois, pooled_shape=(pooled_height, pooled_width), spatial_scale=spatial_scale
        )
        return pooled, pooled  # the second output, where each maximum came from, is for the gradient and has no reader

    return {torch.ops.torchvision.roi_pool.default: roi_pool}
