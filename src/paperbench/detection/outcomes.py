"""Every set of detections that rounding can make of one image, and what an answer differs from them by.

Which boxes are ranked, survive suppression and are among the best is decided by comparisons. Two programs that compute the same
net differ in the last digits, and where a comparison is that close they choose differently: another of two boxes with equal scores
survives, and with it other boxes, those that it does not overlap. So each choice has three answers here: made by every program, by
some, or by none. An answer is right if it holds what every program chooses, and beyond that only what some do.

How far apart the numbers of two programs are is measured on the image itself, by computing the net in float64 as well.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from paperbench.detection import boxes as box_ops
from paperbench.detection.deployed import one_stage, refined
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.ssd import SSD
from paperbench.detection.detectors.yolo import YOLO
from paperbench.detection.model_config import HeadConfig, SSDModel, YOLOModel
from paperbench.detection.nms import SMALLEST_SIDE
from paperbench.detection.roi_pooling import pool_regions
from paperbench.detection.rpn import finite_scores, objectness_score
from paperbench.engine.exportable import Tensors

BOX_TOLERANCE = 0.01
"""Pixels: a hundredth of what one could see."""
SCORE_TOLERANCE = 1e-4

ERRORS = 8.0
"""What another program may be away from a float32 number, in errors of the latter: its sums have errors of their own."""

_ROWS = 1024
"""Boxes that are compared with all others at a time: 6,000 proposals have 36 million pairs."""


class Choice(NamedTuple):
    """(N,) bool each: what every program chooses, and what some do; the first is part of the second."""

    certain: Tensor
    possible: Tensor

    def also(self, other: Choice) -> Choice:
        """What both choose."""
        return Choice(self.certain & other.certain, self.possible & other.possible)


def above(values: Tensor, threshold: float, margin: float) -> Choice:
    """Choose the values above a threshold, or close to it for some; none that is NaN."""
    return Choice(values > threshold + margin, values > threshold - margin)


def highest(scores: Tensor, among: Choice, *, count: int, margin: float) -> Choice:
    """Choose the `count` highest of the scores (N,) that are there."""

    def ahead(of: Tensor, others: Tensor) -> Tensor:
        """Count the others with a higher score: (N,)."""
        return len(others) - torch.searchsorted(others.sort().values, of, right=True)

    surely = ahead(scores + margin, scores[among.certain])
    perhaps = ahead(scores - margin, scores[among.possible]) - 1  # it is itself one of them
    return among.also(Choice(perhaps < count, surely < count))


def survivors(boxes: Tensor, scores: Tensor, among: Choice, *, iou: float, margin: float, box_margin: float) -> Choice:
    """Choose what non-maximum suppression leaves: boxes (N, 4), scores (N,), none that overlaps a better one by more than `iou`.

    Every program keeps a box if whatever may suppress it is surely gone; it is gone if one that surely suppresses it is surely
    kept. Both rules are applied until nothing follows any more.
    """
    index = among.possible.nonzero()[:, 0]
    surely, perhaps = _suppression(boxes[index], scores[index], iou, margin, box_margin)
    there = among.certain[index]
    kept = Choice(torch.zeros_like(there), torch.ones_like(there))
    while True:
        after = Choice(there & ~(perhaps & kept.possible).any(1), ~(surely & kept.certain).any(1))
        if torch.equal(after.certain, kept.certain) and torch.equal(after.possible, kept.possible):
            break
        kept = after
    certain, possible = (torch.zeros_like(among.certain).index_put((index,), part) for part in kept)
    return Choice(certain, possible)


def _suppression(boxes: Tensor, scores: Tensor, iou: float, margin: float, box_margin: float) -> tuple[Tensor, Tensor]:
    """For each box (row) those (columns) that suppress it where they survive, and those that may: (N, N) bool each."""
    surely = torch.zeros(len(boxes), len(boxes), dtype=torch.bool)
    perhaps = surely.clone()
    half = (boxes[:, 2:] - boxes[:, :2]).sum(-1)
    area = box_ops.area(boxes)
    for start in range(0, len(boxes), _ROWS):
        rows = slice(start, start + _ROWS)
        overlaps = box_ops.exact_iou(boxes[rows], boxes)
        union = (area[rows, None] + area[None]) / (1 + overlaps)  # I = v U and A + B = U + I, so U = (A + B) / (1 + v)
        # Corners that are off by e change I by at most 2 e (w + h), and U by as much for each box.
        close = 4 * box_margin * (half[rows, None] + half[None]) / union.clamp(min=SMALLEST_SIDE**2)
        lead = scores[None] - scores[rows, None]
        surely[rows] = (overlaps > iou + close) & (lead > margin)
        perhaps[rows] = (overlaps > iou - close) & (lead > -margin)
    return surely, perhaps.fill_diagonal_(False)


class Outcomes(NamedTuple):
    """Detections that some program finds: boxes (N, 4), scores (N,), labels (N,) in 1..C, and whether every one does (N,) bool."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    certain: Tensor


@torch.inference_mode()
def outcomes_of(model: FasterRCNN | SSD | YOLO) -> Callable[..., Outcomes]:
    """Return the function of the inputs of the deployed detector that gives `Outcomes`; `model` is in float32 on the CPU."""
    exact = deepcopy(model).double()

    def outcomes(images: Tensor, sizes: Tensor, scales: Tensor | None = None) -> Outcomes:
        if isinstance(model, FasterRCNN):
            assert isinstance(exact, FasterRCNN)
            assert scales is not None
            return _two_stages(model, exact, images, sizes, float(scales))
        assert not isinstance(exact, FasterRCNN)
        found, truth = one_stage(model, images, sizes), one_stage(exact, images, sizes)
        there = torch.ones(len(found[0]), dtype=torch.bool)
        return _detections(found, truth, Choice(there, there), sizes, model.config)

    return outcomes


def _two_stages(model: FasterRCNN, exact: FasterRCNN, images: Tensor, sizes: Tensor, scale: float) -> Outcomes:
    features, exact_features = (net.neck(net.backbone(net.normalise(images, sizes))) for net in (model, exact))
    anchors = model.anchors(*features.shape[-2:]).to(features.dtype)
    scores, boxes = _moved_anchors(model, features, anchors, sizes)
    true_scores, true_boxes = _moved_anchors(exact, exact_features, anchors, sizes)
    finite = scores.isfinite() & true_scores.isfinite()
    margin, box_margin = _margin(scores[finite], true_scores[finite]), _margin(boxes[finite], true_boxes[finite])

    config = model.rpn_config
    ranked = highest(scores, Choice(finite, finite), count=config.pre_nms_topk_test, margin=margin)
    sides = (boxes[:, 2:] - boxes[:, :2]).amin(-1)
    large = above(sides, config.min_size * scale, 2 * box_margin)
    kept = survivors(boxes, scores, ranked.also(large), iou=config.nms_iou, margin=margin, box_margin=box_margin)
    chosen = highest(scores, kept, count=config.post_nms_topk_test, margin=margin)

    index = chosen.possible.nonzero()[:, 0]
    head = model.head_config
    # Both of one pooling: RoIPool rounds to whole cells, where another last digit is another region of the map.
    pooled = pool_regions(
        features, boxes[index][None], kind=head.pool, size=head.pool_size, scale=1 / model.anchors.stride
    )
    found = refined(model, model.predictor(model.head(pooled)), boxes[index])
    truth = refined(exact, exact.predictor(exact.head(pooled.double())), boxes[index].double())
    among = Choice(*(part[index] for part in chosen))
    return _detections(found, truth, among, sizes, head, box_margin=box_margin)


def _moved_anchors(model: FasterRCNN, features: Tensor, anchors: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (A,), -inf where a number is not finite, and boxes (A, 4) cut off at the border."""
    logits, deltas = model.rpn(features)
    decoded = box_ops.decode(anchors.to(features.dtype), deltas[0].to(features.dtype))
    scores = finite_scores(finite_scores(objectness_score(logits)[0], deltas[0]), decoded)
    return scores, box_ops.clip(decoded[None], sizes)[0]


def _detections(
    found: Tensors,
    truth: Tensors,
    among: Choice,
    sizes: Tensor,
    config: HeadConfig | SSDModel | YOLOModel,
    *,
    box_margin: float = 0.0,
) -> Outcomes:
    """Choose detections as `nms.postprocess` does; `found` and `truth`: probability (P, C) and boxes (P, C, 4), in both types.

    box_margin: of the proposals that they were made from.
    """
    probability, boxes = found[0], box_ops.clip(found[1][None], sizes)[0]
    counted = probability.isfinite() & truth[0].isfinite() & found[1].isfinite().all(-1) & truth[1].isfinite().all(-1)
    margin = _margin(probability[counted], truth[0][counted])
    longest = 1 + float(sizes.max())
    classes = probability.shape[-1]
    # Where boxes of other classes are moved apart, corners have the digits of the numbers they become.
    box_margin += _margin(boxes[counted], box_ops.clip(truth[1][None], sizes)[0][counted])
    box_margin += torch.finfo(torch.float32).eps * longest * classes
    sides = (boxes[..., 2:] - boxes[..., :2]).amin(-1)
    there = Choice(*(part[:, None] & counted for part in among))
    there = there.also(above(probability, config.score_threshold, margin)).also(above(sides, SMALLEST_SIDE, box_margin))
    kept = Choice(torch.zeros_like(counted), torch.zeros_like(counted))
    for label in range(classes):
        own = survivors(
            boxes[:, label],
            probability[:, label],
            Choice(*(part[:, label] for part in there)),
            iou=config.nms_iou,
            margin=margin,
            box_margin=box_margin,
        )
        kept.certain[:, label], kept.possible[:, label] = own
    flat = Choice(*(part.flatten() for part in kept))
    flat = highest(probability.flatten(), flat, count=config.detections_per_image, margin=margin)
    index = flat.possible.nonzero()[:, 0]
    return Outcomes(boxes.reshape(-1, 4)[index], probability.flatten()[index], index % classes + 1, flat.certain[index])


def _margin(found: Tensor, truth: Tensor) -> float:
    """The difference up to which two programs may disagree about numbers of this kind."""
    return ERRORS * float((found.double() - truth.double()).abs().max()) if found.numel() else 0.0


def differences(outcomes: Tensors, answer: Tensors) -> dict[str, float]:
    """Largest differences of an answer (boxes (D, 4), scores (D,), labels (D,) with 0 for none) from what it may be.

    Each detection is matched with one outcome of the same label, so that boxes and scores differ least and every certain outcome is
    matched. Infinite where that cannot be: a certain one is missing, or there is one more of a label than any program finds.
    Scores that rise count as a difference of scores.
    """
    from scipy.optimize import linear_sum_assignment

    may = Outcomes(*outcomes)
    boxes, scores, labels = (values[answer[2] > 0] for values in answer)
    missing = {"boxes": float("inf"), "scores": float("inf"), "labels": float("inf")}
    rises = float(answer[1].diff().clamp(min=0).max()) if len(answer[1]) > 1 else 0.0
    worst = {"boxes": 0.0, "scores": rises, "labels": 0.0}
    for label in {*may.labels.tolist(), *labels.tolist()}:
        ours, theirs = may.labels == label, labels == label
        needed = may.certain[ours]
        if not needed.sum() <= theirs.sum() <= ours.sum():
            return missing
        in_pixels = (may.boxes[ours][:, None] - boxes[theirs][None]).abs().amax(-1).double()
        in_scores = (may.scores[ours][:, None] - scores[theirs][None]).abs().double()
        if not theirs.any():
            continue
        # In units of what is allowed. To leave a certain one out costs more than all other differences together.
        cost = (in_pixels / BOX_TOLERANCE + in_scores / SCORE_TOLERANCE).nan_to_num(nan=1e12, posinf=1e12)
        cost = cost - needed[:, None] * (cost.max() + 1) * len(labels)
        rows, columns = linear_sum_assignment(cost.numpy())
        for name, distance in (("boxes", in_pixels), ("scores", in_scores)):
            found = float(distance[rows, columns].max())
            worst[name] = found if not found <= worst[name] else worst[name]
    return worst
