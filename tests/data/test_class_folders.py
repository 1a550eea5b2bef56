"""Folders of classes: what is found, what is refused, and what streams from disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from paperbench.data import class_folders, photographs
from paperbench.data.image_sets import FoldersConfig, FoldersData, TransferFoldersData
from paperbench.data.photographs import PhotographStore
from paperbench.errors import DataError
from tests.data.photos import CLASSES, write_classes, write_photo, write_splits


def find(root: Path, *, labelled: bool = True, **keys: object) -> class_folders.ClassFolders:
    return class_folders.find(FoldersConfig(root=str(root), **keys), labelled=labelled)  # type: ignore[arg-type]


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test", "val", "valid", "Validation"])
def test_splits_are_folders(tmp_path: Path, name: str) -> None:
    found = find(write_splits(tmp_path, test_name=name))
    assert found.classes == tuple(sorted(CLASSES))
    assert (len(found.train), len(found.test)) == (18, 9)
    assert all(
        path.parent.name == found.classes[k] for path, k in zip(found.train.paths, found.train.labels, strict=True)
    )
    assert found.repeated == ()


def test_classes_have_the_order_of_torchvision(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", classes=("b", "A", "a", "10", "9"))
    own = find(tmp_path, test_fraction=0.5)
    assert list(own.classes) == torchvision.datasets.ImageFolder(str(tmp_path / "train")).classes


def test_of_one_level_a_part_of_every_class_is_held_back_by_a_seed(tmp_path: Path) -> None:
    write_classes(tmp_path, each=10)
    found = find(tmp_path)
    assert np.bincount(found.test.labels).tolist() == [2, 2, 2]
    assert set(found.train.paths) | set(found.test.paths) == set(tmp_path.rglob("*.jpg"))
    assert not set(found.train.paths) & set(found.test.paths)
    assert find(tmp_path).test.paths == found.test.paths
    assert find(tmp_path, split_seed=1).test.paths != found.test.paths


def test_a_train_without_a_test_is_split_as_well(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", each=5)
    found = find(tmp_path)
    assert (len(found.train), len(found.test)) == (12, 3)
    assert "held back" in found.origin


def test_names_with_accents_are_one_however_they_are_encoded(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", classes=(unicodedata.normalize("NFD", "Éclair"), "b"))
    write_classes(tmp_path / "test", classes=(unicodedata.normalize("NFC", "Éclair"), "b"))
    assert find(tmp_path).classes == ("b", unicodedata.normalize("NFC", "Éclair"))


def test_hidden_and_other_files_are_passed_over_and_nested_pictures_belong_to_their_class(tmp_path: Path) -> None:
    write_splits(tmp_path)
    (tmp_path / "train/chat/.DS_Store").write_bytes(b"x")
    write_photo(tmp_path / "train/chat/._000.jpg", hue=0, seed=0)
    (tmp_path / "train/chat/notes.txt").write_text("x")
    write_photo(tmp_path / "train/.ipynb_checkpoints/000.jpg", hue=0, seed=0)
    write_photo(tmp_path / "train/chat/more/deep/000.PNG", hue=0, seed=3)
    found = find(tmp_path)
    assert len(found.train) == 19
    assert found.passed_over["hidden files and folders"] == 3
    assert found.passed_over["other files (*.txt)"] == 1
    assert found.passed_over[class_folders.NESTED] == 1


def test_a_folder_without_classes_is_for_tasks_that_need_none(tmp_path: Path) -> None:
    for number in range(10):
        write_photo(tmp_path / f"{number}.jpg", hue=0, seed=number)
    found = find(tmp_path, labelled=False)
    assert (len(found.train), len(found.test), found.classes) == (8, 2, ("",))
    with pytest.raises(DataError, match="pictures that lie in no folder of a class"):
        find(tmp_path)


def test_a_train_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    write_classes(tmp_path / "test")
    for number in range(4):
        write_photo(tmp_path / "train" / f"{number}.jpg", hue=0, seed=number)
    found = find(tmp_path)
    assert found.train.labels.tolist() == [-1] * 4
    assert found.classes == tuple(sorted(CLASSES))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_classes(tmp_path, classes=("car", "plane", "train"))
    assert find(tmp_path).classes == ("car", "plane", "train")


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_class_of_one_split_is_named_with_its_nearest(tmp_path: Path) -> None:
    write_splits(tmp_path)
    (tmp_path / "test/chat").rename(tmp_path / "test/chats")
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    text = str(caught.value)
    assert f"{tmp_path / 'train/chat'}: a class that test/ does not have; it has chats" in text
    assert f"{tmp_path / 'test/chats'}: a class that train/ does not have; it has chat" in text


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    write_splits(tmp_path)
    (tmp_path / "train/leer").mkdir()
    with pytest.raises(DataError, match="1 of 4 folders hold no picture: leer"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (("archive/train/a/0.jpg", "archive/test/a/0.jpg"), "archive: holds train/, so it is a data set and no class"),
        (("a/0.jpg", "a/1.jpg"), "holds only the class a"),
        (("a/0.jpg", "b/0.jpg", "b/1.jpg"), "class a has one picture"),
        (("test/a/0.jpg", "test/b/0.jpg"), "has test/ and no train/"),
    ],
)
def test_what_has_no_one_reading_is_refused(tmp_path: Path, made: tuple[str, ...], message: str) -> None:
    for number, name in enumerate(made):
        write_photo(tmp_path / name, hue=0, seed=number)
    with pytest.raises(DataError, match=message):
        find(tmp_path)


def test_a_missing_folder_names_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CLASS"):
        find(tmp_path / "none")


def test_every_bad_file_is_named_before_the_work(tmp_path: Path) -> None:
    write_splits(tmp_path)
    half = tmp_path / "train/chat/000.jpg"
    half.write_bytes(half.read_bytes()[:200])
    (tmp_path / "train/birne/001.jpg").write_bytes(b"no picture")
    config = FoldersConfig(root=str(tmp_path))
    for work in (photographs.locate, lambda it: photographs.load(it, "train"), photographs.check):
        with pytest.raises(DataError) as caught:
            work(config)
        assert str(half) in str(caught.value)
        assert "birne/001.jpg" in str(caught.value)


# --- check ------------------------------------------------------------------------------------------------------------


def test_the_check_counts_equal_files_and_turned_photographs(tmp_path: Path) -> None:
    write_splits(tmp_path)
    shutil.copy(tmp_path / "train/chat/000.jpg", tmp_path / "test/chat/again.jpg")
    shutil.copy(tmp_path / "train/chat/001.jpg", tmp_path / "train/birne/again.jpg")
    with Image.open(tmp_path / "train/chat/002.jpg") as stored:
        turned, exif = stored.copy(), stored.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "train/chat/002.jpg", exif=exif)
    config = FoldersConfig(root=str(tmp_path))
    counts = photographs.check(config)
    assert counts["train: images by class"] == {"birne": 7, "chat": 6, "Éclair": 6}
    assert counts["equal files in train and test"].startswith("1, such as")
    assert counts["train: equal files in two classes"].startswith("1, such as")
    assert counts["stored turned by a camera (EXIF)"] == "1, turned upright"
    assert "1 test images are also training images" in photographs.describe(config)


# --- images -----------------------------------------------------------------------------------------------------------


def test_images_are_middle_squares(tmp_path: Path) -> None:
    write_splits(tmp_path)
    loaded = photographs.load(FoldersConfig(root=str(tmp_path), side=16), "test")
    assert loaded.images.shape == (9, 3, 16, 16)
    with Image.open(tmp_path / "test/birne/000.jpg") as stored:
        picture = stored.convert("RGB")
    expected = picture.crop((6, 0, 30, 24)).resize((16, 16), Image.Resampling.BILINEAR)
    inner = np.s_[1:-1, 1:-1]  # at the border the filter also sees what lies beside the square
    np.testing.assert_allclose(loaded.images[0].permute(1, 2, 0)[inner], np.asarray(expected)[inner], atol=1)
    grey = photographs.load(FoldersData(root=str(tmp_path), side=16, colour=False), "test", channels=1)
    assert grey.images.shape == (9, 16, 16)


@pytest.mark.parametrize("cache_mb", [0, 0.006, 1])
def test_streamed_images_are_those_in_memory(tmp_path: Path, cache_mb: float) -> None:
    write_classes(tmp_path, each=4)
    paths = sorted(tmp_path.rglob("*.jpg"))
    whole = torch.stack([photographs.prepare(np.asarray(Image.open(p)), side=16, channels=3) for p in paths])
    store = PhotographStore(paths, side=16, channels=3, exif="apply", cache_mb=cache_mb)
    assert store.read_all() == []
    rows = torch.tensor([7, 0, 7, 11])
    for _ in range(2):
        assert torch.equal(store[rows], whole[rows])
        assert torch.equal(store[2:9], whole[2:9])
        assert torch.equal(store[3], whole[3])
    part = store.part(torch.tensor([5, 1, 8]))
    assert torch.equal(part[torch.tensor([2, 0])], whole[torch.tensor([8, 5])])
    assert torch.equal(part.part(torch.tensor([1]))[:], whole[1:2])
    assert (store.in_memory() is None) == (cache_mb < 1)
    assert len(store._cache) == min(12, int(cache_mb * 2**20) // (3 * 16 * 16))


STREAM = """
import sys
from pathlib import Path
import torch
from paperbench.data import photographs
from paperbench.data.image_sets import FoldersData

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20

config = FoldersData(root=sys.argv[1], side=256, cache_mb=float(sys.argv[2]))
photographs.load(FoldersData(root=sys.argv[1], side=256, cache_mb=0, max_train_images=64), "train")
before = peak = resident()
loaded = photographs.load(config, "train")
for start in range(0, len(loaded.images), 32):
    assert len(loaded.images[start : start + 32])
    peak = max(peak, resident())
print(peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what a process holds as Linux counts it")
def test_many_photographs_stay_within_the_budget(tmp_path: Path) -> None:
    """800 pictures of 256 pixels a side are 150 MiB in memory; a budget of 16 MiB holds those, with what readers have in hand."""
    write_photo(tmp_path / "one.jpg", hue=0, seed=0, size=(300, 300))
    for split, each in (("train", 400), ("test", 1)):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(each):
                os.link(tmp_path / "one.jpg", tmp_path / "set" / split / name / f"{number}.jpg")

    def grown(cache_mb: int) -> float:
        call = [sys.executable, "-c", STREAM, str(tmp_path / "set"), str(cache_mb)]
        return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout)

    assert (small := grown(16)) < 100, small
    assert (large := grown(1024)) > 130, large


def test_a_file_that_is_damaged_later_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, each=2)
    paths = sorted(tmp_path.rglob("*.jpg"))
    store = PhotographStore(paths, side=16, channels=3, exif="apply", cache_mb=0)
    paths[3].write_bytes(b"")
    with pytest.raises(DataError, match=paths[3].name):
        store[torch.tensor([3])]


def test_limits_are_spread_over_the_classes(tmp_path: Path) -> None:
    write_splits(tmp_path)
    loaded = photographs.load(FoldersConfig(root=str(tmp_path), max_train_images=6), "train")
    assert torch.bincount(loaded.labels).tolist() == [2, 2, 2]


def test_unlabelled_pictures_follow_the_training_images(tmp_path: Path) -> None:
    write_splits(tmp_path / "set")
    write_photo(tmp_path / "wild/a/0.jpg", hue=0, seed=0)
    write_photo(tmp_path / "wild/1.jpg", hue=1, seed=0)
    loaded = photographs.load(
        TransferFoldersData(root=str(tmp_path / "set"), unlabelled=str(tmp_path / "wild"), side=8), "train"
    )
    assert loaded.labels[-3:].tolist() == [2, -1, -1]
    with pytest.raises(DataError, match=r"data\.unlabelled=.*no such folder"):
        photographs.load(TransferFoldersData(root=str(tmp_path / "set"), unlabelled=str(tmp_path / "no")), "train")
