from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paperbench.data import voc
from paperbench.data.faults import CUT, REPAIRED
from paperbench.data.pictures import Exif
from paperbench.errors import DataError
from tests.data.files import voc_object, voc_xml, write_image, write_voc

SOUND = {
    "2008_000001": voc_xml(
        voc_object("dog", (1, 1, 60, 40)),
        voc_object(
            "person",
            ("10.5", 5, 20, 30),
            difficult=1,
            extra="<part><name>head</name><bndbox><xmin>0</xmin></bndbox></part>",
        ),
    ),
    "2008_000007": voc_xml(),
}


def test_boxes_labels_and_flags(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, SOUND)
    dataset = voc.read(root=str(tmp_path), split="trainval")
    assert dataset.classes == voc.CLASSES
    assert len(dataset.classes) == 20
    first, empty = dataset.records
    assert first.image_id == "2008_000001"
    assert first.source == str(folder / "Annotations" / "2008_000001.xml")
    assert first.boxes.tolist() == [[0, 0, 60, 40], [9.5, 4, 20, 30]]
    assert [dataset.classes[label - 1] for label in first.labels] == ["dog", "person"]
    assert first.difficult.tolist() == [False, True]
    assert first.crowd.tolist() == [False, False]
    assert first.area.tolist() == [2400, 273]
    assert empty.boxes.shape == (0, 4)
    assert dataset.objects == 2
    assert dataset.dropped == dataset.repaired == {}
    assert dataset.decode(1).shape == (40, 60, 3)


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_root_may_be_the_devkit_or_the_folder_itself(tmp_path: Path, below: str) -> None:
    write_voc(tmp_path, SOUND)
    assert len(voc.read(root=str(tmp_path / below), split="trainval")) == 2


def test_root_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(tmp_path, SOUND)
    monkeypatch.setenv("PAPERBENCH_DATA", str(tmp_path))
    assert len(voc.read(split="trainval")) == 2


def test_own_classes_own_suffix_and_counting_from_zero(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_xml(voc_object("gate", (0, 0, 59, 39)))}, year="Own", split="all", suffix=".png")
    dataset = voc.read(root=str(tmp_path), year="Own", split="all", classes=("pole", "gate"), zero_based=True)
    assert dataset.classes == ("pole", "gate")
    assert dataset.records[0].labels.tolist() == [2]
    assert dataset.records[0].boxes.tolist() == [[0, 0, 60, 40]]
    assert dataset.repaired == {}
    assert dataset.decode(0).shape == (40, 60, 3)


def test_files_that_count_from_zero_under_the_reader_that_counts_from_one(tmp_path: Path) -> None:
    """No underflow: the box is clipped by its one pixel, and the repair is counted."""
    write_voc(tmp_path, {"a": voc_xml(voc_object("dog", (0, 0, 59, 39)))})
    dataset = voc.read(root=str(tmp_path), split="trainval")
    assert dataset.records[0].boxes.tolist() == [[0, 0, 59, 39]]
    assert dataset.repaired == {REPAIRED: 1}


def test_limit_reads_the_first_images_only(tmp_path: Path) -> None:
    write_voc(tmp_path, {**SOUND, "c": "<broken"})
    assert [r.image_id for r in voc.read(root=str(tmp_path), split="trainval", limit=2).records] == list(SOUND)


FAULTY = {
    "zero": (voc_object("dog", (5, 5, 5, 9)), "object 1 (dog): zero area: (5, 5, 5, 9) in an image of 60 x 40"),
    "inverted": (voc_object("cat", (9, 5, 3, 9)), "object 1 (cat): inverted corners: (9, 5, 3, 9)"),
    "outside": (voc_object("cow", (5, 5, 90, 9)), "object 1 (cow): outside the image: (5, 5, 90, 9)"),
    "underflow": (voc_object("cow", (65535, 5, 65536, 9)), "object 1 (cow): outside the image: (65535, 5, 65536, 9)"),
    "nan": (voc_object("cow", ("nan", 5, 9, 9)), "object 1 (cow): coordinates that are not finite: (nan, 5, 9, 9)"),
    "word": (voc_object("cow", ("left", 5, 9, 9)), "object 1 (cow): no box: xmin, ymin, xmax, ymax read left, 5, 9, 9"),
    "no-box": ("<object><name>cow</name></object>", "object 1 (cow): no box"),
    "class": (voc_object("preson", (5, 5, 9, 9)), "object 1 (preson): unknown class: 'preson'; nearest: person"),
    "nameless": (voc_object("", (5, 5, 9, 9)), "object 1 (without a name): unknown class"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faulty_objects_are_named_or_dropped(tmp_path: Path, fault: str) -> None:
    xml, message = FAULTY[fault]
    folder = write_voc(tmp_path, {"a": voc_xml(xml, voc_object("dog", (1, 1, 9, 9)))})
    with pytest.raises(DataError) as error:
        voc.read(root=str(tmp_path), split="trainval")
    assert str(folder / "Annotations" / "a.xml") in str(error.value)
    assert message in str(error.value)
    dataset = voc.read(root=str(tmp_path), split="trainval", on_bad_box="drop")
    assert dataset.records[0].boxes.tolist() == [[0, 0, 9, 9]]
    assert sum(dataset.dropped.values()) == 1


def test_all_faults_are_in_one_message(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, {name: voc_xml(xml) for name, (xml, _) in FAULTY.items()})
    (folder / "JPEGImages" / "zero.jpg").unlink()
    with pytest.raises(DataError) as error:
        voc.read(root=str(tmp_path), split="trainval")
    assert f"{len(FAULTY)} faults" in str(error.value)
    assert "zero.jpg: missing image" in str(error.value)
    for name, (_, message) in FAULTY.items():
        assert name == "zero" or message in str(error.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SPOILT = {
    "missing image": (lambda f: (f / "JPEGImages/b.jpg").unlink(), "b.jpg"),
    "truncated image": (lambda f: cut(f / "JPEGImages/b.jpg"), "b.jpg"),
    "unreadable image": (lambda f: (f / "JPEGImages/b.jpg").write_bytes(b"404 not found"), "b.jpg"),
    "missing annotation": (lambda f: (f / "Annotations/b.xml").unlink(), "b.xml"),
    "unreadable annotation": (lambda f: cut(f / "Annotations/b.xml"), "b.xml"),
    "size contradicts the image": (lambda f: write_image(f / "JPEGImages/b.jpg", height=60, width=40), "b.xml"),
}


@pytest.mark.parametrize("reason", SPOILT)
def test_unusable_images_are_named_or_dropped(tmp_path: Path, reason: str) -> None:
    folder = write_voc(tmp_path, dict.fromkeys("abc", voc_xml(voc_object("dog", (1, 1, 9, 9)))))
    spoil, file = SPOILT[reason]
    spoil(folder)
    with pytest.raises(DataError, match=rf"{file}: {reason}"):
        voc.read(root=str(tmp_path), split="trainval")
    dataset = voc.read(root=str(tmp_path), split="trainval", on_bad_box="drop")
    assert [record.image_id for record in dataset.records] == ["a", "c"]
    assert dataset.dropped == {reason: 1}
    assert not np.array_equal(dataset.decode(0), dataset.decode(1))


@pytest.mark.parametrize("content", ["", "   ", "<html></html>"])
def test_files_that_are_no_annotation(tmp_path: Path, content: str) -> None:
    write_voc(tmp_path, {"a": voc_xml(), "b": content})
    with pytest.raises(DataError, match=r"b\.xml: unreadable annotation"):
        voc.read(root=str(tmp_path), split="trainval")


def test_an_image_listed_twice(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, SOUND)
    listing = folder / "ImageSets" / "Main" / "trainval.txt"
    listing.write_text("2008_000001  1\n\n2008_000007 -1\n2008_000001  1\n")
    with pytest.raises(DataError, match=r"trainval\.txt, 2008_000001: listed twice"):
        voc.read(root=str(tmp_path), split="trainval")
    dataset = voc.read(root=str(tmp_path), split="trainval", on_bad_box="drop")
    assert [record.image_id for record in dataset.records] == list(SOUND)


BOMB = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""
OUTSIDE_FILE = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<annotation><object><name>&a;</name></object></annotation>"""


@pytest.mark.parametrize("xml", [BOMB, OUTSIDE_FILE])
@pytest.mark.parametrize("on_bad_box", ["error", "drop"])
def test_entities_are_refused_whatever_else(tmp_path: Path, xml: str, on_bad_box: str) -> None:
    write_voc(tmp_path, {"a": voc_xml(), "b": xml})
    with pytest.raises(DataError, match=r"b\.xml: refused"):
        voc.read(root=str(tmp_path), split="trainval", on_bad_box=on_bad_box)  # type: ignore[arg-type]


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, SOUND)
    (folder / "ImageSets" / "Main" / "dog_trainval.txt").touch()
    with pytest.raises(DataError, match="there are: trainval ") as error:
        voc.read(root=str(tmp_path), split="test")
    assert "data.test_split" in str(error.value)


def test_an_empty_list(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, SOUND)
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("\n")
    with pytest.raises(DataError, match=r"trainval\.txt: lists no image"):
        voc.read(root=str(tmp_path), split="trainval")


@pytest.mark.parametrize("exists", [True, False])
def test_a_root_without_the_devkit(tmp_path: Path, exists: bool) -> None:
    root = tmp_path if exists else tmp_path / "nowhere"
    (tmp_path / "something.txt").touch()
    with pytest.raises(DataError) as error:
        voc.read(root=str(root), year="2012", split="trainval")
    for part in (
        "VOCdevkit/VOC2012/ImageSets/Main was looked for",
        "VOCdevkit/VOC<year>/{Annotations,ImageSets/Main,JPEGImages}",
        "something.txt" if exists else "no such folder",
        f"paperbench data get voc --root {root}",
        "http://host.robots.ox.ac.uk/pascal/VOC/",
    ):
        assert part in str(error.value)


def test_an_image_that_vanishes_after_reading_is_named(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, SOUND)
    dataset = voc.read(root=str(tmp_path), split="trainval")
    (folder / "JPEGImages" / "2008_000007.jpg").unlink()
    with pytest.raises(DataError, match=r"2008_000007\.jpg: missing image"):
        dataset.decode(1)


# --- files as people have them ----------------------------------------------------------------------------------------


def test_names_with_blanks_are_whole_names_and_flags_of_a_class_are_none(tmp_path: Path) -> None:
    names = ("photo", "photo 1", "photo -1", "plain")
    folder = write_voc(tmp_path, dict.fromkeys(names, voc_xml()))
    listing = folder / "ImageSets" / "Main" / "trainval.txt"
    listing.write_text("photo 1\nphoto -1\r\nplain  1\nphoto\t0\n")
    dataset = voc.read(root=str(tmp_path), split="trainval")
    assert [record.image_id for record in dataset.records] == ["photo 1", "photo -1", "plain", "photo"]


@pytest.mark.parametrize("suffix", [".bmp", ".BMP", ".webp", ".tif"])
def test_images_of_other_formats(tmp_path: Path, suffix: str) -> None:
    write_voc(tmp_path, {"a": voc_xml(voc_object("dog", (1, 1, 9, 9)))}, suffix=suffix)
    dataset = voc.read(root=str(tmp_path), split="trainval")
    assert dataset.decode(0).shape == (40, 60, 3)


def test_a_missing_image_names_the_file_beside_it(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, {"a": voc_xml(), "b": voc_xml()})
    (folder / "JPEGImages" / "a.jpg").rename(folder / "JPEGImages" / "a.heic")
    with pytest.raises(DataError, match=r"a\.jpg: missing image: beside it: a\.heic; endings that are read: \.jpg"):
        voc.read(root=str(tmp_path), split="trainval")


@pytest.mark.parametrize("size", [(0, 0), ("0.0", "0")])
def test_a_size_of_nothing_says_nothing(tmp_path: Path, size: tuple[object, object]) -> None:
    write_voc(tmp_path, {"a": voc_xml(voc_object("dog", (1, 1, 9, 9)), height=size[0], width=size[1])})  # type: ignore[arg-type]
    assert voc.read(root=str(tmp_path), split="trainval").records[0].height == 40


@pytest.mark.parametrize(
    ("text", "difficult"), [("True", True), ("TRUE", True), ("yes", True), (" 1 ", True), ("False", False), ("", False)]
)
def test_difficult_in_words(tmp_path: Path, text: str, difficult: bool) -> None:
    xml = voc_xml(voc_object("dog", (1, 1, 9, 9), extra=f"<difficult>{text}</difficult>"))
    write_voc(tmp_path, {"a": xml})
    assert voc.read(root=str(tmp_path), split="trainval").records[0].difficult.tolist() == [difficult]


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (voc_object("dog", (1, 1, 9, 9), extra="<difficult>2</difficult>"), "difficult reads '2'; it is 0 or 1"),
        (voc_object("dog", ("1_0", 1, 29, 9)), "no box: xmin, ymin, xmax, ymax read 1_0, 1, 29, 9"),
        (voc_object("dog", ("\u0661", 1, 29, 9)), "no box"),
        (voc_object("dog", (10, 1, 10.0000001, 9)), "zero area"),
    ],
)
def test_values_that_are_none_are_named(tmp_path: Path, xml: str, message: str) -> None:
    write_voc(tmp_path, {"a": voc_xml(xml, voc_object("dog", (1, 1, 9, 9)))})
    with pytest.raises(DataError) as error:
        voc.read(root=str(tmp_path), split="trainval")
    assert "a.xml, object 1 (dog)" in str(error.value)
    assert message in str(error.value)


def test_clip_cuts_boxes_and_leaves_out_the_rest(tmp_path: Path) -> None:
    boxes = [(50, 5, 90, 9), (1, 1, 61, 9), (70, 5, 90, 9), (9, 5, 3, 9)]
    write_voc(tmp_path, {"a": voc_xml(*(voc_object("dog", box) for box in boxes))})
    dataset = voc.read(root=str(tmp_path), split="trainval", on_bad_box="clip")
    assert dataset.records[0].boxes.tolist() == [[49, 4, 60, 9], [0, 0, 60, 9]]
    assert dataset.repaired == {REPAIRED: 1, CUT: 1}
    assert dataset.dropped == {"outside the image": 1, "inverted corners": 1}


def turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)


def test_orientation_is_ignored_or_applied_and_said(tmp_path: Path) -> None:
    box = voc_object("dog", (1, 1, 9, 9))
    folder = write_voc(
        tmp_path, {"a": voc_xml(box).replace("<size>", "<other>").replace("</size>", "</other>"), "b": voc_xml(box)}
    )
    turned(folder / "JPEGImages" / "a.jpg", 6)
    stored = voc.read(root=str(tmp_path), split="trainval")
    assert (stored.records[0].height, stored.records[0].width) == (40, 60)
    assert list(stored.remarks.values()) == [1]
    assert "data.exif=apply" in next(iter(stored.remarks))
    upright = voc.read(root=str(tmp_path), split="trainval", exif="apply")
    assert (upright.records[0].height, upright.records[0].width) == (60, 40)
    np.testing.assert_array_equal(upright.decode(0), np.rot90(stored.decode(0), -1))
    np.testing.assert_array_equal(upright.decode(1), stored.decode(1))


@pytest.mark.parametrize(("exif", "size"), [("ignore", (60, 40)), ("apply", (40, 60))])
def test_a_size_that_fits_the_other_orientation_names_the_key(
    tmp_path: Path, exif: Exif, size: tuple[int, int]
) -> None:
    folder = write_voc(tmp_path, {"a": voc_xml(height=size[0], width=size[1])})
    turned(folder / "JPEGImages" / "a.jpg", 8)
    other = "apply" if exif == "ignore" else "ignore"
    with pytest.raises(
        DataError, match=rf"a\.xml: size contradicts the image: .*EXIF orientation 8.*data\.exif={other}"
    ):
        voc.read(root=str(tmp_path), split="trainval", exif=exif)


@pytest.mark.parametrize("line", ["{}.jpg", "JPEGImages/{}.jpg", "/data/JPEGImages/{}.jpg", "{} 1 0 train"])
def test_a_line_that_is_more_than_a_name_is_explained(tmp_path: Path, line: str) -> None:
    folder = write_voc(tmp_path, SOUND)
    listing = folder / "ImageSets" / "Main" / "trainval.txt"
    listing.write_text("\n".join(line.format(name) for name in SOUND))
    with pytest.raises(DataError, match="and image '2008_000001' is there: a line is the name alone"):
        voc.read(root=str(tmp_path), split="trainval")


@pytest.mark.parametrize("key", ["name", "bndbox", "difficult"])
def test_an_object_that_has_two_of_one_is_a_fault(tmp_path: Path, key: str) -> None:
    extra = {
        "name": "<name>cat</name>",
        "bndbox": "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>",
        "difficult": "<difficult>1</difficult>",
    }[key]
    write_voc(
        tmp_path,
        {"a": voc_xml(voc_object("dog", (1, 1, 9, 9), difficult=0, extra=extra), voc_object("dog", (1, 1, 9, 9)))},
    )
    with pytest.raises(DataError, match=rf"object 1 \(dog\): a value that cannot be read: {key} stands there 2 times"):
        voc.read(root=str(tmp_path), split="trainval")
    assert len(voc.read(root=str(tmp_path), split="trainval", on_bad_box="drop").records[0].labels) == 1
