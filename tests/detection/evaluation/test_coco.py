"""COCO's numbers: against pycocotools fed from files, and in the corners it stumbles over."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paperbench.data.detection import Record
from paperbench.detection.evaluation.coco import NUMBERS, evaluate, evaluate_files
from paperbench.detection.evaluation.detections import Detections
from paperbench.errors import DataError
from tests.detection.evaluation.cases import CLASSES, found, perfect, random_case, record

BOX = (10, 10, 50, 50)
ELSEWHERE = (100, 100, 150, 150)
CATEGORY_IDS = (7, 3, 90)
"""Out of order and with gaps, as in COCO: label k is CATEGORY_IDS[k - 1]."""


def write(folder: Path, records: Sequence[Record], detections: Sequence[Detections]) -> tuple[Path, Path]:
    """Annotation and results file of a case, with image ids that are no indices."""
    annotations, results = [], []
    for image, (item, mine) in enumerate(zip(records, detections, strict=True)):
        for index, (x1, y1, x2, y2) in enumerate(item.boxes.tolist()):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + image, "category_id": CATEGORY_IDS[item.labels[index] - 1],
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(item.area[index]),
                 "iscrowd": int(item.crowd[index])}
            )  # fmt: skip
        for (x1, y1, x2, y2), score, label in zip(
            mine.boxes.tolist(), mine.scores.tolist(), mine.labels.tolist(), strict=True
        ):
            results.append({"image_id": 100 + image, "category_id": CATEGORY_IDS[label - 1], "score": score,
                            "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in zip(CATEGORY_IDS, CLASSES, strict=True)]
    images = [{"id": 100 + image} for image in range(len(records))]
    ground_truth = {"images": images, "categories": categories, "annotations": annotations}
    truth_path, results_path = folder / "instances.json", folder / "results.json"
    truth_path.write_text(json.dumps(ground_truth))
    results_path.write_text(json.dumps(results))
    return truth_path, results_path


@pytest.mark.parametrize("seed", range(3))
def test_twelve_numbers_are_those_of_pycocotools_on_files(seed: int, tmp_path: Path) -> None:
    records, detections = random_case(seed, difficult=0)
    truth_path, results_path = write(tmp_path, records, detections)
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_path))
        direct = COCOeval(truth, truth.loadRes(str(results_path)), "bbox")
        direct.evaluate()
        direct.accumulate()
        direct.summarize()
    expected = [100 * value if value >= 0 else np.nan for value in direct.stats]
    ours = evaluate(records, detections, CLASSES)
    files = evaluate_files(truth_path, results_path)
    np.testing.assert_allclose([ours.numbers[name] for name in NUMBERS], expected, rtol=1e-12)
    np.testing.assert_allclose([files.numbers[name] for name in NUMBERS], expected, rtol=1e-12)
    assert 0 < ours.numbers["AP"] < ours.numbers["AP50"] < 100


def test_class_values_average_to_the_whole_and_follow_the_files_category_ids(tmp_path: Path) -> None:
    records, detections = random_case(1, difficult=0)
    ours = evaluate(records, detections, CLASSES)
    assert ours.class_ap.mean() == pytest.approx(ours.numbers["AP"])
    assert ours.class_ap50.mean() == pytest.approx(ours.numbers["AP50"])
    files = evaluate_files(*write(tmp_path, records, detections))
    assert files.classes == ("dog", "cat", "bird")
    np.testing.assert_allclose(files.class_ap, ours.class_ap[[1, 0, 2]])


def test_perfect_detections_score_a_hundred() -> None:
    records, _ = random_case(2)
    numbers = evaluate(records, perfect(records), CLASSES).numbers
    assert [numbers["AP"], numbers["AP50"], numbers["AR100"]] == pytest.approx([100] * 3)


def test_no_detections_at_all_is_zero_without_a_word_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate([record([BOX], [1]), record([], [])], [Detections.empty()] * 2, CLASSES)
    assert result.numbers["AP"] == result.numbers["AR100"] == 0
    assert result.metrics()["coco/AP50"] == 0
    assert capsys.readouterr().out == ""


def test_what_the_ground_truth_does_not_define_is_nan_and_no_metric() -> None:
    result = evaluate([record([BOX], [1])], [found([BOX], [0.9], [1])], CLASSES)
    assert np.isnan(result.numbers["APl"])
    assert np.isnan(result.class_ap[1:]).all()
    metrics = result.metrics()
    assert [metrics["coco/APm"], metrics["coco/AP/cat"]] == pytest.approx([100, 100])
    assert not {"coco/APl", "coco/ARs", "coco/AP/dog"} & set(metrics)
    json.dumps(metrics, allow_nan=False)


def test_images_without_any_object_define_nothing() -> None:
    assert evaluate([record([], [])], [found([BOX], [0.5], [1])], CLASSES).metrics() == {}
    assert evaluate([], [], CLASSES).metrics() == {}


def test_detections_in_an_image_without_objects_count_against_the_class() -> None:
    records = [record([BOX], [1]), record([], [])]
    detections = [found([BOX], [0.8], [1]), found([BOX], [0.9], [1])]
    assert evaluate(records, detections, CLASSES).numbers["AP50"] == pytest.approx(50, abs=1)


def test_any_number_of_detections_may_lie_in_a_crowd_but_one_only_in_a_difficult_object() -> None:
    in_it = [found([BOX, BOX, ELSEWHERE], [0.9, 0.8, 0.7], [1, 1, 1])]
    crowd = evaluate([record([BOX, ELSEWHERE], [1, 1], crowd=[True, False])], in_it, CLASSES)
    difficult = evaluate([record([BOX, ELSEWHERE], [1, 1], difficult=[True, False])], in_it, CLASSES)
    assert crowd.numbers["AP50"] == pytest.approx(100)
    assert difficult.numbers["AP50"] == pytest.approx(50, abs=1)
    missed = evaluate([record([BOX, ELSEWHERE], [1, 1], difficult=[True, False])], [in_it[0].above(2)], CLASSES)
    alone = evaluate([record([ELSEWHERE], [1])], [found([ELSEWHERE], [0.7], [1])], CLASSES)
    assert missed.numbers["AR100"] == 0
    assert alone.numbers["AR100"] == pytest.approx(100)


def test_areas_come_from_the_ground_truth_not_from_the_box() -> None:
    small = record([BOX], [1])
    small.area[:] = 5.0  # as of a thin mask
    metrics = evaluate([small], [found([BOX], [0.9], [1])], CLASSES).metrics()
    assert metrics["coco/APs"] == pytest.approx(100)
    assert "coco/APm" not in metrics


def test_refuses_what_does_not_fit_together() -> None:
    with pytest.raises(ValueError, match="1 images but detections for 0"):
        evaluate([record([], [])], [], CLASSES)
    with pytest.raises(ValueError, match="label 4, but there are 3 classes"):
        evaluate([record([], [])], [found([BOX], [0.5], [4])], CLASSES)


# --- files ------------------------------------------------------------------------------------------------------------


def truth_with(**changes: Any) -> dict[str, Any]:
    """A ground truth of one image and one object, numbered 0 and without area or crowd flag."""
    whole: dict[str, Any] = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 0, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40]}],
    }
    return whole | changes


HIT: dict[str, Any] = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.5}


def score(folder: Path, truth: Any, results: Any) -> dict[str, float]:
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(results))
    return evaluate_files(folder / "gt.json", folder / "dt.json").metrics()


def test_an_annotation_numbered_zero_without_area_or_crowd_flag_is_scored(tmp_path: Path) -> None:
    # pycocotools takes id 0 for "unmatched" and raises KeyError without the flag.
    assert score(tmp_path, truth_with(), [HIT])["coco/APm"] == pytest.approx(100)


def test_areas_that_are_no_objects_are_remarked_on(tmp_path: Path) -> None:
    entry = truth_with()["annotations"][0]
    for area, said in ((1500, False), (1600, False), (0, True), (6400, True)):
        (tmp_path / "gt.json").write_text(json.dumps(truth_with(annotations=[{**entry, "area": area}])))
        (tmp_path / "dt.json").write_text(json.dumps([HIT]))
        remarks = evaluate_files(tmp_path / "gt.json", tmp_path / "dt.json").remarks
        assert any("1 annotations have an area of 0 or larger than their box" in remark for remark in remarks) == said


def test_an_empty_list_of_results_scores_zero(tmp_path: Path) -> None:
    assert score(tmp_path, truth_with(), [])["coco/AP"] == 0


@pytest.mark.parametrize(
    ("truth", "results", "message"),
    [
        (truth_with(), {"a": 1}, r"dt\.json: COCO results are a list"),
        (truth_with(), [HIT, 3], r"dt\.json: entry 1: .*: 3 is not an object"),
        (
            truth_with(),
            [HIT | {"image_id": 9}],
            r"dt\.json: entry 0: unknown image: image_id 9 is not among the images",
        ),
        (
            truth_with(),
            [HIT | {"category_id": "cat"}],
            r"entry 0: unknown class: category_id 'cat' is not among the categories",
        ),
        (truth_with(), [HIT | {"bbox": [1, 2, 3]}], r"entry 0: no box: bbox is \[1, 2, 3\]"),
        (truth_with(), [HIT | {"bbox": [1, 2, -3, 4]}], r"entry 0: no box: bbox is .*width -3 and height 4"),
        (truth_with(), [HIT | {"score": "high"}], r"entry 0: .*: score is 'high'"),
        (truth_with(), [HIT | {"score": float("nan")}], r"entry 0: .*: score is nan"),
        (
            truth_with(),
            [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}],
            r"entry 0: unknown class: it has no category_id",
        ),
        ([], [HIT], r"gt\.json: not COCO's format: a list instead of an object with the lists images, annotations"),
        (truth_with(images=[]), [], r"gt\.json: images is empty"),
        (truth_with(categories=[{"id": 1}]), [], r"gt\.json: categories\[0\] \(id 1\): name is missing"),
        (
            truth_with(annotations=[{"image_id": 2, "category_id": 1}]),
            [],
            r"gt\.json, annotations\[0\]: unknown image: image_id 2",
        ),
    ],
)
def test_faults_are_named_by_file_and_entry(tmp_path: Path, truth: Any, results: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(tmp_path, truth, results)


def test_files_that_are_missing_or_no_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gt\.json: cannot be read: No such file"):
        evaluate_files(tmp_path / "gt.json", tmp_path / "dt.json")
    (tmp_path / "gt.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"gt\.json: half-written or not valid JSON"):
        evaluate_files(tmp_path / "gt.json", tmp_path / "dt.json")
