"""Matching and curves on arrays against pycocotools, on sets with crowds, ties, gaps, and more objects than it counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from paperbench.data.detection import Record
from paperbench.detection.evaluation import coco, coco_matching
from paperbench.detection.evaluation.detections import Detections
from tests.detection.evaluation.cases import found, record

CLASSES = ("cat", "dog", "bird", "fish")


def random_set(seed: int) -> tuple[list[Record], list[Detections]]:
    """Images of which some have no object, some no detection, and some more than a hundred detections of a class.

    Boxes and scores are whole numbers of a coarse grid in half of the sets, so that overlaps and scores are often equal and areas
    lie on the borders of COCO's ranges. Of the four classes the last has neither objects nor detections in a third of the sets.
    """
    rng = np.random.default_rng(seed)
    coarse = seed % 2 == 0
    classes = len(CLASSES) - (seed % 3 == 0)
    records, detections = [], []
    for _ in range(rng.integers(1, 12)):
        count = int(rng.choice([0, 1, 3, 8, 25]))
        boxes = _boxes(rng, count, coarse)
        labels = rng.integers(1, classes + 1, count)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * rng.choice([1.0, 0.5], count)
        records.append(
            Record(
                image_id=len(records), source="made", width=300, height=300, boxes=boxes,
                labels=labels.astype(np.int64), difficult=rng.random(count) < 0.1, crowd=rng.random(count) < 0.15,
                area=area,
            )
        )  # fmt: skip
        more = int(rng.choice([0, 0, 2, 10, 260]))
        near = _near(rng, boxes, coarse)
        found = np.concatenate([near, _boxes(rng, more, coarse)])
        own = np.concatenate([np.repeat(labels, 3), rng.integers(1, classes + 1, more)])
        scores = rng.integers(0, 6, len(found)) / 5 if coarse else rng.random(len(found))
        order = rng.permutation(len(found))[: int(rng.choice([0, len(found), len(found)]))]
        detections.append(
            Detections(boxes=found[order], scores=scores[order].astype(np.float64), labels=own[order].astype(np.int64))
        )
    return records, detections


def _boxes(rng: np.random.Generator, count: int, coarse: bool) -> NDArray[np.float64]:
    corner = rng.uniform(0, 200, (count, 2))
    sides = np.exp(rng.uniform(np.log(8), np.log(250), (count, 2)))
    if coarse:
        corner, sides = 16 * np.round(corner / 16), 16 * np.ceil(sides / 16)
    return np.concatenate([corner, corner + sides], axis=1)


def _near(rng: np.random.Generator, boxes: NDArray[np.float64], coarse: bool) -> NDArray[np.float64]:
    """Three boxes about each, some of them the same."""
    thrice = np.repeat(boxes, 3, axis=0)
    moved = rng.normal(0, 8, thrice.shape)
    moved = thrice + (8 * np.round(moved / 8) if coarse else moved)
    return np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)


def assert_same(ours: coco.CocoResult, theirs: coco.CocoResult) -> None:
    for name in coco.NUMBERS:
        np.testing.assert_allclose(ours.numbers[name], theirs.numbers[name], rtol=0, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(ours.class_ap, theirs.class_ap, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.class_ap50, theirs.class_ap50, rtol=0, atol=1e-9)


@pytest.mark.parametrize("block", range(6))
def test_boxes_score_as_pycocotools_scores_them(block: int) -> None:
    for seed in range(block * 30, block * 30 + 30):
        records, detections = random_set(seed)
        ours = coco.evaluate(records, detections, CLASSES)
        assert_same(ours, coco.evaluate(records, detections, CLASSES, engine="pycocotools"))


def test_pairs_measured_in_several_shares_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(200, 210):
        records, detections = random_set(seed)
        whole = coco.evaluate(records, detections, CLASSES, keep_ranked=True)
        with monkeypatch.context() as patch:
            patch.setattr(coco_matching, "_MOST_PAIRS", 7)
            shared = coco.evaluate(records, detections, CLASSES, keep_ranked=True)
        assert_same(shared, whole)
        for mine, other in zip(shared.ranked, whole.ranked, strict=True):
            np.testing.assert_array_equal(mine.hits, other.hits)


def test_what_is_ranked_has_the_precision_of_pycocotools() -> None:
    records, detections = random_set(5)
    ranked = coco.evaluate(records, detections, CLASSES, keep_ranked=True, engine="pycocotools").ranked
    ap = coco.evaluate(records, detections, CLASSES, engine="pycocotools").class_ap
    for curve, expected in zip(ranked, ap, strict=True):
        if not curve.objects.sum():
            continue
        means = []
        for hits, counted in zip(curve.hits, curve.counted, strict=True):
            right, wrong = np.cumsum(hits), np.cumsum(~hits & counted)
            precision = np.maximum.accumulate((right / np.maximum(right + wrong, 1))[::-1])[::-1]
            first = np.searchsorted(right / curve.objects.sum(), np.linspace(0, 1, 101))
            means.append(np.append(precision, np.zeros(101))[np.minimum(first, len(precision))].mean())
        assert 100 * np.mean(means) == pytest.approx(expected, abs=1e-9)


def test_masks_score_as_pycocotools_scores_them() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        records, detections = random_set(300 + seed)
        records, detections = records[:3], [_with_masks(rng, found.above(0.3)) for found in detections[:3]]
        masks = [rng.random((len(record.labels), 300, 300)) < 0.5 for record in records]
        for item, drawn in zip(records, masks, strict=True):
            for mask, (x1, y1, x2, y2) in zip(drawn, item.boxes.astype(int), strict=True):
                mask[:y1], mask[y2:], mask[:, :x1], mask[:, x2:] = False, False, False, False
                mask[y1 : y1 + (y2 - y1) * 9 // 10, x1:x2] = True
        ours = coco.evaluate_masks(records, masks.__getitem__, detections, CLASSES)
        theirs = coco.evaluate_masks(records, masks.__getitem__, detections, CLASSES, engine="pycocotools")
        assert_same(ours, theirs)


def _with_masks(rng: np.random.Generator, found: Detections) -> Detections:
    masks = np.full((len(found), 14, 14), 255, np.uint8)
    masks[rng.random(masks.shape) < 0.05] = 0
    return Detections(boxes=found.boxes, scores=found.scores, labels=found.labels, masks=masks)


def test_files_give_the_same_with_either_engine(tmp_path: Path) -> None:
    records, detections = random_set(7)
    truth, results = tmp_path / "gt.json", tmp_path / "dt.json"
    annotations = [
        {
            "id": 1,
            "image_id": image,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": int(crowd),
        }
        for image, record in enumerate(records)
        for (x1, y1, x2, y2), label, crowd in zip(record.boxes.tolist(), record.labels, record.crowd, strict=True)
    ]
    images = [{"id": image, "width": 500, "height": 500} for image in range(len(records))]
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    entries = [
        {"image_id": image, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for image, found in enumerate(detections)
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes.tolist(), found.labels, found.scores.tolist(), strict=True
        )
    ]
    results.write_text(json.dumps(entries))
    ours = coco.evaluate_files(truth, results)
    assert ours.numbers["AP"] > 0
    assert_same(ours, coco.evaluate_files(truth, results, engine="pycocotools"))
    # A number written in quotes is no number: every entry is then looked at by itself.
    entries[0]["score"] = int(entries[0]["score"])
    entries[0]["image_id"] = float(entries[0]["image_id"])
    results.write_text(json.dumps(entries))
    again = coco.evaluate_files(truth, results)
    assert again.classes == ours.classes


@pytest.mark.parametrize(("order", "expected"), [((0, 1), 100.0), ((1, 0), 50.0)])
def test_of_two_objects_that_a_detection_overlaps_equally_the_last_is_taken(
    order: tuple[int, int], expected: float
) -> None:
    left, right = (0.0, 0.0, 100.0, 100.0), (40.0, 0.0, 140.0, 100.0)
    between = (20.0, 0.0, 120.0, 100.0)  # the second detection then lies on the left one alone
    records = [record([(left, right)[place] for place in order], [1, 1])]
    detections = [found([between, left], [0.9, 0.8], [1, 1])]
    ours = coco.evaluate(records, detections, CLASSES)
    assert_same(ours, coco.evaluate(records, detections, CLASSES, engine="pycocotools"))
    assert ours.numbers["AP50"] == pytest.approx(expected, abs=1)
