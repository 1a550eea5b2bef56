"""An XML file for each image, in the folders of labelling programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paperbench.data import voc, voc_layout
from paperbench.data.held_out import Part
from paperbench.errors import DataError
from tests.data.files import voc_object, voc_xml, write_image

PLACES = [("Annotations", "JPEGImages"), ("annotations", "images"), ("xml", "Photos"), ("", ""), ("labels", "")]


def write(root: Path, annotations: str, images: str, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        path = root / annotations / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(voc_xml(voc_object("gate", (1, 1, 10 + seed, 40))))
        write_image(root / images / f"{name}.jpg", seed=seed)
    return root


def read(root: Path, split: str = "all", part: Part | None = None) -> list[int | str]:
    dataset = voc.read(root=str(root), year="mine", split=split, classes=("gate",), part=part)
    return [record.image_id for record in dataset.records]


@pytest.mark.parametrize(("annotations", "images"), PLACES)
def test_boxes_and_pixels_are_those_of_the_file(tmp_path: Path, annotations: str, images: str) -> None:
    write(tmp_path, annotations, images, ["b c", "a"])
    dataset = voc.read(root=str(tmp_path), year="mine", split="all", classes=("gate",))

    assert [record.image_id for record in dataset.records] == ["a", "b c"]
    assert [record.boxes.tolist() for record in dataset.records] == [[[0, 0, 11, 40]], [[0, 0, 10, 40]]]
    assert dataset.files == [tmp_path / images / "a.jpg", tmp_path / images / "b c.jpg"]
    assert dataset.remarks == {}
    assert not np.array_equal(dataset.decode(0), dataset.decode(1))


def test_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write(tmp_path / split, "", "", [f"{split}1", "same"])

    assert voc_layout.find(str(tmp_path), "mine").splits == ("all", "train", "valid")
    assert read(tmp_path, "valid") == ["valid/same", "valid/valid1"]
    assert len(read(tmp_path)) == 4


def test_images_without_an_xml_file_are_counted_and_not_used(tmp_path: Path) -> None:
    write(tmp_path, "", "", ["a", "b"])
    write_image(tmp_path / "c.jpg")
    write_image(tmp_path / ".hidden.jpg")
    dataset = voc.read(root=str(tmp_path), year="mine", split="all", classes=("gate",))

    assert len(dataset) == 2
    assert dataset.remarks == {"images of the folder without an XML file, which are not used": 1}


def test_an_xml_file_without_its_image_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path, "", "", ["a", "b"])
    (tmp_path / "b.jpg").unlink()

    with pytest.raises(DataError, match=r"b\.jpg: missing image"):
        read(tmp_path)


def test_another_split_names_those_there_are_and_the_key(tmp_path: Path) -> None:
    write(tmp_path, "", "", ["a"])

    with pytest.raises(DataError, match=r"no such split 'test'; there are: all .*data\.test_fraction=0\.2"):
        read(tmp_path, "test")


def test_parts_share_no_image_and_leave_none_out(tmp_path: Path) -> None:
    names = [f"{k}" for k in range(10)]
    write(tmp_path, "", "", names)
    test, train = (read(tmp_path, part=Part(fraction=0.3, test=side)) for side in (True, False))

    assert len(test) == 3
    assert sorted([*test, *train]) == names


def test_lists_are_preferred(tmp_path: Path) -> None:
    write(tmp_path, "Annotations", "JPEGImages", ["a", "b"])
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("b\n")

    assert read(tmp_path, "train") == ["b"]
    with pytest.raises(DataError, match=r"all\.txt: no such split; there are: train"):
        read(tmp_path)


def test_a_folder_without_annotations_is_missing(tmp_path: Path) -> None:
    (tmp_path / "pom.xml").write_text("<project/>")

    with pytest.raises(DataError, match=r"XML files in Annotations or beside the images"):
        voc_layout.find(str(tmp_path), "2007")
