from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.data import pennfudan
from paperbench.errors import ConfigError, DataError
from tests.data.files import write_pennfudan

IMAGES = {f"FudanPed{k:05d}": [(1, 1, 60, 40), (10 + k, 5, 20 + k, 30)] for k in range(1, 8)}


def test_boxes_count_from_one_and_include_both_corners(tmp_path: Path) -> None:
    write_pennfudan(tmp_path, IMAGES)
    dataset = pennfudan.read(root=str(tmp_path), split="train", test_images=2)
    assert dataset.classes == ("pedestrian",)
    for index, record in enumerate(dataset.records):
        k = int(str(record.image_id)[-5:])
        assert record.boxes.tolist() == [[0, 0, 60, 40], [9 + k, 4, 20 + k, 30]]
        assert record.labels.tolist() == [1, 1]
        assert dataset.decode(index).shape == (record.height, record.width, 3)


def test_the_split_is_fixed_and_complete(tmp_path: Path) -> None:
    write_pennfudan(tmp_path, IMAGES)
    train, test = (
        [record.image_id for record in pennfudan.read(root=str(tmp_path), split=split, test_images=3).records]
        for split in ("train", "test")
    )
    assert len(train) == 4
    assert len(test) == 3
    assert sorted([*train, *test]) == sorted(IMAGES)
    assert test == ["FudanPed00005", "FudanPed00003", "FudanPed00004"]  # for ever: results were measured on it


def test_root_may_be_the_folder_itself(tmp_path: Path) -> None:
    folder = write_pennfudan(tmp_path, IMAGES)
    assert len(pennfudan.read(root=str(folder), split="test", test_images=1)) == 1


def test_limit(tmp_path: Path) -> None:
    write_pennfudan(tmp_path, IMAGES)
    whole = pennfudan.read(root=str(tmp_path), split="train", test_images=1)
    short = pennfudan.read(root=str(tmp_path), split="train", test_images=1, limit=2)
    assert [record.image_id for record in short.records] == [record.image_id for record in whole.records[:2]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "(1, 1) - (60, 40)",
            "(1, 1) - (70, 40)",
            r"00003\.txt, object 1: outside the image: \(1, 1, 70, 40\) in 60 x 40",
        ),
        ("(1, 1) - (60, 40)", "(9, 1) - (9, 40)", r"00003\.txt, object 1: zero area"),
        ("60 x 40 x 3", "40 x 60 x 3", r"00003\.txt: size contradicts the image: 40 x 60, the image has 60 x 40"),
        ("Bounding box for object 2", "", r"00003\.txt: half-written annotation: announces 2 objects and has 1"),
        ("Objects with", "", r"00003\.txt: half-written annotation: no size or number of objects"),
    ],
)
def test_faults_are_named_or_dropped(tmp_path: Path, old: str, new: str, message: str) -> None:
    folder = write_pennfudan(tmp_path, IMAGES)
    file = folder / "Annotation" / "FudanPed00003.txt"
    changed = file.read_text().replace(old, new)
    assert changed != file.read_text()
    file.write_text(changed)
    with pytest.raises(DataError, match=message):
        pennfudan.read(root=str(tmp_path), split="train", test_images=1)
    dataset = pennfudan.read(root=str(tmp_path), split="train", test_images=1, on_bad_box="drop")
    assert sum(dataset.dropped.values()) == 1


def test_missing_image_and_empty_annotation_in_one_message(tmp_path: Path) -> None:
    folder = write_pennfudan(tmp_path, IMAGES)
    (folder / "PNGImages" / "FudanPed00003.png").unlink()
    (folder / "Annotation" / "FudanPed00002.txt").write_text("")
    with pytest.raises(DataError) as error:
        pennfudan.read(root=str(tmp_path), split="train", test_images=1)
    assert "FudanPed00003.png: missing image" in str(error.value)
    assert "FudanPed00002.txt: half-written annotation" in str(error.value)


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    write_pennfudan(tmp_path, IMAGES)
    with pytest.raises(ConfigError, match=r"data\.test_images=7 leaves nothing to train on"):
        pennfudan.read(root=str(tmp_path), split="train", test_images=7)


def test_a_root_without_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an empty folder") as error:
        pennfudan.read(root=str(tmp_path), split="train")
    assert "PennFudanPed/{PNGImages,PedMasks,Annotation}" in str(error.value)
    assert "paperbench data get pennfudan" in str(error.value)
