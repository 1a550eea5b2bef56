"""Numbers of images on disk beside the published ones, without reading an image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paperbench.detection import published_data


def test_splits_of_voc_by_their_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    for folder in ("Annotations", "JPEGImages"):
        (main.parents[1] / folder).mkdir(parents=True)
    main.mkdir(parents=True)
    (main / "trainval.txt").write_text("a\nb\n\n")
    data = {"name": "voc", "root": str(tmp_path), "year": "2007", "train_split": "trainval", "test_split": "test"}
    assert published_data.departures(data) == ["trainval: 2 of 5,011 images"]
    (main / "test.txt").write_text("\n".join(f"{k:06}" for k in range(4952)))
    monkeypatch.setitem(published_data._VOC["2007"], "trainval", 2)
    assert published_data.departures(data) == []
    assert published_data.departures({**data, "test_split": "mine"}) == []
    (main / "test.txt").write_text("a\n")
    assert published_data.departures({**data, "test_fraction": 0.2}) == []


def test_splits_of_coco_by_their_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_data, "_CHUNK", 7)  # every key lies across two chunks
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "val2017").mkdir()
    images = [{"id": k, "file_name": f"{k}.jpg", "width": 9, "height": 9} for k in range(3)]
    content = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    data = {"name": "coco", "root": str(tmp_path), "train_split": "train2017", "test_split": "val2017"}
    assert published_data.departures(data) == ["val2017: 3 of 5,000 images"]


def test_each_source_of_a_joined_training_set(tmp_path: Path) -> None:
    for year, count in (("2007", 5011), ("2012", 11540)):
        main = tmp_path / "VOCdevkit" / f"VOC{year}" / "ImageSets" / "Main"
        main.mkdir(parents=True)
        (main / "trainval.txt").write_text("\n".join(f"{k:06}" for k in range(count)))
    data = {
        "name": "voc",
        "root": str(tmp_path),
        "year": "2007",
        "train_split": "trainval",
        "test_split": "test",
        "train": ["2007/trainval", "2012/trainval"],
    }
    assert published_data.departures(data) == []
    (main / "trainval.txt").write_text("a\nb\n")
    assert published_data.departures(data) == ["2012/trainval: 2 of 11,540 images"]
    assert published_data.departures({**data, "train": []}) == []
