"""Detections as text files of YOLO's: what is written is what is read, and one scene has one AP in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paperbench.data import coco, voc, yolo
from paperbench.data.detection import DetectionSet
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.scoring import evaluate
from paperbench.detection.evaluation.yolo_detections import read_yolo, write_yolo
from paperbench.errors import DataError
from tests.data import files
from tests.data.files import coco_content, voc_object, voc_xml, write_coco, write_voc

NAMES = ("cat", "dog", "cow")
KNOWN = dict(enumerate(NAMES))


def scene(seed: int) -> dict[str, list[tuple[int, tuple[int, int, int, int]]]]:
    """Images of 60 x 40 with objects: class and whole-number corners, as VOC has them."""
    draw = np.random.default_rng(seed)
    images = {}
    for name in "abc":
        corners = [(int(x), int(y), int(x + w), int(y + h)) for x, y, w, h in draw.integers(3, 20, (4, 4))]
        images[name] = [(int(draw.integers(3)), box) for box in corners]
    return images


def three_formats(root: Path, seed: int = 0) -> list[DetectionSet]:
    objects = scene(seed)
    write_voc(
        root,
        {
            name: voc_xml(*(voc_object(NAMES[k], (a + 1, b + 1, c, d)) for k, (a, b, c, d) in own))
            for name, own in objects.items()
        },
    )
    content = coco_content(
        [
            {"image_id": 10 + row, "category_id": k, "bbox": [a, b, c - a, d - b], "iscrowd": 0}
            for row, own in enumerate(objects.values())
            for k, (a, b, c, d) in own
        ]
    )
    write_coco(root, {**content, "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)]})
    files.write_yolo(
        root / "yolo",
        {
            name: "".join(
                f"{k} {(a + c) / 120:.7f} {(b + d) / 80:.7f} {(c - a) / 60:.7f} {(d - b) / 40:.7f}\n"
                for k, (a, b, c, d) in own
            )
            for name, own in objects.items()
        },
    )
    return [
        voc.read(root=str(root), split="trainval", classes=NAMES),
        coco.read(root=str(root), split="val2017"),
        yolo.read(root=root / "yolo", split="train"),
    ]


def guesses(dataset: DetectionSet, seed: int = 0) -> list[Detections]:
    """Every object moved a little, and as many boxes out of thin air."""
    draw = np.random.default_rng(seed)
    found = []
    for record in dataset.records:
        near = record.boxes + draw.normal(0, 1.5, record.boxes.shape)
        far = np.sort(draw.uniform(0, 40, (4, 2, 2)), axis=1).reshape(4, 4)
        labels = np.concatenate([record.labels, draw.integers(1, 4, 4)])
        boxes = np.concatenate([near, far]).clip(0, (60, 40, 60, 40))
        found.append(Detections(boxes=boxes, scores=draw.uniform(0.1, 1, len(boxes)), labels=labels))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_one_scene_has_one_ap_in_three_formats(tmp_path: Path, seed: int) -> None:
    by_voc, by_coco, by_yolo = three_formats(tmp_path, seed)
    detections = guesses(by_voc, seed)
    expected = evaluate(by_voc, detections)
    assert 10 < expected["coco/AP50"] < 100
    assert evaluate(by_coco, detections) == expected
    assert evaluate(by_yolo, detections) == pytest.approx(expected, abs=1e-9)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    *_, dataset = three_formats(tmp_path)
    detections = [*guesses(dataset)[:2], Detections.empty()]
    write_yolo(tmp_path / "found", dataset, detections)
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["a.txt", "b.txt"]
    first = (tmp_path / "found" / "a.txt").read_text().splitlines()[0].split()
    assert len(first) == 6
    assert float(first[5]) == pytest.approx(detections[0].scores[0])
    again = read_yolo(tmp_path / "found", dataset, KNOWN)
    for one, two in zip(detections, again, strict=True):
        np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-6)
        np.testing.assert_allclose(one.scores, two.scores, rtol=1e-9)
        assert one.labels.tolist() == two.labels.tolist()
    assert evaluate(dataset, again) == pytest.approx(evaluate(dataset, detections), abs=1e-9)


def test_numbers_of_classes_are_those_of_the_files(tmp_path: Path) -> None:
    three_formats(tmp_path)
    dataset = yolo.read(root=tmp_path / "yolo", split="train", classes=("cow", "cat"))
    one = Detections(boxes=np.array([[0.0, 0, 30, 20]]), scores=np.array([0.5]), labels=np.array([1]))
    write_yolo(tmp_path / "found", dataset, [one, Detections.empty(), Detections.empty()])
    assert (tmp_path / "found" / "a.txt").read_text() == "2 0.25 0.25 0.5 0.5 0.5\n"
    (tmp_path / "found" / "b.txt").write_text("1 0.25 0.25 0.5 0.5 0.9\n0 0.1 0.1 0.3 0.1 0.3 0.5 0.8\n")
    again = read_yolo(tmp_path / "found", dataset, KNOWN)
    # Another class is left out; a polygon is scored by its extent.
    assert [found.labels.tolist() for found in again] == [[1], [2], []]
    np.testing.assert_allclose(again[1].boxes, [[6, 4, 18, 20]])


def test_faults_of_files_of_detections(tmp_path: Path) -> None:
    *_, dataset = three_formats(tmp_path)
    folder = tmp_path / "found"
    with pytest.raises(DataError, match="found: no such folder"):
        read_yolo(folder, dataset, KNOWN)
    folder.mkdir()
    (folder / "x.txt").write_text("0 .5 .5 .5 .5 .9\n")
    with pytest.raises(DataError, match=r"no file for any of the 3 images of train, such as .*; it holds x\. "):
        read_yolo(folder, dataset, KNOWN)
    (folder / "a.txt").write_text(
        "0 .5 .5 .5 .5\n0 .5 .5 .5 .5 nan\n9 .5 .5 .5 .5 .9\n0 .5 .5 -.5 .5 .9\n0 1e308 .5 .5 .5 .9\n"
    )
    with pytest.raises(DataError) as error:
        read_yolo(folder, dataset, KNOWN)
    for text in (
        "x.txt: unknown image: no image of that name is in train",
        "a.txt:1: wrong number of columns: 5 numbers, expected 6",
        "no confidence? write it last (save_conf=True)",
        "a.txt:2: coordinates that are not finite",
        "a.txt:3: unknown class: 9; the data have the classes 0 cat, 1 dog, 2 cow",
        "a.txt:4 (cat): no box: its width or height is below 0",
        "a.txt:5 (cat): no box: its numbers are shares of the image, and reach 1000 images beyond it",
        "Nothing was scored",
    ):
        assert text in str(error.value)
