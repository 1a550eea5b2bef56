"""Detectors written out for one image on a canvas of fixed size, with operators that an exporter can follow.

`Detector.detect` works on batches and finds out sizes as it goes; a graph that is traced from it would remember those of the
example. These modules compute the same with shapes that either are fixed or stay inside the graph.

P regions of the image (proposals, or the boxes of a dense grid), C classes, D detections.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from paperbench.detection import boxes as box_ops
from paperbench.detection.batches import Batch
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.ssd import SSD
from paperbench.detection.detectors.yolo import YOLO, decode_cells
from paperbench.detection.model_config import HeadConfig, SSDModel, YOLOModel
from paperbench.detection.nms import SMALLEST_SIDE, class_scores, finite_or_nan
from paperbench.detection.rpn import finite_scores, objectness_score
from paperbench.engine.exportable import Tensors


class Deployed(nn.Module):
    """A detector for one image of at most `height` x `width` pixels, both multiples of the detector's stride.

    Input: the canvas (1, 3, height, width) uint8 RGB with the resized image in its upper left corner and its size (1, 2) int64 as
    (height, width); what else a subclass says. Output: boxes (D, 4) xyxy in pixels of the canvas, scores (D,) falling, labels (D,)
    int64, 1..C and 0 where there is no detection.
    """

    def __init__(self, config: HeadConfig | SSDModel | YOLOModel, *, regions: int, classes: int, longest: int) -> None:
        super().__init__()
        self.config = config
        self.regions, self.classes = regions, classes
        self.apart = float(longest + 1)

    def pick(self, probability: Tensor, boxes: Tensor, sizes: Tensor) -> Tensors:
        """`nms.postprocess` for one image: probability (P, C), NaN or 0 where there is nothing, and boxes (P, C, 4)."""
        finite = boxes.isfinite().all(-1)
        boxes = boxes.clamp(min=0).minimum(sizes.flip(-1).repeat(1, 2).to(boxes.dtype))
        large = finite & (boxes[..., 2:] - boxes[..., :2] >= SMALLEST_SIDE).all(-1)
        candidates = ((probability > self.config.score_threshold) & large).flatten().nonzero()[:, 0]
        labels = torch.arange(1, self.classes + 1, device=boxes.device).repeat(self.regions)[candidates]
        scores, boxes = probability.flatten()[candidates], boxes.reshape(-1, 4)[candidates]
        # Boxes of different classes are moved apart, so that one suppression does for all.
        kept_boxes = nms(boxes + labels[:, None] * self.apart, scores, self.config.nms_iou)
        kept, present = _first(kept_boxes, min(self.config.detections_per_image, self.regions * self.classes))
        # One more row stands for no detection: also where there is no candidate at all, something can be picked.
        kept = torch.where(present, kept, -1)
        boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
        scores = torch.cat([scores, scores.new_zeros(1)])
        return boxes[kept], scores[kept], torch.cat([labels, labels.new_zeros(1)])[kept]


class DeployedTwoStage(Deployed):
    """Faster R-CNN; a further input is the factor (1,) float32 by which the image was resized."""

    grid: Tensor

    def __init__(self, model: FasterRCNN, *, height: int, width: int) -> None:
        with torch.inference_mode():
            rows, columns = model.neck(model.backbone(torch.zeros(1, 3, height, width))).shape[-2:]
        grid = model.anchors(rows, columns)
        ranked = min(model.rpn_config.pre_nms_topk_test, len(grid))
        super().__init__(
            model.head_config,
            regions=min(model.rpn_config.post_nms_topk_test, ranked),
            classes=len(model.class_names),
            longest=max(height, width),
        )
        self.model = model
        # Computed now: the model's own cache would end up holding the tracer's tensors.
        self.register_buffer("grid", grid.clone(), persistent=False)
        self.ranked = ranked

    def forward(self, images: Tensor, sizes: Tensor, scales: Tensor) -> Tensors:
        model = self.model
        features = model.neck(model.backbone(model.normalise(images, sizes)))
        objectness, moved = model.rpn(features)
        proposals, there = self._proposals(objectness, moved, sizes, scales)
        probability, boxes = refined(model, model.classify(features, proposals[None]), proposals)
        return self.pick(probability * there[:, None], boxes, sizes)

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
        kept, there = _first(nms(decoded, best, model.rpn_config.nms_iou), self.regions)
        return decoded[kept], there & (best[kept] > float("-inf"))


def refined(model: FasterRCNN, outputs: tuple[Tensor, Tensor], proposals: Tensor) -> Tensors:
    """Return what the detector makes of proposals (P, 4): probability (P, C) and boxes (P, C, 4), NaN where a number is not finite.

    outputs: logits (P, C + 1) and deltas (P, C + 1, 4).
    """
    logits, deltas = outputs
    classes = logits.shape[-1] - 1
    deltas = finite_or_nan(deltas[:, 1:])
    boxes = box_ops.decode(proposals[:, None].expand(-1, classes, -1), deltas, model.head_config.target_std)
    return class_scores(logits), boxes


class DeployedOneStage(Deployed):
    """SSD or YOLO: every region of a dense grid has classes and a box at once."""

    def __init__(self, model: SSD | YOLO) -> None:
        side = model.side
        with torch.inference_mode():
            probability, _ = one_stage(model, torch.zeros(1, 3, side, side), torch.tensor([[side, side]]))
        super().__init__(model.config, regions=len(probability), classes=len(model.class_names), longest=side)
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor) -> Tensors:
        probability, boxes = one_stage(self.model, images, sizes)
        return self.pick(probability, boxes, sizes)


def one_stage(model: SSD | YOLO, images: Tensor, sizes: Tensor) -> Tensors:
    """Return probability (P, C) and boxes (P, C, 4) of one image, NaN where a number is not finite."""
    batch = batch_of(images, sizes, torch.ones(1))
    if isinstance(model, SSD):
        logits, deltas, grid = model.predict(batch)
        probability = class_scores(logits[0])
        boxes = box_ops.decode(grid, finite_or_nan(deltas[0]), model.config.target_std)
    else:
        cells, confidence, scores = model.predict(batch)
        probability = finite_or_nan(confidence[..., None] * scores[:, :, None]).flatten(1, 2).clamp(0, 1)[0]
        boxes = decode_cells(cells, grid=model.config.grid, side=model.side).flatten(1, 2)[0]
    return probability, boxes[:, None].expand(-1, probability.shape[-1], -1)


def batch_of(images: Tensor, sizes: Tensor, scales: Tensor) -> Batch:
    """A batch without ground truth."""
    return Batch(
        images=images,
        sizes=sizes,
        scales=scales,
        boxes=torch.zeros(len(images), 1, 4),
        labels=torch.zeros(len(images), 1, dtype=torch.int64),
        indices=torch.zeros(len(images), dtype=torch.int64),
    )


def _first(kept: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` of any number of indices, filled up with 0, and which of them are real: (count,) and (count,) bool."""
    real = torch.cat([torch.ones_like(kept), kept.new_zeros(count)])[:count] > 0
    return torch.cat([kept, kept.new_zeros(count)])[:count], real
