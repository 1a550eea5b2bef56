"""VOC average precision against published numbers, cases worked out by hand, and a slow scorer written from the rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from paperbench.data.detection import Record
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.voc import VocResult, average_precision, evaluate, voc_average_precision
from tests.detection.evaluation.cases import CLASSES, found, perfect, random_case, record

BOX = (10, 10, 50, 50)
ELSEWHERE = (100, 100, 150, 150)


def one_class(records: Sequence[Record], detections: Sequence[Detections], **options: bool | float) -> VocResult:
    return evaluate(records, detections, ("cat",), **options)  # type: ignore[arg-type]


# --- numbers published or worked out by hand --------------------------------------------------------------------------


def test_average_precision_of_the_fact_sheet() -> None:
    recall, precision = np.array([0, 0.5, 0.5]), np.array([0, 0.5, 1 / 3])
    assert average_precision(recall, precision, "area") == pytest.approx(0.25)
    assert average_precision(recall, precision, "11-point") == pytest.approx(3 / 11)


def test_the_reference_grid_misses_a_recall_of_exactly_three_tenths() -> None:
    truth = [record([BOX], [1], image_id=image) for image in range(10)]
    detections = [found([BOX], [0.9], [1]) if image < 3 else Detections.empty() for image in range(10)]
    assert one_class(truth, detections).map_11_point == pytest.approx(3 / 11)
    assert one_class(truth, detections, exact=True).map_11_point == pytest.approx(4 / 11)
    assert one_class(truth, detections).map_area == pytest.approx(0.3)


def test_a_second_detection_of_an_object_is_a_false_positive() -> None:
    result = one_class([record([BOX], [1])], [found([BOX, BOX], [0.8, 0.9], [1, 1])])
    np.testing.assert_allclose(result.curves[0].precision, [1, 0.5])
    np.testing.assert_allclose(result.curves[0].recall, [1, 1])
    assert result.map_area == 1


def test_a_detection_takes_the_object_it_overlaps_most_even_when_that_one_is_taken() -> None:
    # Both detections overlap the first object most; the second one also overlaps the free object by more than half.
    objects = [[0, 0, 100, 100], [0, 0, 100, 60]]
    detections = found([[0, 0, 100, 100], [0, 0, 100, 85]], [0.9, 0.8], [1, 1])
    result = one_class([record(objects, [1, 1])], [detections])
    np.testing.assert_allclose(result.curves[0].recall, [0.5, 0.5])


def test_difficult_objects_are_neither_found_nor_missed() -> None:
    truth = [record([BOX, ELSEWHERE], [1, 1], difficult=[True, False])]
    both = one_class(truth, [found([BOX, ELSEWHERE], [0.9, 0.8], [1, 1])])
    assert both.curves[0].objects == 1
    np.testing.assert_allclose(both.curves[0].precision, [1])
    neither = one_class(truth, [found([ELSEWHERE], [0.8], [1])])
    assert both.map_area == neither.map_area == 1


def test_several_detections_of_a_difficult_object_cost_nothing() -> None:
    truth = [record([BOX, ELSEWHERE], [1, 1], difficult=[True, False])]
    result = one_class(truth, [found([BOX, BOX, ELSEWHERE], [0.9, 0.85, 0.8], [1, 1, 1])])
    assert result.map_area == 1


def test_crowd_regions_count_as_difficult() -> None:
    truth = [record([BOX, ELSEWHERE], [1, 1], crowd=[True, False])]
    assert one_class(truth, [found([BOX, ELSEWHERE], [0.9, 0.8], [1, 1])]).map_area == 1


def test_an_overlap_of_exactly_the_threshold_is_a_match() -> None:
    result = one_class([record([[0, 0, 10, 10]], [1])], [found([[0, 0, 10, 5]], [0.9], [1])])
    assert result.map_area == 1
    assert one_class([record([[0, 0, 10, 10]], [1])], [found([[0, 0, 10, 4.9]], [0.9], [1])]).map_area == 0


def test_inclusive_corners_add_a_pixel_to_each_width() -> None:
    # 10 x 10 against 10 x 5 pixels: exactly half with widths of x2 - x1 + 1, 4/9 without.
    truth, detections = [record([[1, 1, 10, 10]], [1])], [found([[1, 1, 10, 5]], [0.9], [1])]
    assert one_class(truth, detections, inclusive=True).map_area == 1
    assert one_class(truth, detections).map_area == 0


def test_equal_scores_keep_the_order_of_images_and_of_detections() -> None:
    truth = [record([BOX], [1]), record([BOX], [1])]
    wrong_first = one_class(truth, [found([ELSEWHERE], [0.5], [1]), found([BOX], [0.5], [1])])
    right_first = one_class(truth, [found([BOX], [0.5], [1]), found([ELSEWHERE], [0.5], [1])])
    np.testing.assert_allclose(wrong_first.curves[0].precision, [0, 0.5])
    np.testing.assert_allclose(right_first.curves[0].precision, [1, 0.5])
    within = one_class(truth[:1], [found([ELSEWHERE, BOX], [0.5, 0.5], [1, 1])])
    np.testing.assert_allclose(within.curves[0].precision, [0, 0.5])


def test_a_class_without_objects_is_undefined_and_left_out_of_the_mean() -> None:
    truth = [record([BOX, ELSEWHERE], [1, 3], difficult=[False, True])]
    result = evaluate(truth, [found([BOX, ELSEWHERE], [0.9, 0.9], [1, 2])], CLASSES)
    assert result.ap_area[0] == 1
    assert np.isnan(result.ap_area[1:]).all()
    assert np.isnan(result.ap_11_point[1:]).all()
    assert result.map_area == result.map_11_point == 1


def test_nothing_to_find_is_undefined_and_nothing_found_is_zero() -> None:
    assert np.isnan(evaluate([], [], CLASSES).map_area)
    assert np.isnan(one_class([record([], [])], [found([BOX], [0.5], [1])]).map_area)
    assert one_class([record([BOX], [1])], [Detections.empty()]).map_area == 0


def test_refuses_what_does_not_fit_together() -> None:
    with pytest.raises(ValueError, match="2 images but detections for 1"):
        one_class([record([], []), record([], [])], [Detections.empty()])
    with pytest.raises(ValueError, match="label 2, but there are 1 classes"):
        one_class([record([BOX], [1])], [found([BOX], [0.5], [2])])


# --- properties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_perfect_detections_score_one(seed: int) -> None:
    records, _ = random_case(seed)
    result = evaluate(records, perfect(records), CLASSES, exact=True)
    assert result.map_area == pytest.approx(1)
    assert result.map_11_point == pytest.approx(1)


def test_the_order_of_images_does_not_matter_without_ties() -> None:
    records, detections = random_case(5)
    forward = evaluate(records, detections, CLASSES)
    backward = evaluate(records[::-1], detections[::-1], CLASSES)
    np.testing.assert_array_equal(forward.ap_area, backward.ap_area)


# --- a second opinion -------------------------------------------------------------------------------------------------


def slow_ap(
    records: Sequence[Record], detections: Sequence[Detections], label: int, *, threshold: float, extra: float
) -> tuple[float, float]:
    """(area, 11-point) of one class, one detection after the other, as the challenge describes it."""
    queue = [
        (float(score), image, box)
        for image, item in enumerate(detections)
        for box, score, kind in zip(item.boxes.tolist(), item.scores.tolist(), item.labels.tolist(), strict=True)
        if kind == label
    ]
    queue.sort(key=lambda entry: -entry[0])
    taken: set[tuple[int, int]] = set()
    total = sum(int((~item.difficult[item.labels == label]).sum()) for item in records)
    hits, misses, curve = 0, 0, []
    for _, image, box in queue:
        best, where = 0.0, -1
        for index, gt in enumerate(records[image].boxes.tolist()):
            if records[image].labels[index] != label:
                continue
            width = min(box[2], gt[2]) - max(box[0], gt[0]) + extra
            height = min(box[3], gt[3]) - max(box[1], gt[1]) + extra
            if width <= 0 or height <= 0:
                continue
            areas = [(b[2] - b[0] + extra) * (b[3] - b[1] + extra) for b in (box, gt)]
            overlap = width * height / (sum(areas) - width * height)
            if overlap > best:
                best, where = overlap, index
        if best >= threshold and records[image].difficult[where]:
            continue
        if best >= threshold and (image, where) not in taken:
            taken.add((image, where))
            hits += 1
        else:
            misses += 1
        curve.append((hits / total, hits / (hits + misses)))
    area, reached = 0.0, 0.0
    for index, (recall, _) in enumerate(curve):
        area += (recall - reached) * max(precision for _, precision in curve[index:])
        reached = recall
    points = [max((p for r, p in curve if r >= level), default=0.0) for level in np.arange(0.0, 1.1, 0.1).tolist()]
    return area, sum(points) / 11


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_a_scorer_that_goes_detection_by_detection(seed: int, inclusive: bool) -> None:
    records, detections = random_case(seed, integers=inclusive, ties=seed % 2 == 0)
    result = evaluate(records, detections, CLASSES, inclusive=inclusive)
    for index in range(len(CLASSES)):
        area, eleven = slow_ap(records, detections, index + 1, threshold=0.5, extra=float(inclusive))
        assert 0 < area < 1
        assert result.ap_area[index] == pytest.approx(area, abs=1e-12)
        assert result.ap_11_point[index] == pytest.approx(eleven, abs=1e-12)


# --- plain arrays -----------------------------------------------------------------------------------------------------


def test_plain_arrays_give_the_same_numbers() -> None:
    records, detections = random_case(3)
    truth = [
        {"boxes": item.boxes, "labels": 10 * item.labels, "difficult": item.difficult | item.crowd} for item in records
    ]
    given = [{"boxes": item.boxes, "labels": 10 * item.labels, "scores": item.scores} for item in detections]
    expected = evaluate(records, detections, CLASSES)
    for method, values in (("area", expected.ap_area), ("11-point", expected.ap_11_point)):
        found_here = voc_average_precision(truth, given, method=method)  # type: ignore[arg-type]
        assert found_here.keys() == {10, 20, 30}
        np.testing.assert_allclose(list(found_here.values()), values)


def test_plain_arrays_may_be_lists_and_empty() -> None:
    truth = [{"boxes": [BOX], "labels": [7]}, {"boxes": [], "labels": []}]
    detections = [{"boxes": [BOX], "labels": [7], "scores": [0.5]}, {"boxes": [BOX], "labels": [3], "scores": [0.9]}]
    assert voc_average_precision(truth, detections) == {7: 1.0}  # nothing says how well label 3 is found
    assert voc_average_precision([], []) == {}


@pytest.mark.parametrize(
    ("truth", "detection"),
    [
        ({"boxes": [BOX], "labels": []}, {"boxes": [], "labels": [], "scores": []}),
        ({"boxes": [BOX], "labels": [1], "difficult": [True, False]}, {"boxes": [], "labels": [], "scores": []}),
        ({"boxes": [BOX], "labels": [1]}, {"boxes": [BOX], "labels": [1], "scores": []}),
        ({"boxes": [BOX], "labels": [1]}, {"boxes": [BOX], "labels": [1], "scores": [float("nan")]}),
    ],
)
def test_plain_arrays_that_disagree_are_refused(truth: dict, detection: dict) -> None:
    with pytest.raises(ValueError, match=r"label|difficult|scores|finite"):
        voc_average_precision([truth], [detection])


def test_plain_arrays_of_different_numbers_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="1 images but detections for 0"):
        voc_average_precision([{"boxes": [BOX], "labels": [1]}], [])


def test_a_method_that_is_unknown_and_a_part_that_is_missing_are_named() -> None:
    image = {"boxes": np.array([[0.0, 0, 8, 8]]), "labels": np.array([1])}

    with pytest.raises(ValueError, match="method='voc': no such method; there are 11-point"):
        voc_average_precision([image], [{**image, "scores": np.ones(1)}], method="voc")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"detections\[0\]: has no scores"):
        voc_average_precision([image], [image])
