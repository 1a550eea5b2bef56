"""Layouts are told by their files, as people really have them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from paperbench.data.recognition import Recognised, recognise


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)
    return path


def text(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def only(folder: Path) -> Recognised:
    (found,) = recognise(folder)
    return found


def voc(
    root: Path, year: str = "mine", names: Sequence[str] = ("cat",), lists: Sequence[str] = ("train", "val")
) -> Path:
    home = root / "VOCdevkit" / f"VOC{year}"
    objects = "".join(f"<object><name> {name} </name></object>" for name in names)
    text(home / "Annotations" / "a.xml", f"<annotation>{objects}</annotation>")
    for name in lists:
        text(home / "ImageSets" / "Main" / f"{name}.txt", "a\n")
    text(home / "ImageSets" / "Main" / "cat_train.txt", "a 1\n")
    return home


def coco(file: Path, image: str = "a.jpg", polygons: bool = False) -> Path:
    entry: dict[str, Any] = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}
    document = {
        "images": [{"id": 1, "file_name": image}],
        "annotations": [{**entry, "segmentation": [[0, 0, 2, 0, 2, 2]]} if polygons else entry],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return text(file, json.dumps(document))


# --- boxes ------------------------------------------------------------------------------------------------------------


def test_voc_with_classes_of_its_own(tmp_path: Path) -> None:
    voc(tmp_path, names=("yeast", "cat"))
    found = only(tmp_path)

    assert (found.kind, found.data, found.lacking) == ("voc", "voc", "")
    assert found.values == {
        "root": str(tmp_path), "year": "mine", "train_split": "train", "test_split": "val", "classes": ["cat", "yeast"],
    }  # fmt: skip


def test_vocs_own_years_have_vocs_classes(tmp_path: Path) -> None:
    voc(tmp_path, "2007", lists=("trainval", "test", "val"))
    found = only(tmp_path)

    assert "classes" not in found.values
    assert (found.values["train_split"], found.values["test_split"]) == ("trainval", "test")


def test_the_devkit_itself_and_a_year_may_be_named(tmp_path: Path) -> None:
    home = voc(tmp_path)

    assert only(home).values["root"] == only(home.parent).values["root"] == str(tmp_path)


def test_voc_without_a_list_to_test_on(tmp_path: Path) -> None:
    voc(tmp_path, lists=("train",))
    found = only(tmp_path)

    assert (found.values["train_split"], found.values["test_fraction"]) == ("train", 0.2)
    assert "test_split" not in found.values
    assert found.found.endswith("; no split to test on, so 20 % of the images are held out")


def test_voc_with_lists_of_unknown_names(tmp_path: Path) -> None:
    voc(tmp_path, lists=("one", "two"))

    assert "train.txt and test.txt" in only(tmp_path).lacking


@pytest.mark.parametrize(
    ("annotation", "image", "below"),
    [
        ("Annotations/a.xml", "JPEGImages/a.jpg", ""),
        ("annotations/a.xml", "images/a.jpg", ""),
        ("labels/a.xml", "images/a.jpg", ""),
        ("a.xml", "a.jpg", ""),
        ("set/Annotations/a.xml", "set/JPEGImages/a.jpg", "set"),
        ("cells/a.xml", "cells/a.jpg", ""),
    ],
)
def test_an_xml_file_for_each_image(tmp_path: Path, annotation: str, image: str, below: str) -> None:
    text(tmp_path / annotation, "<annotation><object><name>yeast</name></object></annotation>")
    picture(tmp_path / image)
    found = only(tmp_path)

    assert (found.kind, found.lacking) == ("voc", "")
    assert found.values == {
        "root": str(tmp_path / below), "year": "mine", "classes": ["yeast"], "train_split": "all", "test_fraction": 0.2,
    }  # fmt: skip


def test_xml_files_in_a_folder_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        text(tmp_path / split / "a.xml", "<annotation/>")
        picture(tmp_path / split / "a.jpg")
    found = only(tmp_path)

    assert (found.values["train_split"], found.values["test_split"]) == ("train", "valid")
    assert found.found.startswith("an XML file for each image in ")


def test_a_year_outside_a_devkit(tmp_path: Path) -> None:
    home = voc(tmp_path, "2012", lists=("trainval", "test"))
    home.rename(tmp_path / home.name)
    found = only(tmp_path / home.name)

    assert (found.values["root"], found.values["year"]) == (str(tmp_path), "2012")


def test_other_xml_is_no_annotation(tmp_path: Path) -> None:
    text(tmp_path / "pom.xml", "<project/>")

    assert recognise(tmp_path) == []


def test_an_unreadable_annotation_is_left_to_the_check(tmp_path: Path) -> None:
    home = voc(tmp_path)
    text(home / "Annotations" / "b.xml", "<annotation>")

    assert only(tmp_path).values["classes"] == ["cat"]


@pytest.mark.parametrize("below", ["", "coco"])
def test_cocos_own_layout(tmp_path: Path, below: str) -> None:
    for split in ("train2017", "val2017"):
        coco(tmp_path / below / "annotations" / f"instances_{split}.json")
        picture(tmp_path / below / split / "a.jpg")
    text(tmp_path / below / "annotations" / "captions_val2017.json", '{"images": [], "annotations": []}')
    found = only(tmp_path)

    assert found.values == {"root": str(tmp_path), "train_split": "train2017", "test_split": "val2017"}
    assert found.found == "2 COCO files (train2017, val2017), 2 objects, 1 class: cat"


def test_coco_files_beside_their_images(tmp_path: Path) -> None:
    """As labelling programs export them: a folder for each split, with its file inside."""
    for split in ("train", "valid"):
        coco(tmp_path / split / "_annotations.coco.json")
        picture(tmp_path / split / "a.jpg")
    found = only(tmp_path)

    assert found.values["train_split"] == "train/_annotations.coco.json"
    assert found.values["test_split"] == "valid/_annotations.coco.json"


def test_coco_files_with_one_folder_of_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        coco(tmp_path / f"my_{split}.json", polygons=True)
    picture(tmp_path / "images" / "a.jpg")
    found = only(tmp_path)

    assert found.values["train_split"] == "my_train.json:images"
    assert found.values["test_split"] == "my_test.json:images"
    assert found.has_masks


@pytest.mark.parametrize(
    ("file", "image", "split"),
    [
        ("result.json", "images/a.jpg", "result.json:images"),
        ("labels.json", "photos of 2025/raw/a.jpg", "labels.json:photos of 2025/raw"),
        ("labels.json", "a.jpg", "labels.json"),
        ("annotations/instances_default.json", "images/a.jpg", "annotations/instances_default.json:images"),
        ("annotations/instances_default.json", "images/default/a.jpg", "default"),
        ("photos/_annotations.coco.json", "photos/a.jpg", "photos/_annotations.coco.json"),
    ],
)
def test_one_coco_file_is_split(tmp_path: Path, file: str, image: str, split: str) -> None:
    coco(tmp_path / file)
    picture(tmp_path / image)
    found = only(tmp_path)

    assert found.values == {"root": str(tmp_path), "train_split": split, "test_fraction": 0.2}
    assert found.lacking == ""
    assert found.found.endswith("; no split to test on, so 20 % of the images are held out")


def test_two_coco_files_of_unknown_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        coco(tmp_path / f"{name}.json")

    assert "name one train and one val" in only(tmp_path).lacking


@pytest.mark.parametrize(
    "content", ["[1, 2]", "{", "", '{"images": 3, "annotations": [], "categories": []}', '{"a": 1}']
)
def test_other_json_is_no_coco_file(tmp_path: Path, content: str) -> None:
    text(tmp_path / "x.json", content)

    assert recognise(tmp_path) == []


@pytest.mark.parametrize("name", ["data.yaml", "dataset.yaml"])
def test_yolo_by_its_yaml(tmp_path: Path, name: str) -> None:
    text(tmp_path / name, "names: [cat]\ntrain: images/train\nval: images/train\n")
    picture(tmp_path / "images" / "train" / "a.jpg")
    text(tmp_path / "labels" / "train" / "a.txt", "0 .5 .5 1 1\n")
    found = only(tmp_path)

    assert (found.kind, found.has_masks) == ("yolo", False)
    assert found.values == {"root": str(tmp_path if name == "data.yaml" else tmp_path / name)}
    assert f"{name}, 1 label file)" in found.found


def test_yolo_by_its_labels_and_its_polygons(tmp_path: Path) -> None:
    text(tmp_path / "labels" / "train" / "a.txt", "0 .1 .1 .9 .1 .9 .9\n")

    assert only(tmp_path).kind == "yolo"
    assert only(tmp_path).has_masks


@pytest.mark.parametrize(
    ("named", "values"),
    [
        ("val: images\n", {}),
        ("test: images\n", {"train_split": "train", "test_split": "test"}),
        ("", {"train_split": "train", "test_fraction": 0.2}),
    ],
)
def test_yolo_without_a_split_to_validate_on(tmp_path: Path, named: str, values: dict[str, object]) -> None:
    text(tmp_path / "data.yaml", f"names: [cat]\ntrain: images\n{named}")
    picture(tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", "0 .5 .5 1 1\n")

    assert only(tmp_path).values == {"root": str(tmp_path), **values}


def test_another_yaml_is_no_yolo_set(tmp_path: Path) -> None:
    text(tmp_path / "data.yaml", "a: 1\n")

    assert recognise(tmp_path) == []


# --- classes and masks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["", "train/"])
def test_folders_of_classes(tmp_path: Path, split: str) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / split / name / "a.JPG")
    text(tmp_path / split / ".hidden" / "a.jpg")
    text(tmp_path / split / "notes" / "a.txt")
    found = only(tmp_path)

    assert (found.kind, found.data, found.values) == ("folders", "folders", {"root": str(tmp_path)})
    assert found.found.startswith("2 folders of pictures: cat, dog, 2 pictures")


def test_one_folder_of_pictures_is_no_classes(tmp_path: Path) -> None:
    picture(tmp_path / "all" / "a.jpg")

    assert recognise(tmp_path) == []


def test_folders_of_another_layout_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / "images" / split / "a.jpg")
        text(tmp_path / "labels" / split / "a.txt", "0 .5 .5 1 1\n")
        picture(tmp_path / "previews" / split / "a.jpg")

    assert only(tmp_path).kind == "yolo"


def test_nnunets_folders(tmp_path: Path) -> None:
    for name in ("imagesTs", "predictions", "imagesTr", "labelsTr"):
        text(tmp_path / name / "a_0000.nii.gz")
    found = only(tmp_path)

    assert (found.kind, found.lacking) == ("rca", "")
    assert found.values == {"images": str(tmp_path)}


def test_folders_of_images_and_masks(tmp_path: Path) -> None:
    for name in ("images", "masks", "reference/images", "reference/masks", "truth"):
        picture(tmp_path / name / "a.png")
    found = next(item for item in recognise(tmp_path) if item.kind == "rca")

    assert found.values == {
        "images": str(tmp_path / "images"), "masks": str(tmp_path / "masks"), "truth": str(tmp_path / "truth"),
        "reference.images": str(tmp_path / "reference/images"), "reference.masks": str(tmp_path / "reference/masks"),
    }  # fmt: skip


def test_masks_without_references_say_what_is_needed(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        picture(tmp_path / name / "a.png")
    found = next(item for item in recognise(tmp_path) if item.kind == "rca")

    assert "reference.images: no folder imagesTr or reference/images" in found.lacking
    assert "paperbench estimate rca images=DIR" in found.lacking


def test_nothing(tmp_path: Path) -> None:
    assert recognise(tmp_path) == []


def test_folders_named_as_parts_of_a_set_are_no_classes(tmp_path: Path) -> None:
    for name in ("images", "GT"):
        picture(tmp_path / name / "a.png")
    found = only(tmp_path)
    assert found.kind == "folders"
    assert "GT and images are names of images and masks" in found.lacking
    assert "paperbench estimate rca images=DIR" in found.lacking


def test_one_class_may_have_the_name_of_a_part(tmp_path: Path) -> None:
    for name in ("masks", "helmets"):
        picture(tmp_path / name / "a.png")
    assert only(tmp_path).lacking == ""


@pytest.mark.parametrize(("masks", "reference"), [("pred", "ref"), ("predictions", "references"), ("preds", "refs")])
def test_other_names_of_masks_to_judge(tmp_path: Path, masks: str, reference: str) -> None:
    for name in ("images", masks, "truth", f"{reference}/images", f"{reference}/masks"):
        picture(tmp_path / name / "a.png")
    found = only(tmp_path)
    assert (found.kind, found.lacking) == ("rca", "")
    assert found.values["masks"] == str(tmp_path / masks)
    assert found.values["reference.images"] == str(tmp_path / reference / "images")
