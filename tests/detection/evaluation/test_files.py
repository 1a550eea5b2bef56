"""Detections on disk: what is written is read again, devkit numbers are kept, and faults are named by file and line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as runs

from paperbench.detection.evaluation import coco, voc
from paperbench.detection.evaluation.files import read_voc, voc_file, write_coco, write_voc
from paperbench.errors import DataError
from tests.detection.evaluation.cases import CLASSES, found, random_case, record

IMAGES = ("000001", "000002")


def put(folder: Path, **content: str) -> None:
    """Class files of split `val`; a class that is not named gets an empty file."""
    for name in CLASSES:
        voc_file(folder, "val", name).write_text(content.get(name, ""))


def test_voc_round_trip(tmp_path: Path) -> None:
    _, detections = random_case(0, images=6)
    names = [f"{number:06}" for number in range(6)]
    paths = write_voc(tmp_path / "new" / "folder", "val", names, detections, CLASSES)
    assert [path.name for path in paths] == [f"comp4_det_val_{name}.txt" for name in CLASSES]
    again = read_voc(tmp_path / "new" / "folder", "val", names, CLASSES)
    for before, after in zip(detections, again, strict=True):
        order = np.argsort(before.labels, kind="stable")  # one file per class
        np.testing.assert_array_equal(after.labels, before.labels[order])
        np.testing.assert_array_equal(after.scores.astype(np.float32), before.scores[order])
        np.testing.assert_allclose(after.boxes - [1, 1, 0, 0], before.boxes[order], atol=1e-5)


def test_written_corners_count_from_one_and_belong_to_the_box(tmp_path: Path) -> None:
    write_voc(tmp_path, "val", IMAGES[:1], [found([[0, 0, 40, 30]], [0.5], [1])], CLASSES)
    text = voc_file(tmp_path, "val", "cat").read_text()
    assert text == "000001 0.5 1.000000 1.000000 40.000000 30.000000\n"
    assert voc_file(tmp_path, "val", "dog").read_text() == ""


def test_read_boxes_score_as_the_devkit_scores_their_pixels(tmp_path: Path) -> None:
    # Pixels 1..10 x 1..10 and 1..10 x 1..5 overlap by exactly one half in the devkit's widths of x2 - x1 + 1.
    put(tmp_path, cat="000001 0.9 1 1 10 5\n")
    detections = read_voc(tmp_path, "val", IMAGES, CLASSES)
    np.testing.assert_array_equal(detections[0].boxes, [[1, 1, 10, 5]])
    truth = [record([[1, 1, 10, 10]], [1]), record([], [])]
    assert voc.evaluate(truth, detections, CLASSES, inclusive=True).map_area == 1
    put(tmp_path, cat="000001 0.9 1 1 10 4\n")
    less = read_voc(tmp_path, "val", IMAGES, CLASSES)
    assert voc.evaluate(truth, less, CLASSES, inclusive=True).map_area == 0


def test_empty_files_and_blank_lines_are_no_detections(tmp_path: Path) -> None:
    put(tmp_path, dog="\n000002 0.5 1 1 2 2\n\n")
    assert [len(item) for item in read_voc(tmp_path, "val", IMAGES, CLASSES)] == [0, 1]


def test_a_box_thinner_than_a_pixel_is_no_fault(tmp_path: Path) -> None:
    put(tmp_path, dog="000001 0.5 10 10 9.5 9.25\n")
    np.testing.assert_allclose(read_voc(tmp_path, "val", IMAGES, CLASSES)[0].boxes, [[10, 10, 9.5, 9.25]])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("000003 0.5 1 1 2 2", r"image '000003' is not in the split; did you mean '00000[12]'\?"),
        ("000001 0.5 1 1 2", "5 fields, expected 6"),
        ("000001 high 1 1 2 2", "score is 'high', not a finite number"),
        ("000001 0.5 1 nan 2 2", "y1 is 'nan', not a finite number"),
        ("000001 0.5 30 1 20 9", r"corners \(30, 1\) and \(20, 9\) are inverted"),
    ],
)
def test_faulty_lines_are_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    put(tmp_path, dog=f"000001 0.5 1 1 2 2\n{line}\n")
    with pytest.raises(DataError, match=rf"comp4_det_val_dog\.txt:2: {message}"):
        read_voc(tmp_path, "val", IMAGES, CLASSES)


def test_every_fault_is_named_up_to_twenty(tmp_path: Path) -> None:
    put(tmp_path, cat="oops\n" * 15, dog="oops\n" * 15)
    with pytest.raises(DataError) as caught:
        read_voc(tmp_path, "val", IMAGES, CLASSES)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 10 more"


def test_missing_files_say_what_is_there_instead(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_voc(tmp_path / "nowhere", "val", IMAGES, CLASSES)
    with pytest.raises(DataError, match=r"none of the 3 files such as comp4_det_test_cat\.txt; it holds no"):
        read_voc(tmp_path, "test", IMAGES, CLASSES)
    put(tmp_path)
    with pytest.raises(DataError, match=r"it holds comp4_det_val_bird\.txt, .*split="):
        read_voc(tmp_path, "test", IMAGES, CLASSES)
    voc_file(tmp_path, "val", "dog").unlink()
    with pytest.raises(DataError, match=r"no comp4_det_val_dog\.txt\. A class that was never detected"):
        read_voc(tmp_path, "val", IMAGES, CLASSES)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    put(tmp_path)
    voc_file(tmp_path, "val", "bird").write_bytes(b"000001 0.5 \xff\xfe")
    with pytest.raises(DataError, match=r"comp4_det_val_bird\.txt: not a text file"):
        read_voc(tmp_path, "val", IMAGES, CLASSES)


def test_coco_results_score_as_the_detections_they_were_written_from(tmp_path: Path) -> None:
    records, detections = random_case(4, difficult=0)
    ids = [7, 8, 9]
    truth = {
        "images": [{"id": item.image_id} for item in records],
        "categories": [{"id": number, "name": name} for number, name in zip(ids, CLASSES, strict=True)],
        "annotations": [
            {"id": 1, "image_id": item.image_id, "category_id": ids[label - 1], "area": float(area), "iscrowd": 0,
             "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for item in records
            for (x1, y1, x2, y2), label, area in zip(item.boxes.tolist(), item.labels, item.area, strict=True)
        ],
    }  # fmt: skip
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    write_coco(tmp_path / "deep" / "dt.json", [item.image_id for item in records], ids, detections)
    scored = coco.evaluate_files(tmp_path / "gt.json", tmp_path / "deep" / "dt.json")
    direct = coco.evaluate(records, detections, CLASSES)
    assert scored.numbers == pytest.approx(direct.numbers, abs=1e-6, nan_ok=True)


def test_masks_are_written_on_their_own_image(tmp_path: Path) -> None:
    """Images of different sizes, the first the smallest: the runs say the size and hold the pixels of each."""
    sizes, box = [(40, 50), (300, 200), (90, 400)], [[10.0, 5, 30, 35]]
    whole = [replace(found(box, [0.5], [1]), masks=np.full((1, 8, 8), 255, np.uint8)) for _ in sizes]
    write_coco(tmp_path / "dt.json", [5, 6, 7], [9], whole, sizes)
    for entry, size in zip(json.loads((tmp_path / "dt.json").read_text()), sizes, strict=True):
        assert tuple(entry["segmentation"]["size"]) == size
        plane = runs.decode(entry["segmentation"]).astype(bool)
        assert plane.sum() == plane[5:35, 10:30].sum() == 600
