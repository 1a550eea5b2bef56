"""Files on disk that are not the published ones are named, so that no published number is held against a run on them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from paperbench.catalog import DATASETS
from paperbench.data import cifar, cub, emnist, frey, svhn
from paperbench.engine.published_data import departures_of
from tests.data import test_cifar, test_emnist
from tests.data.files import write_frey
from tests.data.test_cub import write_cub
from tests.data.test_svhn import HOUSES, write_svhn


def test_every_data_set_that_can_be_had_is_compared() -> None:
    without = {name for name, spec in DATASETS.items() if spec.layout and not spec.departures}
    # The layouts of users' own data, and sets against which no published number is held.
    assert without <= {"yolo", "folders", "pennfudan", "hippocampus"}


def test_emnist_by_its_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, labels in (("train", [0, 46, 10]), ("test", [1])):
        test_emnist._make(tmp_path, "balanced", labels, split=split)
    data = {"name": "emnist", "root": str(tmp_path), "split": "balanced"}
    assert departures_of(data) == ("train: 3 of 112,800 images", "test: 1 of 18,800 images")
    monkeypatch.setitem(emnist._COUNTS, "balanced", (3, 1))
    assert departures_of(data) == ()


def test_cifar_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_cifar._make(tmp_path)
    data = {"name": "cifar100", "root": str(tmp_path)}
    assert departures_of(data) == (
        "train: 4 of 50,000 images",
        "test: 4 of 10,000 images",
        "meta: other content than the published file",
    )
    for name in ("train", "test", "meta"):
        monkeypatch.setitem(cifar._PUBLISHED, name, hashlib.md5((tmp_path / name).read_bytes()).hexdigest())
    assert departures_of(data) == ()
    test_cifar._make(tmp_path, fine_labels=[2, 1, 0, 0])
    monkeypatch.setattr(cifar, "_COUNTS", {"train": 4, "test": 4})
    assert departures_of(data) == tuple(f"{name}: other content than the published file" for name in ("train", "test"))


def test_birds_by_their_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cub(tmp_path)
    data = {"name": "cub", "root": str(tmp_path)}
    assert departures_of(data) == (
        "train: 6 of 5,994 images",
        "test: 6 of 5,794 images",
        "classes.txt: 3 of 200 species",
    )
    monkeypatch.setattr(cub, "_COUNTS", {"train": 6, "test": 6})
    monkeypatch.setattr(cub, "_SPECIES", 3)
    assert departures_of(data) == ()


def test_house_numbers_by_their_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path, HOUSES)
    write_svhn(tmp_path, HOUSES[:2], split="test")
    data = {"name": "svhn", "root": str(tmp_path), "extra": False}
    assert departures_of(data) == ("train: 4 of 33,402 images", "test: 2 of 13,068 images")
    monkeypatch.setattr(svhn, "_COUNTS", {"train": 4, "test": 2, "extra": 1})
    assert departures_of(data) == ()
    (missing,) = departures_of({**data, "extra": True})
    assert "cannot be compared" in missing
    (tmp_path / "svhn" / "test" / "digitStruct.mat").write_bytes(b"no HDF5")
    (damaged,) = departures_of(data)
    assert "damaged" in damaged


def test_faces_by_their_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"name": "frey", "root": str(write_frey(tmp_path))}
    assert departures_of(data) == ("film: 12 of 1,965 frames",)
    monkeypatch.setattr(frey, "FRAMES", 12)
    assert departures_of(data) == ()


def test_pairs_of_digits_by_the_files_of_mnist(tmp_path: Path) -> None:
    assert departures_of({"name": "digit-pairs", "source": "digits", "root": None}) == ()
    (missing,) = departures_of({"name": "digit-pairs", "source": "mnist", "root": str(tmp_path)})
    assert "cannot be compared" in missing


def test_radiographs_by_their_number(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "JSRT" / part).mkdir(parents=True)
        (tmp_path / "JSRT" / part / "a.png").touch()
    assert departures_of({"name": "jsrt", "root": str(tmp_path)}) == ("radiographs: 1 of 247 images",)
