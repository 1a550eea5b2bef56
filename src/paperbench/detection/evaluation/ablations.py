"""Ablations of the region proposal network at test time (section 4.1, table 2): all rows from one forward pass.

======  =====================================================================================
`rpn`   the network as it is: ranked by score, regressed, suppressed, the best N
no-nms  without suppression: the best N
no-cls  without scores: N regressed anchors drawn at random, neither ranked nor suppressed
no-reg  without regression: the anchors themselves, ranked and suppressed, the best N
given   other proposals than the network's, if the batch carries any: the best N
======  =====================================================================================

The rows of an image overlap: 100 proposals are the first of 300, and what suppression leaves is part of what it was given. So
features and scores are computed once, every box goes through the detector once, and a row is a choice among the answers.

B images, A anchors, R boxes of all rows together, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torchvision
from torch import Tensor

from paperbench.data.detection import DetectionSet
from paperbench.detection import boxes as box_ops
from paperbench.detection.batches import Batch, BatchMaker
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.one_stage import classify_in_parts
from paperbench.detection.evaluation import voc
from paperbench.detection.evaluation.bootstrap import voc_intervals
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.inference import map_batches
from paperbench.detection.evaluation.scoring import voc_metrics
from paperbench.detection.nms import SMALLEST_SIDE, batched_nms, class_scores
from paperbench.detection.rpn import finite_scores, objectness_score
from paperbench.engine.run import Run
from paperbench.engine.seeding import generator

DRAW = 120
"""First key of the stream that draws the boxes of `no-cls`, one stream an image."""

RANKED = 6000
"""Boxes that the paper ranks before suppression at test time."""

Kind = Literal["rpn", "no-nms", "no-cls", "no-reg", "given"]


@dataclass(frozen=True)
class Row:
    """One way to make proposals. `count` is the paper's number of them."""

    kind: Kind
    count: int

    @property
    def name(self) -> str:
        """As in `ablation/<name>/voc07/mAP`."""
        return f"{self.kind}-{self.count}"


ROWS = (
    *(Row("rpn", count) for count in (100, 300, 1000)),
    *(Row("no-nms", count) for count in (300, 1000, 6000)),
    *(Row("no-cls", count) for count in (100, 300, 1000)),
    *(Row("no-reg", count) for count in (100, 300, 1000)),
)
"""The nine ablations that the paper prints, and three more of the same kind."""

GIVEN = Row("given", 2000)
"""The detector on what it was trained on, where that was not the network's: the row of selective search."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """`share`: numbers of proposals are the paper's times this. `seed`: of the boxes that `no-cls` draws."""

    share: float
    seed: int

    def count(self, row: Row) -> int:
        """Proposals of a row, at least 1."""
        return max(1, round(row.count * self.share))

    def most(self, kind: Kind) -> int:
        """Proposals of the longest row of a kind."""
        return max(self.count(row) for row in (*ROWS, GIVEN) if row.kind == kind)


def share_of(pre_nms_test: int) -> float:
    """By how much a net that ranks so many boxes works on fewer of them than the paper's does."""
    return min(1.0, pre_nms_test / RANKED)


@torch.no_grad()
def detect_rows(model: FasterRCNN, batch: Batch, options: Options) -> list[tuple[list[Detections], Tensor]]:
    """Of each row of `ROWS`, the detections of every image of the batch and its number of proposals (B,).

    The last is `GIVEN`, of a batch that carries proposals.
    """
    features = model.extract(batch)
    logits, deltas, anchors = model.score_anchors(features)
    candidates = _Candidates(model, batch, objectness_score(logits), deltas, anchors, options)
    scores, offsets = classify_in_parts(model, features, candidates.boxes)
    answers = _Answers(model, batch, scores, offsets, candidates.boxes)
    chosen = [candidates.of(row) for row in rows_of(batch)]
    return [(answers.of(index, valid), valid.sum(1)) for index, valid in chosen]


def rows_of(batch: Batch) -> tuple[Row, ...]:
    """The rows that can be made of a batch."""
    return ROWS if batch.proposals is None else (*ROWS, GIVEN)


class _Candidates:
    """The boxes of all rows (B, R, 4): ranked, drawn, anchors, given, one behind the other."""

    def __init__(
        self, model: FasterRCNN, batch: Batch, scores: Tensor, deltas: Tensor, anchors: Tensor, options: Options
    ) -> None:
        self.options = options
        least = (model.rpn_config.min_size * batch.scales).view(-1, 1, 1).clamp(min=SMALLEST_SIDE)
        scores, moved = finite_scores(scores, deltas), box_ops.decode(anchors, deltas)
        finite = finite_scores(scores, moved) > float("-inf")
        decoded = box_ops.clip(moved.masked_fill(~finite[..., None], 0.0), batch.sizes)
        fixed = box_ops.clip(anchors.expand(len(scores), -1, -1), batch.sizes)
        large = finite & _sides_of(decoded, least)
        ranks = min(max(options.most("no-nms"), options.most("rpn")), scores.shape[1])

        best, order = scores.masked_fill(~large, float("-inf")).topk(ranks, dim=1)
        ranked = _take(decoded, order)
        self.ranked = torch.arange(ranks, device=order.device).expand(len(order), -1), best > float("-inf")
        self.kept = batched_nms(ranked, best, iou=model.rpn_config.nms_iou, keep=options.most("rpn"))

        keys = _random(batch.indices, scores, options.seed).masked_fill(~large, -1.0)
        key, drawn = keys.topk(min(options.most("no-cls"), scores.shape[1]), dim=1)
        first = ranks
        self.drawn = torch.arange(first, first + drawn.shape[1], device=order.device).expand_as(drawn), key >= 0

        best, order = scores.masked_fill(~_sides_of(fixed, least), float("-inf")).topk(ranks, dim=1)
        still = _take(fixed, order)
        index, valid = batched_nms(still, best, iou=model.rpn_config.nms_iou, keep=options.most("no-reg"))
        first += drawn.shape[1]
        self.fixed = torch.arange(first, first + index.shape[1], device=order.device).expand_as(index), valid
        first += index.shape[1]
        parts = [ranked, _take(decoded, drawn), _take(still, index)]
        if batch.proposals is not None:
            given, valid = (part[:, : options.count(GIVEN)] for part in (batch.proposals.boxes, batch.proposals.valid))
            self.given = torch.arange(first, first + given.shape[1], device=given.device).expand_as(valid), valid
            parts.append(given)
        self.boxes = torch.cat(parts, dim=1)

    def of(self, row: Row) -> tuple[Tensor, Tensor]:
        """Places of a row's proposals in `boxes` and which of them are real: (B, N) and (B, N)."""
        parts = {"rpn": "kept", "no-nms": "ranked", "no-cls": "drawn", "no-reg": "fixed", "given": "given"}
        index, valid = getattr(self, parts[row.kind])
        count = self.options.count(row)
        return index[:, :count], valid[:, :count]


class _Answers:
    """Detections from every box: the classes whose score passes the threshold, best first, N in all."""

    def __init__(self, model: FasterRCNN, batch: Batch, scores: Tensor, offsets: Tensor, boxes: Tensor) -> None:
        self.model = model
        self.shape = scores.shape[:2]
        self.classes = scores.shape[2] - 1
        probability = class_scores(scores).masked_fill(~offsets[..., 1:, :].isfinite().all(-1), 0.0)
        image, region, label = torch.nonzero(probability > model.head_config.score_threshold, as_tuple=True)
        score = probability[image, region, label]
        box = box_ops.decode(boxes[image, region], offsets[image, region, label + 1], model.head_config.target_std)
        limits = batch.sizes.flip(-1).repeat(1, 2).to(box.dtype)
        finite = box.isfinite().all(-1)
        box = box.clamp(min=0).minimum(limits[image])
        large = finite & (box[:, 2:] - box[:, :2] >= SMALLEST_SIDE).all(-1)
        order = score.masked_fill(~large, -1.0).argsort(descending=True, stable=True)[: int(large.sum())]
        self.image, self.region, self.label = image[order], region[order], label[order]
        self.score, self.box = score[order], box[order]
        self.stored = self.box / batch.scales[self.image][:, None]

    def of(self, index: Tensor, valid: Tensor) -> list[Detections]:
        """The detections of each image with these boxes (B, N) alone, as `postprocess.detections` would give them."""
        member = torch.zeros(self.shape, dtype=torch.bool, device=valid.device).scatter_(1, index, valid)
        own = torch.nonzero(member[self.image, self.region]).flatten()
        groups = self.image[own] * self.classes + self.label[own]
        kept = own[torchvision.ops.batched_nms(self.box[own], self.score[own], groups, self.model.head_config.nms_iou)]
        parts = (self.image, self.stored, self.score.float(), self.label + 1)
        image, boxes, scores, labels = (part[kept].cpu().numpy() for part in parts)
        rows = [
            np.flatnonzero(image == number)[: self.model.head_config.detections_per_image]
            for number in range(len(index))
        ]
        return [Detections(boxes=boxes[row], scores=scores[row], labels=labels[row]) for row in rows]


def _take(boxes: Tensor, index: Tensor) -> Tensor:
    """(B, A, 4) and (B, N) -> (B, N, 4)."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))


def _sides_of(boxes: Tensor, least: Tensor) -> Tensor:
    """Return which boxes have no side below `least` pixels: (B, A, 4) and (B, 1, 1) -> (B, A)."""
    return (boxes[..., 2:] - boxes[..., :2] >= least).all(-1)


def _random(images: Tensor, like: Tensor, seed: int) -> Tensor:
    """Uniform numbers in [0, 1), (B, A): those of an image follow from it and the number of anchors, not from the batch."""
    rows = [torch.rand(like.shape[1], generator=generator("cpu", seed, DRAW, image)) for image in images.cpu().tolist()]
    return torch.stack(rows).to(like.device)


def measure(
    model: FasterRCNN,
    make: BatchMaker,
    dataset: DetectionSet,
    *,
    options: Options,
    batch_size: int,
    resamples: int,
    run: Run,
) -> dict[str, float]:
    """`ablation/<row>/voc07/mAP`, `.../voc/mAP` (percent) and `.../proposals` (mean number an image) of every row.

    With `resamples`, both means come with the ends of their 95 % intervals, as `.../low` and `.../high`.
    """

    def answer(batch: Batch) -> list[list[tuple[Detections, int]]]:
        rows = [zip(found, counts.tolist(), strict=True) for found, counts in detect_rows(model, batch, options)]
        return [list(image) for image in zip(*rows, strict=True)]

    answers = map_batches(model, make, answer, batch_size=batch_size, run=run, name="ablations")
    metrics = run.ranks.on_main(lambda: _score(dataset, answers, resamples=resamples))
    for row in (*ROWS, GIVEN):
        if f"ablation/{row.name}/voc07/mAP" in metrics:
            mean, count = (metrics[f"ablation/{row.name}/{name}"] for name in ("voc07/mAP", "proposals"))
            run.reporter.message(f"{row.name}: voc07/mAP {mean:.1f} % from {count:.0f} proposals an image")
    return metrics


def _score(
    dataset: DetectionSet, answers: Sequence[Sequence[tuple[Detections, int]]], *, resamples: int
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    rows = zip(*answers, strict=True)
    for row, images in zip((*ROWS, GIVEN), rows, strict=False):  # without given proposals the last has no images
        found = [own for own, _ in images]
        result = voc_metrics(voc.evaluate(dataset.records, found, dataset.classes))
        named = {name: result[name] for name in ("voc07/mAP", "voc/mAP") if name in result}
        if resamples:
            named |= voc_intervals(voc.rank(dataset.records, found, dataset.classes), resamples=resamples)
        named["proposals"] = sum(count for _, count in images) / max(1, len(images))
        metrics |= {f"ablation/{row.name}/{name}": value for name, value in named.items()}
    return metrics
