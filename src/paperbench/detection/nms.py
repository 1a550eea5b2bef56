"""Non-maximum suppression: of candidates by score alone, and of the class scores of boxes to the detections of each image.

All images of a batch are suppressed at once, with torchvision's operator (section 3.3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchvision
from torch import Tensor

from paperbench.detection import boxes as box_ops
from paperbench.detection.model_config import HeadConfig, SSDModel, YOLOModel

MOVED_APART = 25_000
"""Boxes up to which a GPU suppresses all groups in one call: the operator is quadratic in their number."""


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Return the rows that are left (K,) int64 by decreasing score, of boxes (N, 4) without negative corners, each group (N,)
    suppressed on its own.

    torchvision chooses between one call on boxes moved apart and one call a group, whichever costs less: the operator is quadratic
    in the number of boxes it is given, and on a CPU it is serial. Boxes of the last of 16 images with 20 classes are moved by
    300,000 pixels, where float32 is rounded to a thirty-second of one: what is left would depend on the other images.

    On a GPU the operator itself makes the host wait, once. torchvision's function waits twice more, or three times a group.
    """
    wide, rank = box_ops.widest(boxes), box_ops.widest(scores)
    if boxes.device.type == "cpu" or not 0 < len(boxes) <= MOVED_APART:
        return torchvision.ops.batched_nms(wide, rank, groups, iou)
    return torchvision.ops.nms(apart(wide, groups), rank, iou)


def apart(boxes: Tensor, groups: Tensor) -> Tensor:
    """Return boxes (N, 4), those of each group (N,) moved so far that they overlap no other group's."""
    return boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]


def batched_nms(boxes: Tensor, scores: Tensor, *, iou: float, keep: int) -> tuple[Tensor, Tensor]:
    """The best boxes of each image after suppression, dense: boxes (B, N, 4), scores (B, N) by decreasing score.

    Returns `index` (B, min(keep, N)) int64 and `valid` of the same shape. Scores of -inf mark candidates that are not there:
    they suppress nothing, since every other one comes before them, and are never returned as valid.
    """
    images, candidates = scores.shape
    groups = torch.arange(images, device=boxes.device).repeat_interleave(candidates)
    rows = _rows_at_once(images, candidates, boxes.device)
    parts = zip(boxes.split(rows), scores.split(rows), groups.split(rows * candidates), strict=True)
    kept = [
        suppress(box.reshape(-1, 4), score.reshape(-1), group, iou) + number * rows * candidates
        for number, (box, score, group) in enumerate(parts)
    ]
    alive = torch.zeros(images * candidates, dtype=torch.bool, device=boxes.device)
    alive[torch.cat(kept)] = True
    alive = alive.view(images, candidates) & (scores > float("-inf"))
    # Candidates are in order of score, so the first that are left of each row are its best.
    order = alive.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :keep]
    return order, alive.gather(1, order)


def _rows_at_once(images: int, candidates: int, device: torch.device) -> int:
    """Return the images that one call suppresses: on a GPU as many as stay within `MOVED_APART` boxes."""
    if device.type == "cpu":
        return max(1, images)
    return max(1, min(images, MOVED_APART // max(1, candidates)))


SMALLEST_SIDE = 1e-2
"""Detections with a side below this many pixels are no boxes (torchvision's bound)."""


class DetectionBatch(NamedTuple):
    """Dense: boxes (B, D, 4), scores (B, D) decreasing, labels (B, D) in 1..C, valid (B, D) bool. Of nets that draw masks:
    masks (B, D, M, M) probabilities, floating point, in the frame of each box."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    masks: Tensor | None = None


@torch.no_grad()
def postprocess(
    logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor, sizes: Tensor, config: HeadConfig | SSDModel
) -> DetectionBatch:
    """Return the best detections of each image after suppression per class, `detections_per_image` at most.

    logits (B, P, C + 1), deltas (B, P, C + 1, 4), proposals (B, P, 4), valid (B, P), sizes (B, 2) as (height, width).
    """
    return postprocess_scores(class_scores(logits), deltas, proposals, valid, sizes, config)


def finite_or_nan(x: Tensor) -> Tensor:
    """Return `x` with NaN for what is infinite: a bounded function of it, such as a sigmoid, would hide that it is."""
    return x.masked_fill(~x.isfinite(), float("nan"))


def class_scores(logits: Tensor) -> Tensor:
    """Return the probabilities of the classes without the background: (..., C + 1) -> (..., C).

    A region with a logit that is not finite has NaN for each, which no threshold lets pass.
    """
    return finite_or_nan(logits).softmax(-1)[..., 1:]


@torch.no_grad()
def postprocess_scores(
    scores: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor, sizes: Tensor, config: HeadConfig | SSDModel
) -> DetectionBatch:
    """As `postprocess`, for scores (B, P, C) in 0..1 that are no softmax, such as those of one classifier a class.

    Scores of NaN and deltas that are not finite lead to no detection.
    """
    probability = (scores * valid[..., None]).masked_fill(~deltas[..., 1:, :].isfinite().all(-1), 0.0)
    image, proposal, label = torch.nonzero(probability > config.score_threshold, as_tuple=True)
    boxes = box_ops.decode(proposals[image, proposal], deltas[image, proposal, label + 1], config.target_std)
    return _suppress_by_class(boxes, probability[image, proposal, label], image, label, sizes, scores.shape, config)


@torch.no_grad()
def postprocess_boxes(scores: Tensor, boxes: Tensor, sizes: Tensor, config: YOLOModel) -> DetectionBatch:
    """As `postprocess`, for boxes (B, P, 4) that are the same for every class, with scores (B, P, C) in 0..1.

    Scores of NaN and boxes that are not finite lead to no detection.
    """
    image, box, label = torch.nonzero(scores > config.score_threshold, as_tuple=True)
    return _suppress_by_class(boxes[image, box], scores[image, box, label], image, label, sizes, scores.shape, config)


def _suppress_by_class(
    boxes: Tensor,
    scores: Tensor,
    image: Tensor,
    label: Tensor,
    sizes: Tensor,
    shape: torch.Size,
    config: HeadConfig | SSDModel | YOLOModel,
) -> DetectionBatch:
    """Return the detections of each image, of candidates in one row: boxes (N, 4), scores, image, label in 0..C - 1 (N,).

    shape: (B, P, C) of the scores that they were taken from.
    """
    _, count, classes = shape
    limit = config.detections_per_image
    batch = len(sizes)
    limits = sizes.flip(-1).repeat(1, 2).to(boxes.dtype)
    finite = boxes.isfinite().all(
        -1
    )  # before they are cut off at the border, where an infinite corner would become a finite one
    boxes = boxes.clamp(min=0).minimum(limits[image])
    usable = finite & (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(-1)
    image, label, scores, boxes = image[usable], label[usable], scores[usable], boxes[usable]

    kept = suppress(boxes, scores, image * classes + label, config.nms_iou)
    # `kept` is in order of score over the whole batch; a stable sort by image leaves each image's own in that order.
    kept = kept[image[kept].argsort(stable=True)]
    image = image[kept]
    per_image = torch.bincount(image, minlength=batch)
    rank = torch.arange(len(kept), device=kept.device) - (per_image.cumsum(0) - per_image)[image]
    kept, image, rank = kept[rank < limit], image[rank < limit], rank[rank < limit]

    slots = min(limit, count * classes)
    result = DetectionBatch(
        boxes.new_zeros(batch, slots, 4),
        scores.new_zeros(batch, slots),
        label.new_zeros(batch, slots),
        torch.zeros(batch, slots, dtype=torch.bool, device=boxes.device),
    )
    result.boxes[image, rank] = boxes[kept]
    result.scores[image, rank] = scores[kept]
    result.labels[image, rank] = label[kept] + 1
    result.valid[image, rank] = True
    return result
