"""VOC, COCO and YOLO files, and files of detections: nothing is lost without a count, and numbers are numbers."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from paperbench.data import coco, voc, yolo
from paperbench.data.detection import DetectionSet
from paperbench.data.layout import read_text
from paperbench.detection.evaluation import coco as coco_scores
from paperbench.detection.evaluation import voc as voc_scores
from paperbench.detection.evaluation.files import read_truth, read_voc, voc_file
from paperbench.detection.evaluation.scoring import evaluate, voc_metrics
from paperbench.detection.evaluation.yolo_detections import read_yolo
from paperbench.detection.proposals import sets
from paperbench.errors import DataError
from tests.data.files import coco_content, voc_object, voc_xml
from tests.fuzz.damage import Rng, damaged_bytes, damaged_numbers, damaged_structure, damaged_text, pick
from tests.fuzz.runs import Read

CLASSES = ("cat", "dog")
NAMES = ("a", "photo 1", "b.c")
_XML = voc_xml(voc_object("cat", (1, 1, 30, 20), difficult=0), voc_object("dog", (10.5, 5, 60, 40), difficult=1))


@cache
def _picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (60, 40), (90, 120, 30)).save(content, format="PNG")
    return content.getvalue()


def _damaged(text: str, rng: Rng) -> bytes:
    kind = int(rng.integers(3))
    if kind == 0:
        return damaged_bytes(text.encode(), rng)
    return (damaged_text if kind == 1 else damaged_numbers)(text, rng).encode("utf-8", "surrogatepass")


def _devkit(root: Path) -> Path:
    folder = root / "VOCdevkit" / "VOC2007"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name in NAMES:
        (folder / "Annotations" / f"{name}.xml").write_text(_XML)
        (folder / "JPEGImages" / f"{name}.png").write_bytes(_picture())
    (folder / "ImageSets" / "Main" / "val.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder


def _look_at(dataset: DetectionSet) -> None:
    for record in dataset.records:
        count = len(record.labels)
        assert record.boxes.shape == (count, 4)
        assert (record.height, record.width) == (40, 60)
        assert np.isfinite(record.boxes).all()
        assert np.isfinite(record.area).all()
        assert (record.area >= 0).all()
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
        assert (record.boxes >= 0).all()
        assert (record.boxes[:, 2] <= 60).all()
        assert (record.boxes[:, 3] <= 40).all()
        assert ((record.labels >= 1) & (record.labels <= len(dataset.classes))).all()


def read_voc_xml(rng: Rng, root: Path) -> None:
    """One annotation of three is damaged."""
    folder = _devkit(root)
    content = _damaged(_XML, rng)
    (folder / "Annotations" / "a.xml").write_bytes(content)
    rule = pick(rng, ["error", "drop", "clip"])
    dataset = voc.read(
        root=str(root),
        split="val",
        classes=CLASSES,
        on_bad_box=rule,
        zero_based=bool(rng.integers(2)),
        exif=pick(rng, ["ignore", "apply"]),
    )
    _look_at(dataset)
    if "a" in [record.image_id for record in dataset.records]:
        written = len(ElementTree.fromstring(content).findall("object"))
        read = sum(len(record.labels) for record in dataset.records if record.image_id == "a")
        assert written == read + sum(dataset.dropped.values())
    truth = read_truth(folder, "val", CLASSES)
    assert all(np.isfinite(record.boxes).all() for record in truth)


def read_voc_list(rng: Rng, root: Path) -> None:
    """The list of a split is damaged."""
    folder = _devkit(root)
    listing = folder / "ImageSets" / "Main" / "val.txt"
    listing.write_bytes(_damaged("".join(f"{name}\n" for name in NAMES), rng))
    dataset = voc.read(root=str(root), split="val", classes=CLASSES, on_bad_box=pick(rng, ["error", "drop"]))
    _look_at(dataset)
    lines = [line for line in read_text(listing).split("\n") if line.strip()]
    assert len(lines) == len(dataset.records) + sum(dataset.dropped.values())
    assert len({record.image_id for record in dataset.records}) == len(dataset.records)


_COCO: dict[str, Any] = coco_content(
    [
        {"image_id": 10, "category_id": 3, "bbox": [1.5, 2, 20, 30.25], "area": 400.5, "iscrowd": 0,
         "segmentation": [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]]},
        {"image_id": 11, "category_id": 90, "bbox": [0, 0, 60, 40], "area": 2000, "iscrowd": 1,
         "segmentation": {"size": [40, 60], "counts": [100, 500, 1800]}},
        {"image_id": 11, "category_id": 7, "bbox": [5, 5, 20, 20], "area": 30, "iscrowd": 0,
         "segmentation": {"size": [40, 60], "counts": "T3d1a1000O10000O1000000000e`Q1"}},
        {"image_id": 12, "category_id": 7, "bbox": [5, 5, 20, 20]},
    ],
    images=3,
)  # fmt: skip
_RESULTS = [
    {"image_id": 10, "category_id": 3, "bbox": [1, 2, 20, 30], "score": 0.9},
    {"image_id": 11, "category_id": 7, "bbox": [5, 6, 20, 20], "score": 0.9},
    {"image_id": 11, "category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.25},
]


def _damaged_json(value: Any, rng: Rng) -> bytes:
    if rng.integers(3):
        return json.dumps(damaged_structure(value, rng)).encode()
    return _damaged(json.dumps(value), rng)


def _write_coco(root: Path, content: bytes) -> Path:
    path = root / "annotations" / "instances_val2017.json"
    for folder in (path.parent, root / "val2017"):
        folder.mkdir()
    path.write_bytes(content)
    for image in _COCO["images"]:
        (root / "val2017" / image["file_name"]).write_bytes(_picture())
    return path


def read_coco(rng: Rng, root: Path) -> None:
    """Annotations are damaged; masks are drawn twice."""
    path = _write_coco(root, _damaged_json(_COCO, rng))
    masks: coco.MaskUse = pick(rng, ["none", "there", "all"])
    dataset = coco.read(root=str(root), split="val2017", on_bad_box=pick(rng, ["error", "drop", "clip"]), masks=masks)
    _look_at(dataset)
    images = [record.image_id for record in dataset.records]
    written = sum(entry.get("image_id") in images for entry in json.loads(path.read_text("utf-8-sig"))["annotations"])
    assert written <= dataset.objects + sum(dataset.dropped.values())
    for index, record in enumerate(dataset.records):
        if dataset.masks is not None:
            drawn = dataset.masks(index)
            assert drawn.shape == (len(record.labels), 40, 60)
            assert (drawn == dataset.masks(index)).all()
            assert masks != "all" or drawn.any((1, 2)).all()


def score_coco(rng: Rng, root: Path) -> None:
    """Annotations or results are damaged; a number that is computed is a percentage."""
    path = _write_coco(root, _damaged_json(_COCO, rng) if rng.integers(2) else json.dumps(_COCO).encode())
    found = root / "results.json"
    found.write_bytes(_damaged_json(_RESULTS, rng))
    metrics = coco_scores.evaluate_files(path, found).metrics()
    assert metrics
    assert all(0 <= value <= 100 for value in metrics.values())


def score_voc(rng: Rng, root: Path) -> None:
    """A file of detections is damaged: every line of it is a detection, or named."""
    folder = _devkit(root)
    lines = "".join(f"{name} 0.{9 - k} {k + 1} 1 30.5 20\n" for k, name in enumerate(NAMES))
    for name in CLASSES:
        voc_file(root, "val", name).write_text(lines)
    damaged = voc_file(root, "val", "cat")
    damaged.write_bytes(_damaged(lines, rng))
    found = read_voc(root, "val", NAMES, CLASSES)
    written = sum(bool(line.strip()) for line in read_text(damaged).split("\n"))
    assert sum((item.labels == 1).sum() for item in found) == written
    metrics = voc_metrics(voc_scores.evaluate(read_truth(folder, "val", CLASSES), found, CLASSES, inclusive=True))
    assert metrics
    assert all(0 <= value <= 100 for value in metrics.values())


_YAML = "path: .\ntrain: images/train\nval: [images/train]\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
_LABELS = "0 0.5 0.5 0.25 0.5\n1 0.1 0.2 0.2 0.4\n1 0.75 0.75 0.5 0.5\n"
_POLYGONS = "0 0.1 0.1 0.9 0.1 0.9 0.9\n1 0.2 0.2 0.7 0.2 0.7 0.8 0.2 0.8\n"


def _write_yolo(root: Path) -> Path:
    for part in ("images", "labels"):
        (root / part / "train").mkdir(parents=True)
    for name in NAMES:
        (root / "images" / "train" / f"{name}.png").write_bytes(_picture())
        (root / "labels" / "train" / f"{name}.txt").write_text(_LABELS)
    (root / "data.yaml").write_text(_YAML)
    return root / "labels" / "train" / "a.txt"


def read_yolo_labels(rng: Rng, root: Path) -> None:
    """One label file of three is damaged: every line of it is an object, or is counted; masks are drawn."""
    path = _write_yolo(root)
    path.write_bytes(_damaged(_POLYGONS if rng.integers(2) else _LABELS, rng))
    masks: coco.MaskUse = pick(rng, ["none", "there", "all"])
    if rng.integers(4) == 0:
        (root / "data.yaml").unlink()
    dataset = yolo.read(root=root, split="train", on_bad_box=pick(rng, ["error", "drop", "clip"]), masks=masks)
    _look_at(dataset)
    assert len(dataset.records) == 3
    written = sum(
        bool(line.strip()) for file in path.parent.glob("*.txt") for line in _text_of(file).split("\n")
    )  # a file that is no text is one fault
    assert written == dataset.objects + sum(dataset.dropped.values())
    draw = dataset.masks
    for index, record in enumerate(dataset.records):
        if draw is not None:
            drawn = draw(index)
            assert drawn.shape == (len(record.labels), 40, 60)
            assert masks != "all" or drawn.any((1, 2)).all()


def _text_of(path: Path) -> str:
    try:
        return read_text(path)
    except DataError:
        return "one"


def read_yolo_description(rng: Rng, root: Path) -> None:
    """The data.yaml is damaged."""
    _write_yolo(root)
    (root / "data.yaml").write_bytes(_damaged(_YAML, rng))
    dataset = yolo.read(root=root, split=pick(rng, ["train", "val"]), on_bad_box=pick(rng, ["error", "drop"]))
    _look_at(dataset)
    assert len(dataset.classes) == len(set(dataset.classes)) == len(dataset.category_ids)


def score_yolo(rng: Rng, root: Path) -> None:
    """A file of detections is damaged: every line of it is a detection, or named."""
    _write_yolo(root)
    dataset = yolo.read(root=root, split="val")
    folder = root / "found"
    folder.mkdir()
    lines = "".join(f"{line} 0.{9 - k}\n" for k, line in enumerate(_LABELS.splitlines()))
    for name in NAMES:
        (folder / f"{name}.txt").write_text(lines)
    (folder / "a.txt").write_bytes(_damaged(lines, rng))
    found = read_yolo(folder, dataset, dict(enumerate(CLASSES)))
    assert len(found[0]) == sum(bool(line.strip()) for line in read_text(folder / "a.txt").split("\n"))
    metrics = evaluate(dataset, found)
    assert all(0 <= value <= 100.0001 for value in metrics.values())


@cache
def _proposals() -> bytes:
    content = io.BytesIO()
    boxes = np.array([[0, 0, 60, 40], [1.5, 2, 10, 12], [3, 3, 9, 9]], np.float32)
    about = json.dumps({"format": sets.FORMAT, "method": "by hand", "settings": {"step": 3}})
    np.savez(
        content,
        boxes=boxes,
        scores=np.array([2, 1, 5], np.float32),
        offsets=np.array([0, 2, 2, 3]),
        images=np.array(NAMES),
        sizes=np.full((3, 2), (40, 60)),
        about=np.array(about),
    )
    return content.getvalue()


def read_proposals(rng: Rng, root: Path) -> None:
    """A file of proposals is damaged; each of its arrays has a checksum."""
    path = root / "proposals.npz"
    path.write_bytes(damaged_bytes(_proposals(), rng))
    found = sets.read(path)
    assert found.images == NAMES
    assert [boxes.shape for boxes in found.boxes] == [(2, 4), (0, 4), (1, 4)]
    assert found.boxes[0].tolist() == [[0, 0, 60, 40], [1.5, 2, 10, 12]]


TARGETS: dict[str, Read] = {
    "voc-xml": read_voc_xml,
    "voc-list": read_voc_list,
    "coco-json": read_coco,
    "coco-results": score_coco,
    "voc-detections": score_voc,
    "yolo-labels": read_yolo_labels,
    "yolo-description": read_yolo_description,
    "yolo-detections": score_yolo,
    "proposals": read_proposals,
}
