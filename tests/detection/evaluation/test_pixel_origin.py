"""The remark that files count pixels otherwise: said of boxes that lie one pixel off, not of a weak detector's chance."""

from __future__ import annotations

import numpy as np
import pytest

from paperbench.data.detection import Record
from paperbench.detection.evaluation import voc
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.pixel_origin import is_moved
from tests.detection.evaluation.cases import record


def case(seed: int, *, images: int, spread: float, offset: float) -> tuple[list[Record], list[Detections]]:
    """Images of two objects, each found by three boxes whose corners err by `spread` pixels, all moved by `offset`."""
    rng = np.random.default_rng(seed)
    records, found = [], []
    for number in range(images):
        corners = rng.integers(0, 100, (2, 2))
        boxes = np.concatenate([corners, corners + rng.integers(12, 50, (2, 2))], 1).astype(float)
        records.append(record(boxes.tolist(), [1, 1], image_id=number))
        guesses = np.repeat(boxes, 3, 0) + rng.normal(0, spread, (6, 4)) + offset
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2])
        found.append(Detections(boxes=guesses, scores=rng.random(6), labels=np.ones(6, np.int64)))
    return records, found


def moved(records: list[Record], shift: float) -> list[Record]:
    return [record((each.boxes + shift).tolist(), each.labels.tolist(), image_id=each.image_id) for each in records]


@pytest.mark.parametrize("spread", [4.0, 12.0])
@pytest.mark.parametrize("images", [2, 20])
def test_the_chance_of_a_weak_detector_is_seldom_taken_for_an_origin(images: int, spread: float) -> None:
    better = said = 0
    for seed in range(100):
        records, found = case(seed, images=images, spread=spread, offset=0)
        here = voc.evaluate(records, found, ("cat",), inclusive=True).map_area
        there = voc.evaluate(moved(records, 1), found, ("cat",), inclusive=True).map_area
        if there > here + 0.01:
            better += 1
            said += is_moved(records, found, 1)
    assert better >= 10  # by the mean average precision alone it would be said as often as this
    assert said <= 4


@pytest.mark.parametrize("shift", [1, -1])
def test_boxes_one_pixel_off_are_seen(shift: int) -> None:
    for seed in range(10):
        for images, spread in ((1, 0.0), (3, 0.2), (40, 1.2)):
            records, found = case(seed, images=images, spread=spread, offset=shift)
            assert is_moved(records, found, shift)
            assert not is_moved(records, found, -shift)
            assert not is_moved(moved(records, shift), found, shift)


def test_one_object_whose_sides_err_by_one_pixel_on_average_is_chance() -> None:
    box = [20.0, 20, 60, 60]
    guess = Detections(boxes=np.array([[14.0, 25, 64, 61]]), scores=np.ones(1), labels=np.ones(1, np.int64))
    assert not is_moved([record([box], [1])], [guess], 1)  # -6, 5, 4 and 1


def test_boxes_farther_off_have_another_cause() -> None:
    assert not is_moved(*case(0, images=10, spread=0.5, offset=4), 1)
    assert not is_moved(*case(0, images=0, spread=0, offset=0), 1)
