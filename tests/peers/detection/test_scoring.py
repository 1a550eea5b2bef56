"""Average precision and recall, against the devkit's loop, torchmetrics' own COCO evaluation and a greedy pairing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paperbench.data.detection import Record
from paperbench.detection.evaluation import coco, recall, voc
from paperbench.detection.evaluation.detections import Detections
from tests.detection.evaluation.cases import CLASSES, found, random_case, record
from tests.peers.cases import cases, random
from tests.peers.detection.inputs import boxes, plain_iou
from tests.peers.packages import peer

KINDS = ("random", "ties", "whole-pixels", "difficult", "nothing-found", "no-objects", "one-image", "copies", "exact")
"""`copies`: every object found several times; `exact`: overlaps of exactly one half."""


def case(kind: str, seed: int) -> tuple[list[Record], list[Detections]]:
    """Return ground truth and detections of a dozen images of 200 pixels."""
    number = int(random(kind, seed).integers(0, 2**31))
    records, detections = random_case(
        number,
        images=1 if kind == "one-image" else 8,
        difficult=0.7 if kind == "difficult" else 0.15,
        integers=kind == "whole-pixels",
        ties=kind in ("ties", "copies"),
    )
    if kind == "nothing-found":
        detections = [Detections.empty()] * len(records)
    if kind == "no-objects":
        records = [record([], [], image_id=number) for number in range(len(records))]
    if kind == "copies":
        detections = [
            found([*r.boxes.tolist()] * 3, np.repeat([0.9, 0.5, 0.5], len(r.labels)).tolist(), [*r.labels.tolist()] * 3)
            for r in records
        ]
    if kind == "exact":
        rng = np.random.default_rng(number)
        records, detections = [], []
        for image in range(8):
            low = rng.integers(0, 10, (3, 2)) * 8.0
            truth = np.concatenate([low, low + 16], 1)
            half = truth.copy()
            half[:, 3] -= 8
            records.append(record(truth.tolist(), rng.integers(1, 4, 3).tolist(), image_id=image))
            detections.append(found(half.tolist(), rng.random(3).tolist(), records[-1].labels.tolist()))
    return records, detections


def devkit(
    records: list[Record], given: list[Detections], label: int, *, inclusive: bool
) -> tuple[list[float], list[float], int]:
    """Return recall and precision after each detection, as `VOCevaldet.m` counts, and the number of objects.

    Equal scores keep the order of the file: images in their order, detections as they were given.
    """
    extra = 1.0 if inclusive else 0.0
    taken = [[False] * len(r.labels) for r in records]
    total = sum(int(((r.labels == label) & ~r.difficult).sum()) for r in records)
    rows = [
        (-float(score), image, box)
        for image, d in enumerate(given)
        for score, box, own in zip(d.scores, d.boxes.astype(np.float64), d.labels, strict=True)
        if own == label
    ]
    rows.sort(key=lambda row: row[0])
    right = wrong = 0
    recalls, precisions = [], []
    for _, image, box in rows:
        best, at = -np.inf, -1
        for number, (gt, own) in enumerate(
            zip(records[image].boxes.astype(np.float64), records[image].labels, strict=True)
        ):
            if own != label:
                continue
            width = min(box[2], gt[2]) - max(box[0], gt[0]) + extra
            height = min(box[3], gt[3]) - max(box[1], gt[1]) + extra
            if width > 0 and height > 0:
                area = (box[2] - box[0] + extra) * (box[3] - box[1] + extra)
                union = area + (gt[2] - gt[0] + extra) * (gt[3] - gt[1] + extra) - width * height
                if width * height / union > best:
                    best, at = width * height / union, number
        if best >= 0.5:
            if records[image].difficult[at]:
                continue
            right += not taken[image][at]
            wrong += taken[image][at]
            taken[image][at] = True
        else:
            wrong += 1
        recalls.append(right / total if total else 0.0)
        precisions.append(right / (right + wrong))
    return recalls, precisions, total


def area_under(recalls: list[float], precisions: list[float]) -> float:
    """VOC 2010: precision made to fall with recall, and the area below it."""
    r, p = [0.0, *recalls, 1.0], [0.0, *precisions, 0.0]
    for number in range(len(p) - 2, -1, -1):
        p[number] = max(p[number], p[number + 1])
    return sum((r[i + 1] - r[i]) * p[i + 1] for i in range(len(r) - 1))


def eleven_points(recalls: list[float], precisions: list[float]) -> float:
    """VOC 2007: the mean of the best precision at a recall of at least 0, .1, ..., 1, on the levels that `0:0.1:1` has."""
    best = [
        max((p for r, p in zip(recalls, precisions, strict=True) if r >= t), default=0.0)
        for t in np.arange(0, 1.1, 0.1)
    ]
    return sum(best) / 11


@pytest.mark.parametrize("inclusive", [False, True])
@cases(KINDS, 6)
def test_average_precision_is_the_devkits(kind: str, seed: int, inclusive: bool) -> None:
    records, detections = case(kind, seed)

    result = voc.evaluate(records, detections, CLASSES, inclusive=inclusive)

    for index, name in enumerate(CLASSES):
        recalls, precisions, total = devkit(records, detections, index + 1, inclusive=inclusive)
        if not total:
            assert np.isnan(result.ap_area[index]), name
            continue
        assert result.ap_area[index] == pytest.approx(area_under(recalls, precisions), abs=1e-12)
        assert result.ap_11_point[index] == pytest.approx(eleven_points(recalls, precisions), abs=1e-12)
        assert result.curves[index].precision.tolist() == pytest.approx(precisions)
        assert result.curves[index].recall.tolist() == pytest.approx(recalls)


NAMES = {"AP": "map", "AP50": "map_50", "AP75": "map_75", "APs": "map_small", "APm": "map_medium", "APl": "map_large"}
RECALLS = {"AR1": "mar_1", "AR10": "mar_10", "AR100": "mar_100"}


@cases(("random", "ties", "nothing-found", "one-image", "copies"), 5)
def test_coco_is_torchmetrics_own(kind: str, seed: int) -> None:
    """The implementation in torch, which asks pycocotools for nothing.

    Objects that are difficult or crowds are not in it, and an overlap of exactly a threshold is no match there.
    """
    metric = peer("torchmetrics.detection._mean_ap").MeanAveragePrecision()
    records, detections = case(kind, seed)
    records = [record(r.boxes.tolist(), r.labels.tolist(), image_id=number) for number, r in enumerate(records)]

    result = coco.evaluate(records, detections, CLASSES)

    metric.update(
        [
            {
                "boxes": torch.from_numpy(d.boxes),
                "scores": torch.from_numpy(d.scores),
                "labels": torch.from_numpy(d.labels),
            }
            for d in detections
        ],
        [{"boxes": torch.from_numpy(r.boxes), "labels": torch.from_numpy(r.labels)} for r in records],
    )
    expected = metric.compute()
    for name, theirs in (NAMES | RECALLS).items():
        value = expected[theirs].item()
        own = result.numbers[name]
        if kind == "ties" or value < 0 or np.isnan(own):
            assert np.isnan(own) == (value < 0), name
        if value >= 0:
            # It compares recall with its 101 levels in float32: one of them in one class, .33 points, may differ. Equal scores keep
            # another order in it.
            assert own == pytest.approx(100 * value, abs=3.0 if kind in ("ties", "copies") else 0.4), name


@pytest.mark.parametrize("seed", range(5))
def test_coco_matches_at_exactly_one_half(seed: int) -> None:
    """COCO's own rule, `>=`: every object is found at .5 and none at .55."""
    records, detections = case("exact", seed)

    numbers = coco.evaluate(records, detections, CLASSES).numbers

    assert numbers["AP50"] == pytest.approx(100)
    assert numbers["AP75"] == 0
    assert numbers["AP"] == pytest.approx(10)


@cases(("random", "difficult", "ties", "whole-pixels", "one-image"), 5)
def test_recall_of_proposals(kind: str, seed: int) -> None:
    """One proposal for one object, the largest overlap first."""
    records, _ = case(kind, seed)
    rng = random("recall" + kind, seed)
    proposals = []
    for r in records:
        near = np.repeat(r.boxes, 3, axis=0) + rng.normal(0, 6, (3 * len(r.boxes), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        mixed = np.concatenate([near, boxes("random", rng, 6).numpy()]).astype(np.float32)
        proposals.append(rng.permutation(mixed.round() if kind in ("ties", "whole-pixels") else mixed))

    result = recall.evaluate(records, proposals, counts=(2, 5, 1000))

    for row, count in enumerate(result.counts):
        covered: list[float] = []
        for r, given in zip(records, proposals, strict=True):
            objects = r.boxes[~r.difficult]
            left = plain_iou(torch.from_numpy(given[:count]), torch.from_numpy(objects))
            best = np.zeros(len(objects))
            for _ in range(min(left.shape)):
                p, g = np.unravel_index(left.argmax(), left.shape)
                if left[p, g] < 0:
                    break
                best[g] = left[p, g]
                left[p, :], left[:, g] = -1, -1
            covered += best.tolist()
        expected = [np.mean([overlap >= t for overlap in covered]) for t in result.thresholds]
        np.testing.assert_allclose(result.recall[row], expected, atol=1e-12)
        assert result.average[row] == pytest.approx(np.mean(expected[:-1]))
