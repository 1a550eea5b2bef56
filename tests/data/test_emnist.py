"""EMNIST's files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from paperbench.data import emnist
from paperbench.errors import DataError


def _write(folder: Path, name: str, values: np.ndarray, *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path = folder / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def _make(folder: Path, variant: str, labels: list[int], *, packed: bool = False, split: str = "train") -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28)).astype(np.uint8)
    _write(folder, f"emnist-{variant}-{split}-images-idx3-ubyte", images, packed=packed)
    _write(folder, f"emnist-{variant}-{split}-labels-idx1-ubyte", np.array(labels, np.uint8), packed=packed)
    return images


@pytest.mark.parametrize("folder", ["EMNIST/raw", "EMNIST/raw/gzip", "gzip", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_images_are_turned_upright_wherever_the_files_lie(tmp_path: Path, folder: str, packed: bool) -> None:
    images = _make(tmp_path / folder, "balanced", [0, 46, 10], packed=packed)
    found = emnist.load(tmp_path, "train", variant="balanced")
    assert torch.equal(found.images, torch.from_numpy(images.transpose(0, 2, 1).copy()))
    assert [found.classes[label] for label in found.labels.tolist()] == ["0", "t", "A"]


def test_classes_are_those_of_the_paper() -> None:
    counts = {name: len(classes) for name, classes in emnist.CLASSES.items()}
    assert counts == {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}
    # EMNIST paper, figure 1: these lower-case letters stay classes of their own in the merged variants.
    assert "".join(emnist.CLASSES["balanced"][36:]) == "abdefghnqrt"


def test_letters_count_from_1(tmp_path: Path) -> None:
    _make(tmp_path, "letters", [1, 26])
    assert emnist.load(tmp_path, "train", variant="letters").labels.tolist() == [0, 25]


@pytest.mark.parametrize(("variant", "labels", "wrong"), [("letters", [1, 0], 0), ("digits", [3, 10], 10)])
def test_labels_out_of_range_are_named(tmp_path: Path, variant: emnist.Variant, labels: list[int], wrong: int) -> None:
    _make(tmp_path, variant, labels)
    with pytest.raises(DataError, match=rf"labels-idx1-ubyte, item 1: label {wrong} is none of {variant}'s"):
        emnist.load(tmp_path, "train", variant=variant)


def test_numbers_that_differ(tmp_path: Path) -> None:
    _make(tmp_path, "digits", [1, 2, 3])
    _write(tmp_path, "emnist-digits-train-labels-idx1-ubyte", np.array([1, 2], np.uint8))
    with pytest.raises(DataError, match=r"has 3 images, .* has 2 labels"):
        emnist.load(tmp_path, "train", variant="digits")


def test_other_sizes_and_empty_files(tmp_path: Path) -> None:
    _make(tmp_path, "digits", [1])
    _write(tmp_path, "emnist-digits-train-images-idx3-ubyte", np.zeros((1, 20, 28), np.uint8))
    with pytest.raises(DataError, match="images of 20 x 28 pixels"):
        emnist.load(tmp_path, "train", variant="digits")
    _make(tmp_path, "digits", [])
    with pytest.raises(DataError, match="holds no image"):
        emnist.load(tmp_path, "train", variant="digits")


def test_another_variant_is_not_taken_for_it(tmp_path: Path) -> None:
    _make(tmp_path, "digits", [1])
    with pytest.raises(DataError, match="no data set 'emnist' here: emnist-balanced-train-images"):
        emnist.load(tmp_path, "train", variant="balanced")


def test_a_split_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'train' or 'test'"):
        emnist.load(tmp_path, "validation", variant="digits")  # type: ignore[arg-type]
