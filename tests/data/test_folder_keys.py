"""Every key of a data set of folders arrives: it changes images or labels of the splits that it is about, and of no other."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from paperbench.config.fields import hints
from paperbench.config.marks import Incidental, mark
from paperbench.data import photographs
from paperbench.data.image_sets import ImageSet, TransferFoldersData
from paperbench.distill import datasets
from paperbench.errors import DataError
from tests.data.photos import write_classes, write_photo

TRAIN: set[datasets.Split] = {"train"}
TEST: set[datasets.Split] = {"test"}
BOTH = TRAIN | TEST
CHANGES: dict[str, tuple[Any, set[datasets.Split]]] = {
    "side": (12, BOTH),
    "test_fraction": (0.5, BOTH),
    "split_seed": (1, BOTH),
    "exif": ("ignore", BOTH),
    "colour": (False, BOTH),
    "max_train_images": (3, TRAIN),
    "max_test_images": (3, TEST),
    "unlabelled": ("wild", TRAIN),
    "cache_mb": (0, set()),
}
"""Another value for each key, and the splits that it changes."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one level, each of which a camera stored turned, and a folder of others without classes."""
    root = write_classes(tmp_path_factory.mktemp("keys") / "set", each=8)
    for path in root.rglob("*.jpg"):
        with Image.open(path) as stored:
            picture, exif = stored.copy(), stored.getexif()
        exif[0x0112] = 6
        picture.save(path, exif=exif)
    for number in range(3):
        write_photo(root.with_name("wild") / f"{number}.png", hue=number, seed=2000 + number)
    return root


def own(root: Path, **keys: Any) -> TransferFoldersData:
    if keys.get("unlabelled"):
        keys["unlabelled"] = str(root.with_name(keys["unlabelled"]))
    return TransferFoldersData(root=str(root), **{"side": 8, **keys})


def same(one: ImageSet, other: ImageSet) -> bool:
    first, second = one.images[:], other.images[:]
    return first.shape == second.shape and torch.equal(first, second) and torch.equal(one.labels, other.labels)


def test_every_key_is_listed() -> None:
    known = {field.name for field in fields(TransferFoldersData)} - {"name", "root"}
    assert known == set(CHANGES)
    without = {name for name, hint in hints(TransferFoldersData).items() if name in known and mark(hint, Incidental)}
    assert without == {key for key, (_, splits) in CHANGES.items() if not splits}


@pytest.mark.parametrize("key", CHANGES)
def test_the_key_changes_its_splits_alone(photos: Path, key: str) -> None:
    value, splits = CHANGES[key]
    before, after = own(photos), own(photos, **{key: value})
    changed = {name for name in BOTH if not same(datasets.load(before, name), datasets.load(after, name))}
    assert changed == splits


def test_limits_are_those_of_their_split(photos: Path) -> None:
    config = own(photos, max_train_images=9, max_test_images=3)
    assert [len(datasets.load(config, name)) for name in ("train", "test")] == [9, 3]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_picture_of_either_split_is_found_by_its_header(tmp_path: Path, split: str) -> None:
    for name in ("train", "test"):
        write_classes(tmp_path / name, each=2)
    (tmp_path / split / "chat" / "001.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=rf"{split}/chat/001\.jpg"):
        photographs.locate(own(tmp_path))


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_pictures_stay_in_their_places_whatever_was_asked_for_first(photos: Path, cache_mb: int) -> None:
    """The cache is filled in the order of use."""
    paths = tuple(sorted(photos.rglob("*.jpg")))
    made = [photographs.PhotographStore(paths, side=8, channels=3, exif="apply", cache_mb=cache_mb) for _ in range(2)]
    whole = made[0][:]
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))
    assert torch.equal(made[1][order], whole[order])
    kept = made[1].in_memory()
    assert (kept is None) == (cache_mb == 0)
    for found in (made[1][:], *([] if kept is None else [kept])):
        assert torch.equal(found, whole)
    part = made[1].part(order[:9]).part(torch.tensor([4, 2]))
    assert torch.equal(part[:], whole[order[torch.tensor([4, 2])]])
