"""Remarks on files of detections that fit their objects when they are read otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.fit import Flat, remarks_on_fit
from tests.detection.evaluation.cases import CLASSES, record

COUNT = 12


def flats(seed: int, *, spread: float = 1.0, clutter: int = 6) -> tuple[Flat, Flat]:
    """Images with one object of each class, each found, and as many boxes of low score anywhere."""
    rng = np.random.default_rng(seed)
    records, found = [], []
    for number in range(COUNT):
        corners = rng.integers(0, 120, (3, 2)) * [1.5, 1]
        boxes = np.hstack([corners, corners + rng.integers(15, 60, (3, 2)) * [1, 1.4]])
        records.append(record(boxes.tolist(), [1, 2, 3], image_id=number, difficult=[number == 0] * 3))
        places = rng.integers(0, 120, (clutter, 2))
        noise = np.hstack([places, places + rng.integers(10, 60, (clutter, 2))])
        labels = np.concatenate([[1, 2, 3], rng.integers(1, 4, clutter)])
        scores = np.concatenate([rng.uniform(0.5, 1, 3), rng.uniform(0, 0.5, clutter)])
        everything = np.vstack([boxes + rng.normal(0, spread, (3, 4)), noise]).astype(np.float64)
        found.append(Detections(boxes=everything, scores=scores, labels=labels))
    return Flat.objects(records), Flat.detections(found)


def read_as(found: Flat, boxes: np.ndarray | None = None, labels: np.ndarray | None = None) -> Flat:
    return Flat(
        images=found.images,
        labels=found.labels if labels is None else labels,
        boxes=found.boxes if boxes is None else boxes,
        scores=found.scores,
    )


def test_sound_and_weak_detections_get_no_remark() -> None:
    for seed in range(20):
        for spread in (0.0, 1.0, 8.0, 25.0):
            assert remarks_on_fit(*flats(seed, spread=spread), CLASSES) == []


@pytest.mark.parametrize(
    ("numbers", "said"),
    [((2, 1, 3), "(dog on cat, cat on dog)"), ((2, 3, 1), "(dog on cat, bird on dog, cat on bird)")],
)
def test_classes_in_another_order_are_named(numbers: tuple[int, ...], said: str) -> None:
    objects, found = flats(1)
    labels = np.array(numbers)[found.labels - 1]
    (remark, *_) = remarks_on_fit(objects, read_as(found, labels=labels), CLASSES)
    assert remark.startswith(
        f"detections of some classes lie on objects of others {said}: the numbers of their classes"
    )


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            lambda b: np.hstack([b[:, :2], b[:, :2] + b[:, 2:]]),
            "what was taken for width and height are the far corners",
        ),
        (lambda b: np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]), "what was taken for far corners are width and height"),
        (lambda b: b + np.tile((b[:, 2:] - b[:, :2]) / 2, 2), "what was taken for the first corner is the centre"),
        (lambda b: b[:, [1, 0, 3, 2]], "x and y are exchanged"),
        (lambda b: b / 2, "they are of images 0."),
        (lambda b: b * [3, 0.5, 3, 0.5], "they are of images 2.99 times"),
    ],
)
def test_another_form_of_the_boxes_is_named(write: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    objects, found = flats(2)
    (remark,) = remarks_on_fit(objects, read_as(found, boxes=write(found.boxes)), CLASSES)
    assert said in remark
    assert remark.endswith("correct the file of detections")


def test_detections_that_stand_twice_and_have_one_score() -> None:
    objects, found = flats(3)
    twice = Flat(**{name: np.concatenate([value, value]) for name, value in vars(found).items()})
    count = len(found.scores)
    (remark,) = remarks_on_fit(objects, twice, CLASSES)
    assert remark.startswith(f"{count} of {2 * count} detections stand in the files more than once")
    same = Flat(images=found.images, labels=found.labels, boxes=found.boxes, scores=np.ones(count))
    assert remarks_on_fit(objects, same, CLASSES) == [
        f"all {count} detections have the score 1: they are ranked in the order of the files"
    ]


def test_nothing_is_said_of_a_few_objects_or_no_detection() -> None:
    objects, found = flats(4)
    none = Flat.detections([Detections.empty()] * COUNT)
    assert remarks_on_fit(objects, none, CLASSES) == []
    few = Flat(**{name: value[:4] for name, value in vars(objects).items()})
    assert remarks_on_fit(few, read_as(found, boxes=found.boxes / 2), CLASSES) == []
