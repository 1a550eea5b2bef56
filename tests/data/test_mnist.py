from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from paperbench.data import labelled, mnist
from paperbench.data.image_sets import MnistData
from paperbench.distill import datasets as distill_datasets
from paperbench.errors import DataError


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(root: Path, *, train: int = 30, test: int = 20, packed: bool = True) -> Path:
    """MNIST in torchvision's layout with made-up images; returns the folder of the files."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        random = np.random.default_rng(count)
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, values in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = idx(values)
            path = folder / f"{prefix}-{name}"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels_in_their_order(tmp_path: Path, packed: bool) -> None:
    write_mnist(tmp_path, packed=packed)
    found = mnist.load(tmp_path, "test")
    assert found.images.shape == (20, 28, 28)
    assert found.images.dtype == torch.uint8
    assert found.labels.tolist() == [k % 10 for k in range(20)]
    expected = np.random.default_rng(20).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    assert np.array_equal(found.images.numpy(), expected)
    assert len(mnist.load(tmp_path / "MNIST" / "raw", "train")) == 30


def test_limits_and_counts(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    config = MnistData(root=str(tmp_path), max_train_images=12)
    assert len(labelled.load(config, "train")) == 12
    assert len(labelled.load(config, "test")) == 20
    counts = labelled.check(config)
    assert counts["train: images"] == 12
    assert counts["test: images by class"] == {str(digit): 2 for digit in range(10)}
    assert "at most 12 training images" in labelled.describe(config)
    assert not any("training split too" in name for name in counts)


@pytest.mark.parametrize("check", [labelled.check, distill_datasets.check])
def test_images_of_both_splits_are_counted(tmp_path: Path, check: Callable[[MnistData], dict[str, object]]) -> None:
    folder = write_mnist(tmp_path)
    images = {split: mnist.load(tmp_path, split).images.numpy() for split in ("train", "test")}
    images["test"][[2, 7]] = images["train"][[11, 3]]
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(packed(idx(images["test"])))
    counts = check(MnistData(root=str(tmp_path)))
    assert [count for name, count in counts.items() if "in the training split too" in name] == [2]


def packed(content: bytes) -> bytes:
    """Without the time, which would make it another file, and another test, for every worker that collects it."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", b"no gzip at all", "damaged gzip file"),
        ("train-images-idx3-ubyte.gz", packed(b"abcdefgh" * 10)[:-12], "damaged gzip file"),
        ("train-images-idx3-ubyte.gz", packed(idx(np.zeros(9, np.uint8))), "no IDX file of 3 dimensions"),
        ("train-images-idx3-ubyte.gz", packed(b""), "begins with nothing"),
        (
            "train-images-idx3-ubyte.gz",
            packed(idx(np.zeros((30, 28, 28), np.uint8))[:-5]),
            "holds 23515 values, its header announces 30 x 28 x 28",
        ),
        ("train-images-idx3-ubyte.gz", packed(idx(np.zeros((30, 8, 8), np.uint8))), "images of 8 x 8 pixels"),
        ("train-labels-idx1-ubyte.gz", packed(idx(np.full(30, 11, np.uint8))), "item 0: label 11 is no digit"),
        ("train-labels-idx1-ubyte.gz", packed(idx(np.zeros(29, np.uint8))), "has 30 images.*has 29 labels"),
    ],
    ids=range(8),
)
def test_faults_name_the_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder = write_mnist(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        mnist.load(tmp_path, "train")
    assert name in str(error.value)
    with pytest.raises(DataError, match=message):
        labelled.check(MnistData(root=str(tmp_path)))


def test_missing_files_are_looked_for_before_a_run(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    labelled.locate(MnistData(root=str(tmp_path)))
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte were looked for") as error:
        labelled.locate(MnistData(root=str(tmp_path)))
    assert "paperbench data get mnist" in str(error.value)
    with pytest.raises(ValueError, match="split"):
        mnist.load(tmp_path, "validation")  # type: ignore[arg-type]


# --- names, and what is not the published set -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["{}-images.idx3-ubyte", "{}-images.idx3-ubyte.gz", "{0}-images-idx3-ubyte/{0}-images.idx3-ubyte"]
)
def test_names_that_other_programs_give(tmp_path: Path, name: str) -> None:
    folder = write_mnist(tmp_path, packed=name.endswith(".gz"))
    for prefix in ("train", "t10k"):
        old = folder / f"{prefix}-images-idx3-ubyte{'.gz' if name.endswith('.gz') else ''}"
        content = old.read_bytes()
        old.unlink()
        new = folder / name.format(prefix)
        new.parent.mkdir(exist_ok=True)
        new.write_bytes(content)
    assert len(mnist.load(tmp_path, "train")) == 30


def test_gzip_is_told_by_the_content(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, packed=False)
    plain = folder / "train-images-idx3-ubyte"
    plain.write_bytes(gzip.compress(plain.read_bytes()))
    labels = folder / "train-labels-idx1-ubyte"
    labels.rename(f"{labels}.gz")
    assert len(mnist.load(tmp_path, "train")) == 30


def test_counts_and_contents_that_are_not_the_published_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_mnist(tmp_path)
    assert list(mnist.departures(tmp_path)) == ["train: 30 of 60,000 images", "test: 20 of 10,000 images"]
    monkeypatch.setattr(mnist, "_COUNTS", {"train": 30, "test": 20})
    sums = {
        (split, kind): hashlib.md5(gzip.decompress((folder / f"{prefix}-{kind}.gz").read_bytes())).hexdigest()
        for split, prefix in (("train", "train"), ("test", "t10k"))
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    }
    monkeypatch.setattr(mnist, "_PUBLISHED", sums)
    assert list(mnist.departures(tmp_path)) == []
    labels = folder / "train-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[8:38] = content[8:38][::-1]
    labels.write_bytes(gzip.compress(content))
    (found,) = labelled.departures({"root": str(tmp_path)})
    assert "train-labels-idx1-ubyte.gz has the published number of labels, but other content" in found


def test_a_header_that_announces_more_than_64_bits_hold(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    huge = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 2**31, 4) + b"x" * 8
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(huge))
    with pytest.raises(DataError, match="its header announces"):
        mnist.load(tmp_path, "train")
