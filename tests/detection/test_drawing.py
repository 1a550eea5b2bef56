"""Pictures: the right pixels change, in the right colours, whatever the image and its boxes look like."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paperbench.detection.drawing import PALETTE, colour, draw, precision_recall_curves, recall_curves, sheet
from paperbench.detection.evaluation import recall, voc
from paperbench.detection.evaluation.detections import Detections
from tests.detection.evaluation.cases import CLASSES, data_set, found, random_case, record

GREY = np.full((600, 800, 3), 128, np.uint8)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).reshape(-1, 3)


def count(picture: Image.Image, rgb: tuple[int, int, int]) -> int:
    return int((pixels(picture) == rgb).all(axis=1).sum())


def test_nothing_to_draw_leaves_the_image_as_it_is() -> None:
    np.testing.assert_array_equal(np.asarray(draw(GREY, Detections.empty(), CLASSES)), GREY)


def test_a_box_is_drawn_where_it_lies_in_the_colour_of_its_class() -> None:
    picture = np.asarray(draw(GREY, found([[200, 150, 600, 450]], [0.9], [2]), CLASSES))
    changed = np.argwhere((picture != GREY).any(axis=2))
    assert np.abs(changed.max(axis=0) - (450, 600)).max() <= 6  # the line's width
    assert abs(changed[:, 1].min() - 200) <= 8
    assert (picture[300, 200] == colour(2)).all()
    np.testing.assert_array_equal(picture[250:400, 250:550], GREY[250:400, 250:550])


def test_the_name_stands_above_the_box_or_inside_where_there_is_no_room() -> None:
    above = np.asarray(draw(GREY, found([[200, 150, 600, 450]], [0.9], [1]), CLASSES))
    assert (above[:100] == GREY[:100]).all()
    assert (above[120:140, 200:230] != 128).any()
    at_the_top = np.asarray(draw(GREY, found([[200, 0, 600, 450]], [0.9], [1]), CLASSES))
    assert (at_the_top[10:20, 210:230] == colour(1)).all(axis=2).mean() > 0.3


def test_ground_truth_is_dashed_white() -> None:
    truth = record([[200, 150, 600, 450]], [1])
    picture = draw(GREY, Detections.empty(), CLASSES, truth)
    top = np.asarray(picture)[150, 200:600]
    white = (top == 255).all(axis=1)
    assert 0.3 < white.mean() < 0.7
    assert np.abs(np.diff(white.astype(int))).sum() > 6
    assert count(picture, colour(1)) == 0


def test_difficult_objects_have_shorter_dashes() -> None:
    def changes(difficult: bool) -> int:
        truth = record([[200, 150, 600, 450]], [1], difficult=[difficult])
        top = np.asarray(draw(GREY, Detections.empty(), CLASSES, truth))[150, 200:600]
        return int(np.abs(np.diff((top == 255).all(axis=1).astype(int))).sum())

    assert changes(difficult=True) > 2 * changes(difficult=False)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (40, 30)])
def test_small_images_are_enlarged_and_boxes_with_them(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    box = [[0, 0, size[1], size[0]]]
    picture = draw(image, found(box, [0.5], [1]), CLASSES, record(box, [1]))
    assert max(picture.size) == 480
    assert count(picture, colour(1)) > 0


def test_boxes_outside_or_across_the_border_do_not_fail() -> None:
    boxes = [[-100, -100, -50, -50], [700, 500, 900, 700], [900, 700, 950, 750], [100, 100, 100, 100], [0, 0, 800, 600]]
    picture = draw(GREY, found(boxes, [0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 1, 2]), CLASSES, record(boxes, [1] * 5))
    assert picture.size == (800, 600)


def test_surer_detections_lie_on_top() -> None:
    both = found([[200, 150, 600, 450], [200, 150, 600, 450]], [0.9, 0.3], [1, 2])
    assert count(draw(GREY, both, CLASSES), colour(1)) > count(draw(GREY, both, CLASSES), colour(2))


def test_names_in_any_alphabet_are_drawn() -> None:
    greek = draw(GREY, found([[200, 150, 600, 450]], [0.9], [1]), ("σκύλος",))
    boxes = draw(GREY, found([[200, 150, 600, 450]], [0.9], [1]), ("\ue000\ue000\ue000\ue000\ue000\ue000",))
    assert (np.asarray(greek) != np.asarray(boxes)).any()


def test_colours_stay_apart_for_colour_blind_eyes() -> None:
    # Machado, Oliveira and Fernandes (2009), full severity, linear RGB: no red cones, then no green ones.
    protan = np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    )
    deutan = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    rgb = np.array([colour(label) for label in range(1, len(PALETTE) + 1)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for matrix in (np.eye(3), protan, deutan):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        closest = min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))
        assert closest > 0.1
    assert colour(len(PALETTE) + 1) == colour(1)


# --- sheets and curves ------------------------------------------------------------------------------------------------


def test_sheet_holds_the_first_images_with_the_surer_detections() -> None:
    records, detections = random_case(0, images=6)
    dataset = data_set(records)
    page = sheet(dataset, detections, images=5, columns=3, tile=120)
    assert page is not None
    assert 3 * 120 < page.width < 3 * 140
    assert 2 * 120 < page.height < 2 * 160
    nothing = sheet(dataset, [Detections.empty()] * 6, images=5, columns=3, tile=120)
    sure = sheet(dataset, detections, images=5, columns=3, tile=120, score=2.0)
    assert nothing is not None
    assert sure is not None
    body = slice(30, None)  # below the legend, which names the score
    np.testing.assert_array_equal(np.asarray(sure)[body], np.asarray(nothing)[body])
    assert (np.asarray(page)[body] != np.asarray(nothing)[body]).any()


def test_sheet_of_nothing_is_none() -> None:
    assert sheet(data_set([]), []) is None
    records, detections = random_case(0, images=2)
    assert sheet(data_set(records), detections, images=0) is None


def test_sheet_takes_images_of_different_shapes() -> None:
    wide = record([[10, 10, 300, 40]], [1], size=50)
    object.__setattr__(wide, "width", 400)
    page = sheet(
        data_set([wide, record([], [], size=30)]), [found([[10, 10, 300, 40]], [0.9], [1]), Detections.empty()]
    )
    assert page is not None


def test_precision_recall_curves_are_written_for_few_and_for_many_classes(tmp_path: Path) -> None:
    records, detections = random_case(0)
    few = precision_recall_curves(voc.evaluate(records, detections, CLASSES), tmp_path / "figures" / "few.png")
    records, detections = random_case(0, images=40, classes=20)
    many = precision_recall_curves(
        voc.evaluate(records, detections, [f"class {number}" for number in range(20)]),
        tmp_path / "figures" / "many.png",
    )
    assert few is not None
    assert many is not None
    for path in (few, many):
        with Image.open(path) as picture:
            assert picture.width > 600
            assert len(np.unique(pixels(picture.convert("RGB")), axis=0)) > 50
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["few.png", "many.png"]


def test_curves_without_ground_truth_are_not_written(tmp_path: Path) -> None:
    nothing = [record([], [])]
    assert precision_recall_curves(voc.evaluate(nothing, [Detections.empty()], CLASSES), tmp_path / "pr.png") is None
    assert recall_curves(recall.evaluate(nothing, [np.zeros((0, 4), np.float32)]), tmp_path / "r.png") is None
    assert not list(tmp_path.iterdir())


def test_a_class_that_was_never_detected_is_drawn(tmp_path: Path) -> None:
    result = voc.evaluate([record([[0, 0, 9, 9]], [1])], [Detections.empty()], CLASSES)
    assert precision_recall_curves(result, tmp_path / "pr.png") == tmp_path / "pr.png"


def test_recall_curves_are_written(tmp_path: Path) -> None:
    records, detections = random_case(0)
    result = recall.evaluate(records, [item.boxes for item in detections], counts=(1, 3, 5))
    assert recall_curves(result, tmp_path / "recall.png") == tmp_path / "recall.png"
    with Image.open(tmp_path / "recall.png") as picture:
        assert picture.width > 400
