from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


# --- masks ------------------------------------------------------------------------------------------------------------


def write_masks(folder: Path, name: str, values: np.ndarray) -> Path:
    (folder / "PedMasks").mkdir(exist_ok=True)
    path = folder / "PedMasks" / f"{name}_mask.png"
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def test_pixels_of_object_k_have_the_value_k(tmp_path: Path) -> None:
    folder = write_pennfudan(tmp_path, IMAGES)
    dataset = pennfudan.read(root=str(tmp_path), split="test", test_images=1)
    values = np.zeros((40, 60), int)
    values[5:10, 5:20], values[20:30, 30:40] = 1, 2
    write_masks(folder, str(dataset.records[0].image_id), values)
    assert dataset.masks is not None
    masks = dataset.masks(0)
    assert masks.shape == (2, 40, 60)
    np.testing.assert_array_equal(masks[0], values == 1)
    np.testing.assert_array_equal(masks[1], values == 2)


def test_masks_of_objects_that_were_left_out_are_left_out(tmp_path: Path) -> None:
    folder = write_pennfudan(tmp_path, {"FudanPed00001": [(9, 1, 9, 40), (10, 5, 20, 30)], "FudanPed00002": []})
    dataset = pennfudan.read(root=str(tmp_path), split="test", test_images=1, on_bad_box="drop")
    if not len(dataset.records[0].labels):
        dataset = pennfudan.read(root=str(tmp_path), split="train", test_images=1, on_bad_box="drop")
    values = np.zeros((40, 60), int)
    values[5:10, 5:20] = 2
    write_masks(folder, "FudanPed00001", values)
    assert dataset.masks is not None
    np.testing.assert_array_equal(dataset.masks(0), [values == 2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "missing image"),
        (np.ones((4, 6), int), r"6 x 4 pixels, the photograph has 60 x 40"),
        (np.ones((40, 60), int), r"no pixel has the value 2, which is an object of .*\.txt"),
        (np.ones((40, 60, 3), int), r"3 channels where one was expected"),
    ],
)
def test_masks_that_cannot_be_right_are_named(tmp_path: Path, values: np.ndarray | None, message: str) -> None:
    folder = write_pennfudan(tmp_path, IMAGES)
    dataset = pennfudan.read(root=str(tmp_path), split="test", test_images=1)
    if values is not None:
        write_masks(folder, str(dataset.records[0].image_id), values)
    assert dataset.masks is not None
    with pytest.raises(DataError, match=rf"PedMasks.*{message}"):
        dataset.masks(0)
