"""CIFAR-100's files: pickles that must not be able to do anything."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paperbench.data import cifar
from paperbench.errors import DataError

NAMES = ["apple", "bear", "chair"]


def _make(folder: Path, *, count: int = 4, **changes: Any) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).integers(0, 256, (count, 3072)).astype(np.uint8)
    content = {"data": data, "fine_labels": [n % 3 for n in range(count)], "coarse_labels": [0] * count, **changes}
    for split in ("train", "test"):
        (folder / split).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": NAMES}, protocol=2))
    return data


@pytest.mark.parametrize("folder", ["cifar-100-python", "."])
def test_pictures_are_channels_by_rows_by_columns(tmp_path: Path, folder: str) -> None:
    data = _make(tmp_path / folder)
    found = cifar.load(tmp_path, "test")
    assert found.images.shape == (4, 3, 32, 32)
    assert found.images.dtype == torch.uint8
    assert int(found.images[1, 2, 3, 4]) == data[1, 2 * 1024 + 3 * 32 + 4]
    assert found.labels.tolist() == [0, 1, 2, 0]
    assert found.classes == tuple(NAMES)


def test_the_published_pickles_of_python_2_can_be_read(tmp_path: Path) -> None:
    """A pickle as Python 2 and an old NumPy wrote it: text as bytes, `numpy.core.multiarray`."""
    _make(tmp_path)
    old = (tmp_path / "train").read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "train").write_bytes(old)
    assert len(cifar.load(tmp_path, "train")) == 4


class _Mischief:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_nothing_in_a_file_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _make(tmp_path, extra=_Mischief())
    with pytest.raises(DataError, match=r"asks for (builtins|__builtin__)\.print"):
        cifar.load(tmp_path, "train")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [1, 2]}, "data is no table of bytes"),
        ({"data": np.zeros((4, 100), np.uint8)}, "100 values an image"),
        ({"data": np.zeros((0, 3072), np.uint8)}, "data is no table of bytes"),
        ({"fine_labels": [0, 1]}, "4 images, 2 fine_labels"),
        ({"fine_labels": [0, 1, 3, 2]}, "item 2: label 3 is none of 3 classes"),
        ({"fine_labels": None}, "4 images, no fine_labels"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _make(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        cifar.load(tmp_path, "train")


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps([1, 2])])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    _make(tmp_path)
    (tmp_path / "train").write_bytes(content)
    with pytest.raises(DataError, match=r"train: (damaged|holds a list)"):
        cifar.load(tmp_path, "train")


def test_absent(tmp_path: Path) -> None:
    _make(tmp_path)
    (tmp_path / "meta").unlink()
    with pytest.raises(DataError, match="no data set 'cifar100' here: cifar-100-python/train, test and meta"):
        cifar.load(tmp_path, "train")
