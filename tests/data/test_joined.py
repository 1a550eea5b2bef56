"""Several data sets as one, and images that stand in two places."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paperbench.data import voc
from paperbench.data.detection import DetectionSet, Source
from paperbench.data.faults import check_dataset
from paperbench.data.joined import join, same_images, shared_with
from tests.data.files import voc_object, voc_xml, write_image, write_voc
from tests.data.sets import in_memory, record

BOX = (1, 1, 9, 9)


def memory(classes: tuple[str, ...], *boxes: int, first: int = 0) -> DetectionSet:
    """Images with so many objects each, of the classes in turn."""
    dataset, _ = in_memory(*(record(first + k, 10, 20, [BOX] * count) for k, count in enumerate(boxes)))
    return replace(dataset, classes=classes)


def test_classes_are_joined_by_name_and_counted_by_source() -> None:
    both = join([("one", memory(("cat", "dog"), 2, 1)), ("two", memory(("dog", "cow"), 2, first=5))])
    assert both.classes == ("cat", "dog", "cow")
    assert [item.labels.tolist() for item in both.records] == [[1, 2], [1], [2, 3]]
    assert [item.image_id for item in both.records] == [0, 1, 5]
    assert both.split == "one + two"
    assert both.sources == (Source("one", 2, 3), Source("two", 1, 2))
    assert (both.decode(2) == in_memory(record(5, 10, 20))[0].decode(0)).all()
    assert [text.partition(":")[0] for text in both.remarks] == [
        "images of one, whose annotations know no cow",
        "images of two, whose annotations know no cat",
    ]
    counts = check_dataset(both)
    assert (counts["images"], counts["from one"], counts["from two"]) == (
        3,
        "2 images, 3 objects",
        "1 image, 2 objects",
    )
    assert counts["objects by class"] == {"cat": 2, "dog": 2, "cow": 1}


def test_ids_that_two_sources_share_are_told_apart() -> None:
    both = join([("one", memory(("cat",), 1)), ("two", memory(("cat",), 1))])
    assert [item.image_id for item in both.records] == ["one/0", "two/0"]


def test_a_limit_cuts_what_was_joined() -> None:
    both = join([("one", memory(("cat",), 1, 1)), ("two", memory(("cat",), 1, 1, first=5))], limit=3)
    assert [item.image_id for item in both.records] == [0, 1, 5]
    assert both.sources[1] == Source("two", 1, 1)


def test_masks_of_one_part_are_in_their_places() -> None:
    full = np.ones((1, 10, 20), bool)
    both = join(
        [("one", memory(("cat",), 1)), ("two", replace(memory(("cat",), 1, first=5), masks=lambda index: full))]
    )
    assert both.masks is not None
    assert (both.masks(0).sum(), both.masks(1).sum()) == (0, 200)
    assert join([("one", memory(("cat",), 1)), ("two", memory(("cat",), 1, first=5))]).masks is None


def test_parts_of_a_devkit_keep_files_drops_and_repairs(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_xml(voc_object("dog", (0, 1, 9, 9))), "b": voc_xml()})
    write_voc(tmp_path, {"2008_1": voc_xml(voc_object("cat", BOX), voc_object("cat", (9, 9, 2, 2)))}, year="2012")
    parts = [
        (f"{year}/trainval", voc.read(root=str(tmp_path), year=year, split="trainval", on_bad_box="drop"))
        for year in ("2007", "2012")
    ]
    both = join(parts)
    assert [file.name for file in both.files] == ["a.jpg", "b.jpg", "2008_1.jpg"]
    assert both.dropped == {"inverted corners": 1}
    assert sum(both.repaired.values()) == 1
    # The first image of each devkit has the same noise.
    text = next(text for text in both.remarks if "an earlier source has" in text)
    assert text.startswith("images of 2012/trainval")
    assert "2008_1.jpg is " in text
    assert both.remarks[text] == 1


def test_same_images_by_content(tmp_path: Path) -> None:
    first = [write_image(tmp_path / "a" / f"{k}.png", seed=k) for k in range(3)]
    other = [write_image(tmp_path / "b" / f"{k}.png", seed=9 + k) for k in range(2)]
    assert same_images(first, other) == []
    copy = Path(shutil.copy(first[1], tmp_path / "b" / "copy.png"))
    assert same_images(first, [*other, copy]) == [(first[1], copy)]
    assert same_images(first, [first[2], tmp_path / "missing.png"]) == [(first[2], first[2])]
    # The same length and the same end, and yet another image.
    (tmp_path / "x").write_bytes(b"a" + bytes(9000))
    (tmp_path / "y").write_bytes(b"b" + bytes(9000))
    assert same_images([tmp_path / "x"], [tmp_path / "y"]) == []


def test_images_of_both_splits_are_said(tmp_path: Path) -> None:
    train = replace(memory(("cat",), 1), files=[write_image(tmp_path / "a.png")])
    test = replace(memory(("cat",), 1), files=[write_image(tmp_path / "b.png")])
    (text, count), *_ = shared_with(test, train).remarks.items()
    assert text.startswith("images that are in the training split too")
    assert f"{tmp_path / 'b.png'} is {tmp_path / 'a.png'}" in text
    assert count == 1
    write_image(tmp_path / "b.png", seed=1)
    assert shared_with(test, train) is test


@pytest.mark.parametrize("files", [(), [Path("a.png")]])
def test_data_without_files_are_never_compared(files: list[Path]) -> None:
    test = memory(("cat",), 1)
    assert shared_with(test, replace(test, files=files)) is test
