"""The YOLO layout: folders as people have them, boxes and polygons, and every fault by file and line."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert

from paperbench.data import coco, voc, yolo, yolo_layout
from paperbench.data.faults import check_dataset
from paperbench.data.yolo_files import area_of
from paperbench.errors import ConfigError, DataError
from tests.data.files import coco_content, voc_object, voc_xml, write_coco, write_image, write_voc, write_yolo

BOX = "0 0.5 0.5 0.5 0.5\n"


def plain_corners(line: str, height: int, width: int) -> list[float]:
    """The definition, in exact numbers: the centre less and plus half of each side, times the image's."""
    x, y, across, down = (Fraction(text) for text in line.split()[1:])
    exact = (x - across / 2) * width, (y - down / 2) * height, (x + across / 2) * width, (y + down / 2) * height
    return [float(value) for value in exact]


def test_boxes_are_those_of_a_plain_reference_and_of_torchvision(tmp_path: Path) -> None:
    draw = random.Random(0)
    labels: dict[str, str | None] = {}
    for name in "abcd":
        lines = []
        for _ in range(5):
            across, down = draw.uniform(0.05, 0.5), draw.uniform(0.05, 0.5)
            x, y = draw.uniform(across / 2, 1 - across / 2), draw.uniform(down / 2, 1 - down / 2)
            lines.append(f"{draw.randrange(3)} {x:.9f} {y:.9f} {across:.9f} {down:.9f}\n")
        labels[name] = "".join(lines)
    write_yolo(tmp_path, labels, height=37, width=83)
    dataset = yolo.read(root=str(tmp_path), split="train")
    for record, text in zip(dataset.records, labels.values(), strict=True):
        assert text is not None
        lines = text.splitlines()
        assert record.boxes.dtype == np.float64
        np.testing.assert_allclose(record.boxes, [plain_corners(line, 37, 83) for line in lines], atol=1e-5)
        shares = torch.tensor([[float(value) for value in line.split()[1:]] for line in lines], dtype=torch.float64)
        peer = box_convert(shares, "cxcywh", "xyxy") * torch.tensor([83.0, 37.0, 83.0, 37.0], dtype=torch.float64)
        np.testing.assert_allclose(record.boxes, peer.numpy(), atol=1e-5)
        assert record.labels.tolist() == [int(line[0]) + 1 for line in lines]
    assert dataset.category_ids == (0, 1, 2)


def test_one_scene_in_three_formats_has_the_same_boxes(tmp_path: Path) -> None:
    corners = {"a": [(5, 4, 30, 20), (40, 10, 60, 40)], "b": [(0, 0, 60, 40)], "c": []}
    names = ("cat", "dog", "cow")
    write_voc(
        tmp_path,
        {
            name: voc_xml(*(voc_object(names[k], (x1 + 1, y1 + 1, x2, y2)) for k, (x1, y1, x2, y2) in enumerate(boxes)))
            for name, boxes in corners.items()
        },
    )
    content = coco_content(
        [
            {"image_id": 10 + place, "category_id": k, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            for place, boxes in enumerate(corners.values())
            for k, (x1, y1, x2, y2) in enumerate(boxes)
        ]
    )
    write_coco(tmp_path, {**content, "categories": [{"id": k, "name": name} for k, name in enumerate(names)]})
    write_yolo(
        tmp_path / "yolo",
        {
            name: "".join(
                f"{k} {(x1 + x2) / 120:.6f} {(y1 + y2) / 80:.6f} {(x2 - x1) / 60:.6f} {(y2 - y1) / 40:.6f}\n"
                for k, (x1, y1, x2, y2) in enumerate(boxes)
            )
            for name, boxes in corners.items()
        },
    )
    by_voc = voc.read(root=str(tmp_path), split="trainval", classes=names)
    by_coco = coco.read(root=str(tmp_path), split="val2017")
    by_yolo = yolo.read(root=str(tmp_path / "yolo"), split="train")
    assert by_voc.classes == by_coco.classes == by_yolo.classes == names
    for one, two, three in zip(by_voc.records, by_coco.records, by_yolo.records, strict=True):
        np.testing.assert_allclose(one.boxes, two.boxes)
        np.testing.assert_allclose(one.boxes, three.boxes, atol=1e-3)
        assert one.labels.tolist() == two.labels.tolist() == three.labels.tolist()
        np.testing.assert_allclose(two.area, three.area, atol=0.1)


# --- folders as people have them --------------------------------------------------------------------------------------

_USUAL = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
LAYOUTS = {
    "a map of names and a path": (
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n", "images/{}", "labels/{}"
    ),
    "a list of names": (f"nc: 2\n{_USUAL}", "images/{}", "labels/{}"),
    "Roboflow": ("train: ../train/images\nval: ../valid/images\nnames: ['cat', 'dog']\n", "{}/images", "{}/labels"),
    "a path from another machine": (f"path: /content/datasets/mine\n{_USUAL}", "images/{}", "labels/{}"),
    "a folder above": (f"path: ../datasets/mine\n{_USUAL}", "images/{}", "labels/{}"),
    "images within folders": (_USUAL, "images/{}/deep", "labels/{}/deep"),
    "labels beside images": ("train: train\nval: val\nnames: [cat, dog]\n", "{}", "{}"),
    "nothing but folders": (None, "images/{}", "labels/{}"),
    "nothing but folders of splits": (None, "{}/images", "{}/labels"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    text, images, labels = LAYOUTS[layout]
    for split, name in (("train", "a"), ("val", "b")):
        folder = "valid" if layout == "Roboflow" and split == "val" else split
        write_image(tmp_path / images.format(folder) / f"{name}.PNG")
        path = tmp_path / labels.format(folder) / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1 0.5 0.5 0.5 0.5\n")
    if text is None:
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
    else:
        (tmp_path / "data.yaml").write_text(text)
    for root in [tmp_path, *([tmp_path / "data.yaml"] if text else [])]:
        for split, name in (("train", "a"), ("val", "b"), ("valid", "b")):
            dataset = yolo.read(root=root, split=split)
            assert [record.image_id for record in dataset.records] == [name]
            assert dataset.classes == ("cat", "dog")
            assert dataset.records[0].boxes.tolist() == [[15, 10, 45, 30]]
            assert dataset.decode(0).shape == (40, 60, 3)


def test_images_above_named_images_are_no_part_of_the_layout(tmp_path: Path) -> None:
    root = tmp_path / "images" / "mine"
    write_yolo(root, {"a": BOX})
    assert yolo.read(root=root, split="train").objects == 1
    # The other way round: the folder of the data is itself called images.
    write_image(tmp_path / "b" / "images" / "train" / "x.jpg")
    (tmp_path / "b" / "labels" / "train").mkdir(parents=True)
    (tmp_path / "b" / "labels" / "train" / "x.txt").write_text(BOX)
    (tmp_path / "b" / "images" / "data.yaml").write_text("train: train\nval: train\nnames: [cat]\n")
    assert yolo.read(root=tmp_path / "b" / "images", split="train").objects == 1


def test_lists_of_images_and_lists_of_places(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX, "b": BOX, "c": None})
    write_yolo(tmp_path, {"d": BOX}, split="more")
    (tmp_path / "train.txt").write_text(f"./images/train/c.jpg\n\nimages\\train\\a.jpg\n{tmp_path}/images/more/d.jpg\n")
    (tmp_path / "data.yaml").write_text("train: [train.txt, images/more]\nval: train.txt\nnames: [cat]\n")
    (tmp_path / "images" / "more" / "d.jpg").rename(tmp_path / "images" / "more" / "e.jpg")
    (tmp_path / "labels" / "more" / "d.txt").rename(tmp_path / "labels" / "more" / "e.txt")
    with pytest.raises(DataError, match=r"train\.txt:4: .*d\.jpg: missing image"):
        yolo.read(root=tmp_path, split="train")
    (tmp_path / "train.txt").write_text("./images/train/c.jpg\nimages/train/a.jpg\n")
    assert [record.image_id for record in yolo.read(root=tmp_path, split="train").records] == ["c", "a", "e"]
    (tmp_path / "train.txt").write_text("images/train/a.jpg\nimages/train/a.jpg\n")
    with pytest.raises(DataError, match=r"train\.txt:2: listed twice"):
        yolo.read(root=tmp_path, split="val")


def test_a_list_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_image(tmp_path / "home" / "images" / "a.jpg")
    write_image(tmp_path / "~b.jpg")
    (tmp_path / "~b.txt").write_text(BOX)
    (tmp_path / "train.txt").write_text("~/images/a.jpg\n~b.jpg\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: train.txt\nnames: [cat]\n")
    assert [record.image_id for record in yolo.read(root=tmp_path, split="train").records] == ["a", "~b"]


def test_an_export_of_cvat(tmp_path: Path) -> None:
    write_image(tmp_path / "obj_train_data" / "a.jpg")
    (tmp_path / "obj_train_data" / "a.txt").write_text(BOX)
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    (tmp_path / "obj.names").write_text("cat\n")
    assert yolo.read(root=tmp_path, split="train").objects == 1


def test_one_folder_without_splits_is_split_by_a_fixed_shuffle(tmp_path: Path) -> None:
    for k in range(10):
        write_image(tmp_path / "images" / f"{k}.jpg", seed=k)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{k}.txt").write_text(BOX)
    (tmp_path / "labels" / "classes.txt").write_text("cat\n")
    train, test = yolo.read(root=tmp_path, split="train"), yolo.read(root=tmp_path, split="val")
    assert (len(train), len(test)) == (8, 2)
    assert not {record.image_id for record in train.records} & {record.image_id for record in test.records}
    assert [record.image_id for record in test.records] == ["0", "5"]
    assert any("every fifth by a fixed shuffle is held back" in text for text in test.remarks)


def test_a_description_of_another_name_and_names_under_quoted_numbers(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX}, names=None)
    (tmp_path / "birds.yaml").write_text("train: images/train\nnames: {'0': robin}\n")
    (tmp_path / "hyperparameters.yaml").write_text("lr: 0.1\n")
    assert yolo.read(root=tmp_path, split="train").classes == ("robin",)
    (tmp_path / "other.yml").write_text("train: images/train\nnames: [wren]\n")
    with pytest.raises(
        DataError, match=r"several files describe YOLO data: birds\.yaml, other\.yml; data\.root=.*birds"
    ):
        yolo_layout.find(tmp_path)
    assert yolo.read(root=tmp_path / "other.yml", split="train").classes == ("wren",)


def test_hidden_files_and_endings_of_any_case(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX})
    (tmp_path / "images" / "train" / "a.jpg").rename(tmp_path / "images" / "train" / "a.Jpg")
    (tmp_path / "images" / "train" / "._a.Jpg").write_bytes(b"Mac OS X")
    (tmp_path / "labels" / "train" / "._a.txt").write_bytes(b"0 0 0 0 0")
    assert [record.image_id for record in yolo.read(root=tmp_path, split="train").records] == ["a"]


def test_names_that_two_images_share(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX}, split="train/one")
    write_yolo(tmp_path, {"a": BOX, "b": BOX}, split="train/two")
    ids = [record.image_id for record in yolo.read(root=tmp_path, split="train").records]
    assert ids == ["images/train/one/a", "images/train/two/a", "b"]
    write_image(tmp_path / "images" / "train" / "two" / "b.png")
    with pytest.raises(DataError, match=r"b\.png: two images of one label file"):
        yolo.read(root=tmp_path, split="train")


# --- classes ----------------------------------------------------------------------------------------------------------


def test_classes_by_name_and_by_number(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n2 .5 .5 .5 .5\n", "b": "1 .5 .5 .2 .2"})
    dataset = yolo.read(root=tmp_path, split="train", classes=("cow", "1"))
    assert dataset.classes == ("cow", "dog")
    assert dataset.category_ids == (2, 1)
    assert [record.labels.tolist() for record in dataset.records] == [[2, 1], [2]]
    assert dataset.remarks == {"objects of other classes than data.classes, left out": 1}
    with pytest.raises(ConfigError, match=r"no class 'cwo' in .*; there are: 0 cat, 1 dog, 2 cow"):
        yolo.read(root=tmp_path, split="train", classes=("cwo",))
    with pytest.raises(ConfigError, match=r"1 stands there twice, as name and number"):
        yolo.read(root=tmp_path, split="train", classes=("dog", "1"))


def test_names_of_classes_in_label_files(tmp_path: Path) -> None:
    names = ("traffic light", "dog", "0")
    lines = "traffic light .5 .5 .5 .5\ndog .1 .1 .9 .1 .9 .9\n"
    write_yolo(tmp_path, {"a": lines.splitlines()[0], "b": "1 .5 .5 .5 .5\n0 .5 .5 .2 .2\n"}, names=names)
    dataset = yolo.read(root=tmp_path, split="train")
    # A number is a number, whatever is called by it.
    assert [record.labels.tolist() for record in dataset.records] == [[1], [2, 1]]
    write_yolo(tmp_path, {"c": lines.splitlines()[1]}, split="val", names=names)
    assert yolo.read(root=tmp_path, split="val", masks="all").records[0].labels.tolist() == [2]


def test_names_in_label_files_where_nothing_else_names_them(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "cat .5 .5 .5 .5"}, names=None)
    with pytest.raises(DataError, match=r"unknown class: 'cat'; the data have no class: name them in data.yaml or"):
        yolo.read(root=tmp_path, split="train")
    assert yolo.read(root=tmp_path, split="train", classes=("dog", "cat")).records[0].labels.tolist() == [2]


def test_a_name_that_is_a_number_wins(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 .5 .5 .5 .5\n1 .5 .5 .2 .2\n"}, names=("1", "0"))
    dataset = yolo.read(root=tmp_path, split="train", classes=("1",))
    assert (dataset.classes, dataset.category_ids) == (("1",), (0,))


@pytest.mark.parametrize("names", ["[0012, 1_000, 1e3]", "{0: 0012, 1: 1_000, 2: 1e3}"])
def test_names_that_yaml_reads_as_numbers_stay_as_they_are_written(tmp_path: Path, names: str) -> None:
    write_yolo(tmp_path, {"a": BOX})
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/train\nnames: {names}\n")
    assert yolo.read(root=tmp_path, split="train").classes == ("0012", "1_000", "1e3")


def test_numbers_where_nothing_names_them(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX}, names=None)
    write_yolo(tmp_path, {"b": "2 .5 .5 .5 .5"}, split="val", names=None)
    train, test = yolo.read(root=tmp_path, split="train"), yolo.read(root=tmp_path, split="val")
    assert train.classes == test.classes == ("0", "1", "2")
    assert test.records[0].labels.tolist() == [3]
    named = yolo.read(root=tmp_path, split="val", classes=("cat", "dog", "cow"))
    assert named.classes == ("cat", "dog", "cow")
    assert yolo.read(root=tmp_path, split="val", classes=("2",)).classes == ("2",)
    with pytest.raises(DataError, match=r"b\.txt:1: unknown class: 2; the data have the classes 0 cat, 1 dog"):
        yolo.read(root=tmp_path, split="val", classes=("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\n", "names is missing; it is a list of the classes' names"),
        ("names: {0: cat, 2: dog}\ntrain: images/train\n", r"names has the numbers \[0, 2\]; they count from 0"),
        ("names: [cat, cat]\ntrain: images/train\n", "names: 'cat' stands there twice"),
        ("names: [yes, no]\ntrain: images/train\n", "names: 0 is True; .* in quotes, YAML takes yes, no"),
        ("names: [cat]\nnc: 2\ntrain: images/train\n", "names has 1 classes, nc is 2"),
        ("names: [cat]\ntrain: pictures\n", "train is 'pictures', and there is nothing at .*correct train or path"),
        ("names: [cat]\ntrain: 3\n", "train is 3; it is a folder of images"),
        ("names: [cat]\nval: images/train\n", r"no split 'train'; there are: val \(data.train_split"),
        ("names: [cat]\n", "names no images: train and val are a folder"),
        ("names: [cat\n", "not YAML"),
        ("- cat\n", "not a description of YOLO data"),
    ],
)
def test_faults_of_a_description(tmp_path: Path, text: str, message: str) -> None:
    write_yolo(tmp_path, {"a": BOX})
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"data\.yaml.*{message}"):
        yolo.read(root=tmp_path, split="train")


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder; data.root is the folder, or the data.yaml"):
        yolo_layout.find(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no data set 'yolo' here, .*\n  found: an empty folder"):
        yolo_layout.find(tmp_path)
    write_yolo(tmp_path, {"a": None, "b": None})
    with pytest.raises(DataError, match=r"none of the 2 images has a label file; .*labels/train/a\.txt was looked for"):
        yolo.read(root=tmp_path, split="train")


# --- labels -----------------------------------------------------------------------------------------------------------


def test_images_without_labels_are_empty_images(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX, "b": "", "c": None, "d": "\n \n"})
    dataset = yolo.read(root=tmp_path, split="train")
    assert [len(record.labels) for record in dataset.records] == [1, 0, 0, 0]
    assert dataset.remarks == {"images without a label file, read as images without objects": 1}
    assert check_dataset(dataset)["images without objects"] == 3


FAULTY = {
    "columns": ("0 0.5 0.5 0.5", "wrong number of columns: 4 numbers, expected 5 (class, centre x and y, width, height)"),
    "confidence": ("0 0.5 0.5 0.5 0.5 0.9", "is the last a confidence? Then these are detections, not labels"),
    "odd polygon": ("0 0.1 0.1 0.9 0.1 0.9 0.9 0.5", "wrong number of columns: 8 numbers"),
    "two points": ("0 0.1", "wrong number of columns: 2 numbers"),
    "nan": ("0 nan 0.5 0.5 0.5", "coordinates that are not finite: 0 nan 0.5 0.5 0.5"),
    "inf": ("0 0.5 0.5 inf 0.5", "coordinates that are not finite"),
    "word": ("0 left 0.5 0.5 0.5", "a value that cannot be read: 'left' is no number"),
    "name": ("cta 0.5 0.5 0.5 0.5", "unknown class: 'cta'; the data have the classes 0 cat, 1 dog, 2 cow; nearest: cat"),
    "words": ("two cats 0.5 0.5 0.5 0.5", "unknown class: 'two cats'; the data have the classes 0 cat"),
    "comma": ("0, 0.5, 0.5, 0.5, 0.5", "a value that cannot be read: '0,' is no number; commas do not"),
    "class": ("7 0.5 0.5 0.5 0.5", "unknown class: 7; the data have the classes 0 cat, 1 dog, 2 cow"),
    "negative class": ("-1 0.5 0.5 0.5 0.5", "unknown class: -1"),
    "half class": ("0.5 0.5 0.5 0.5 0.5", "unknown class: 0.5"),
    "pixels": ("0 30 20 10 10", "outside the image: corners (1500, 600, 2100, 1000) in pixels of an image of 60 x 40; the "
               "numbers look like pixels: divide x by the image's width"),
    "beyond": ("0 0.9 0.5 0.5 0.5", "outside the image: corners (39, 10, 69, 30)"),
    "polygon beyond": ("0 0.1 0.1 1.3 0.1 0.9 0.9", "outside the image: corners (6, 4, 78, 36)"),
    "no width": ("0 0.5 0.5 0 0.5", "zero area"),
    "negative width": ("0 0.5 0.5 -0.5 0.5", "inverted corners"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTY)
def test_faulty_lines_are_named_by_file_and_line_or_dropped(tmp_path: Path, fault: str) -> None:
    line, message = FAULTY[fault]
    polygon = len(line.split()) == 7
    sound = "0 0.1 0.1 0.9 0.1 0.9 0.9\n" if polygon else BOX
    write_yolo(tmp_path, {"a": f"{sound}\n{line}\n"})
    with pytest.raises(DataError) as error:
        yolo.read(root=tmp_path, split="train")
    assert f"{tmp_path / 'labels' / 'train' / 'a.txt'}:3" in str(error.value)
    assert message in str(error.value)
    assert "data.on_bad_box=drop" in str(error.value)
    dataset = yolo.read(root=tmp_path, split="train", on_bad_box="drop")
    assert len(dataset.records[0].labels) == 1
    assert sum(dataset.dropped.values()) == 1


def test_repeated_lines_and_boxes_among_polygons(tmp_path: Path) -> None:
    triangle = "1 0.1 0.1 0.9 0.1 0.9 0.9\n"
    write_yolo(tmp_path, {"a": f"{BOX}1 .5 .5 .5 .5\n0 .50 .5 .5 .5\n", "b": f"{triangle}{BOX}"})
    with pytest.raises(DataError) as error:
        yolo.read(root=tmp_path, split="train")
    assert "a.txt:3 (cat): a line that stands there twice" in str(error.value)
    assert "b.txt:2 (cat): a box among polygons: other lines of the file are polygons" in str(error.value)
    dataset = yolo.read(root=tmp_path, split="train", on_bad_box="drop")
    assert [len(record.labels) for record in dataset.records] == [2, 1]


def test_rounding_beyond_the_image_is_cut_and_counted(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 0.5 0.5 1.01 1.0\n1.0 0.5 0.5 1.000001 1.000001\n"})
    dataset = yolo.read(root=tmp_path, split="train")
    assert dataset.records[0].boxes.tolist() == [[0, 0, 60, 40], [0, 0, 60, 40]]
    # The second is what six digits leave of a whole image: no difference of convention.
    assert dataset.repaired == {"reached up to a pixel beyond the image": 1}
    write_yolo(tmp_path, {"a": "0 0.9 0.5 0.5 0.5\n"})
    clipped = yolo.read(root=tmp_path, split="train", on_bad_box="clip")
    np.testing.assert_allclose(clipped.records[0].boxes, [[39, 10, 60, 30]])


def test_labels_without_an_image_and_images_that_are_damaged(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX, "b": BOX})
    (tmp_path / "labels" / "train" / "gone.txt").write_text(BOX)
    (tmp_path / "labels" / "train" / "readme.txt").write_text("made by hand\n")
    (tmp_path / "images" / "train" / "b.jpg").write_bytes(b"")
    with pytest.raises(DataError) as error:
        yolo.read(root=tmp_path, split="train")
    assert "2 faults" in str(error.value)
    assert "gone.txt: labels without an image: take the file away, or bring its image back" in str(error.value)
    assert "b.jpg: truncated image: the file is empty" in str(error.value)
    assert [r.image_id for r in yolo.read(root=tmp_path, split="train", limit=1).records] == ["a"]


def test_a_label_file_that_is_no_text(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX, "b": BOX})
    (tmp_path / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe0\x00 \x00")
    with pytest.raises(DataError, match=r"b\.txt: unreadable label file: not a text file in UTF-8"):
        yolo.read(root=tmp_path, split="train")


def test_keypoints_behind_a_box_are_left_out(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 .5 .5 .5 .5 .1 .1 2 .2 .2 2\n"})
    with pytest.raises(DataError, match=r"outside the image|wrong number of columns"):
        yolo.read(root=tmp_path, split="train")
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(f"{text}kpt_shape: [2, 3]\n")
    dataset = yolo.read(root=tmp_path, split="train")
    assert dataset.records[0].boxes.tolist() == [[15, 10, 45, 30]]
    assert dataset.remarks == {"objects with keypoints, of which the boxes are used": 1}
    write_yolo(tmp_path, {"a": BOX})
    (tmp_path / "data.yaml").write_text(f"{text}kpt_shape: [2, 3]\n")
    with pytest.raises(DataError, match=r"5 numbers, expected 11: class, box and the 6 numbers of kpt_shape"):
        yolo.read(root=tmp_path, split="train")


def test_photographs_that_the_camera_stored_turned(tmp_path: Path) -> None:
    """Shares are of the upright picture, as OpenCV reads it; a run may say otherwise."""
    write_yolo(tmp_path, {"a": "0 0.25 0.5 0.5 1\n"})
    path = tmp_path / "images" / "train" / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    upright = yolo.read(root=tmp_path, split="train")
    assert upright.records[0].boxes.tolist() == [[0, 0, 20, 60]]
    assert upright.decode(0).shape == (60, 40, 3)
    assert any("turned upright" in text for text in upright.remarks)
    stored = yolo.read(root=tmp_path, split="train", exif="ignore")
    assert stored.records[0].boxes.tolist() == [[0, 0, 30, 40]]


# --- polygons ---------------------------------------------------------------------------------------------------------


def test_polygons_have_the_masks_boxes_and_areas_of_the_same_polygons_in_coco(tmp_path: Path) -> None:
    shapes = [[0.1, 0.2, 0.8, 0.2, 0.8, 0.9, 0.4, 0.6], [0.5, 0.5, 0.9, 0.5, 0.9, 0.9]]
    pixels = [[value * (60, 40)[k % 2] for k, value in enumerate(shape)] for shape in shapes]
    write_yolo(tmp_path, {"a": "".join(f"0 {' '.join(map(str, shape))}\n" for shape in shapes)}, names=("cat",))
    content = coco_content(
        [
            {
                "image_id": 10,
                "category_id": 0,
                "bbox": [min(shape[::2]), min(shape[1::2]), np.ptp(shape[::2]), np.ptp(shape[1::2])],
                "segmentation": [shape],
                "iscrowd": 0,
            }
            for shape in pixels
        ],
        images=1,
    )
    write_coco(tmp_path, json.loads(json.dumps({**content, "categories": [{"id": 0, "name": "cat"}]})))
    ours, theirs = (
        yolo.read(root=tmp_path, split="train", masks="all"),
        coco.read(root=str(tmp_path), split="val2017", masks="all"),
    )
    assert ours.masks is not None
    assert theirs.masks is not None
    assert (ours.masks(0) == theirs.masks(0)).all()
    np.testing.assert_allclose(ours.records[0].boxes, theirs.records[0].boxes)
    np.testing.assert_allclose(ours.records[0].area, ours.masks(0).sum((1, 2)), rtol=0.05)


def test_the_area_of_polygons() -> None:
    assert area_of([0, 0, 4, 0, 4, 3]) == 6
    assert area_of([0, 0, 0, 3, 4, 3, 4, 0]) == 12


def test_masks_where_some_files_have_boxes_alone(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 0.1 0.1 0.9 0.1 0.9 0.9\n", "b": BOX})
    dataset = yolo.read(root=tmp_path, split="train", masks="there")
    assert dataset.masks is not None
    assert [dataset.masks(k).any() for k in range(2)] == [True, False]
    assert dataset.remarks == {"objects without a mask, which models with masks refuse or leave out": 1}
    with pytest.raises(DataError, match=r"b\.txt:1 \(cat\): no mask: a box; other files of the split have polygons"):
        yolo.read(root=tmp_path, split="train", masks="all")
    write_yolo(tmp_path, {"a": BOX, "b": BOX})
    assert yolo.read(root=tmp_path, split="train", masks="all").masks is None
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5002 0.5 0.5 0.5002\n", "b": None})
    with pytest.raises(DataError, match=r"a\.txt:1 \(cat\): a mask that cannot be read: it has no pixel"):
        yolo.read(root=tmp_path, split="train", masks="all")
