"""Files of detections whose numbers would mislead are remarked on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperbench.detection.evaluation import coco
from paperbench.detection.evaluation.result_remarks import remarks_on_boxes, remarks_on_images

TRUTH = {
    "images": [{"id": key, "width": 100, "height": 80} for key in (3, 1)],
    "categories": [{"id": 5, "name": "cat"}],
    "annotations": [
        {"id": key, "image_id": key, "category_id": 5, "bbox": [50, 40, 30, 20], "area": 600, "iscrowd": 0}
        for key in (1, 3)
    ],
}


def remarks(folder: Path, *results: tuple[int, list[float]]) -> tuple[str, ...]:
    found: list[dict[str, Any]] = [
        {"image_id": key, "category_id": 5, "bbox": box, "score": 0.5} for key, box in results
    ]
    (folder / "gt.json").write_text(json.dumps(TRUTH))
    (folder / "dt.json").write_text(json.dumps(found))
    return coco.evaluate_files(folder / "gt.json", folder / "dt.json").remarks


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([], ["no detection to be scored"]),
        ([(1, [0.5, 0.5, 0.3, 0.25]), (3, [0.5, 0.5, 0.3, 0.25])], ["no fractions of the image"]),
        ([(1, [50, 40, 80, 60]), (3, [50, 40, 30, 20])], ["1 of 2 boxes reach far outside of their image"]),
        ([(1, [50, 40, 30, 20])], ["1 of 2 images with objects have no detection"]),
        ([(1, [50, 40, 30, 20]), (3, [50, 40, 55, 20])], []),
    ],
    ids=["none", "fractions", "corners", "silent", "fine"],
)
def test_results_of_coco(tmp_path: Path, results: list[tuple[int, list[float]]], said: list[str]) -> None:
    found = remarks(tmp_path, *results)
    assert len(found) == len(said)
    assert all(text in remark for text, remark in zip(said, found, strict=True))


def test_sizes_that_nothing_tells_are_no_reason() -> None:
    assert remarks_on_boxes(np.array([[0.0, 0, 900, 900]])) == []
    assert remarks_on_images([1, 1, 2], [2, 1, 7]) == []
