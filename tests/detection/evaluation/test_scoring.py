"""Names and units of everything that reaches `results.json`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from paperbench.detection.evaluation import voc
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.scoring import evaluate, measure
from tests.detection.evaluation.cases import CLASSES, data_set, perfect, random_case, record


def test_names_are_flat_and_stable() -> None:
    records, detections = random_case(0)
    metrics = evaluate(data_set(records), detections, [item.boxes for item in detections])
    ten = {f"coco/{name}" for name in ("AP", "AP50", "AP75", "APs", "APm", "AR1", "AR10", "AR100", "ARs", "ARm")}
    assert ten <= set(metrics)
    assert not {"coco/APl", "coco/ARl"} & set(metrics)  # no object of these scenes is large
    assert {"voc07/mAP", "voc/mAP", "proposals/AR@100", "proposals/recall50@100"} <= set(metrics)
    for name in CLASSES:
        assert {f"coco/AP/{name}", f"voc07/AP/{name}", f"voc/AP/{name}"} <= set(metrics)
    assert all(type(value) is float for value in metrics.values())
    json.dumps(metrics, allow_nan=False)


def test_values_are_in_percent() -> None:
    records, detections = random_case(0)
    dataset = data_set(records)
    whole = evaluate(dataset, perfect(records), [item.boxes for item in records])
    for name in ("coco/AP", "voc/mAP", "voc07/mAP", "voc07/AP/dog", "proposals/AR@100"):
        assert whole[name] == pytest.approx(100)
    by_voc = voc.evaluate(records, detections, CLASSES)
    assert evaluate(dataset, detections)["voc/mAP"] == pytest.approx(100 * by_voc.map_area)
    assert evaluate(dataset, detections)["voc07/AP/dog"] == pytest.approx(100 * by_voc.ap_11_point[1])


def test_proposals_are_scored_only_where_given() -> None:
    records, detections = random_case(0)
    measured = measure(data_set(records), detections)
    assert measured.recall is None
    assert not [name for name in measured.metrics if name.startswith("proposals/")]


def test_a_class_without_objects_has_no_entry() -> None:
    metrics = evaluate(data_set([record([(0, 0, 50, 50)], [1])]), [Detections.empty()])
    assert metrics["voc/AP/cat"] == metrics["voc07/mAP"] == 0
    assert not [name for name in metrics if name.endswith(("/dog", "/bird"))]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"boxes": np.zeros((2, 4), np.float32)}, r"boxes \(N, 4\)"),
        ({"labels": np.zeros(2, np.int64)}, r"boxes \(N, 4\)"),
        ({"labels": np.zeros(1, np.int64)}, "count from 1, got 0"),
        ({"scores": np.array([np.nan], np.float32)}, "not finite"),
        ({"boxes": np.full((1, 4), np.inf, np.float32)}, "not finite"),
    ],
)
def test_detections_that_would_be_misread_are_refused(fields: dict[str, np.ndarray], message: str) -> None:
    sound = {"boxes": np.zeros((1, 4), np.float32), "scores": np.zeros(1, np.float32), "labels": np.ones(1, np.int64)}
    Detections(**sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        Detections(**(sound | fields))  # type: ignore[arg-type]


def test_classes_called_as_the_ends_of_an_interval_keep_their_numbers() -> None:
    records = [record([[10, 10, 50, 50]], [1]), record([[10, 10, 50, 50], [60, 60, 90, 90]], [1, 2])]
    metrics = measure(data_set(records, ("low", "high")), perfect(records), resamples=20).metrics
    for name in ("low", "high"):
        assert metrics[f"coco/AP/{name} (class)"] == pytest.approx(100)
    assert metrics["coco/AP/low"] == pytest.approx(100)
    assert {"voc07/AP/low (class)", "voc/AP/high (class)", "voc07/mAP/low"} <= set(metrics)


def test_masks_are_scored_by_masks() -> None:
    """Every box is found; of each object the left half is drawn, and then the whole."""
    records = [record([(10, 10, 50, 50), (100, 20, 160, 90)], [1, 2], image_id=k) for k in range(2)]

    def objects(image: int) -> np.ndarray:
        planes = np.zeros((2, 200, 200), bool)
        for plane, (x1, y1, x2, y2) in zip(planes, records[image].boxes.astype(int), strict=True):
            plane[y1:y2, x1:x2] = True
        return planes

    dataset = replace(data_set(records), masks=objects)
    drawn = np.full((2, 8, 8), 255, np.uint8)
    halves = drawn.copy()
    halves[:, :, 4:] = 0
    scored = {
        name: evaluate(dataset, [replace(found, masks=masks) for found in perfect(records)])
        for name, masks in (("whole", drawn), ("half", halves))
    }
    assert scored["whole"]["coco/AP"] == scored["half"]["coco/AP"] == pytest.approx(100)
    assert scored["whole"]["coco/mask/AP"] == pytest.approx(100)
    assert scored["half"]["coco/mask/AP75"] == 0
    assert not [name for name in evaluate(dataset, perfect(records)) if name.startswith("coco/mask")]
