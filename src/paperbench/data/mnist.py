"""MNIST (LeCun, Bottou, Bengio, Haffner 1998): 60,000 training and 10,000 test digits of 28 x 28 pixels.

Read from the four IDX files in torchvision's layout, `MNIST/raw`, packed with gzip or not.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.data.image_sets import ImageSet
from paperbench.data.layout import data_root, missing
from paperbench.errors import DataError

CLASSES: Final = tuple("0123456789")
SIDE: Final = 28

_PREFIX: Final = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
_UNSIGNED_BYTE: Final = 8
_REMEDY: Final = "remove it and run `paperbench data get mnist` again"


def find(root: str | Path | None, split: Literal["train", "test"]) -> tuple[Path, Path]:
    """The files of images and of labels of a split, below `root/MNIST/raw`, `root/raw` or `root`. Raises DataError."""
    base = data_root(root)
    folders = [folder for folder in (base / "MNIST" / "raw", base / "raw", base) if folder.is_dir()]
    for folder in folders:
        files = [_file(folder, f"{_PREFIX[split]}-{kind}") for kind in (_IMAGES, _LABELS)]
        if files[0] is not None and files[1] is not None:
            return files[0], files[1]
    raise missing(
        "mnist",
        base,
        f"{_PREFIX[split]}-{_IMAGES} and {_PREFIX[split]}-{_LABELS} were looked for, with and without .gz",
    )


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def load(root: str | Path | None, split: Literal["train", "test"]) -> ImageSet:
    """The `train` or `test` split. Raises DataError naming the file for what is missing, damaged or no MNIST."""
    if split not in _PREFIX:
        raise ValueError(f"split is {split!r}; it takes 'train' or 'test'")
    image_file, label_file = find(root, split)
    images, labels = read_idx(image_file, dimensions=3), read_idx(label_file, dimensions=1)
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{image_file}: images of {images.shape[1]} x {images.shape[2]} pixels, MNIST has {SIDE} x {SIDE}"
        )
    if len(images) != len(labels):
        raise DataError(f"{image_file} has {len(images)} images, {label_file} has {len(labels)} labels; {_REMEDY}")
    if len(labels) == 0:
        raise DataError(f"{image_file}: holds no image; {_REMEDY}")
    if labels.max() > 9:
        at = int(np.flatnonzero(labels > 9)[0])
        raise DataError(f"{label_file}, item {at}: label {labels[at]} is no digit; {_REMEDY}")
    return ImageSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels.astype(np.int64)),
        classes=CLASSES,
        name=f"MNIST {split}",
    )


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """A writable array from an IDX file of unsigned bytes: magic 0, 0, 8, dimensions, then big-endian sizes, then the bytes.

    Raises DataError naming the file when it cannot be read or its content is not what its header announces.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file: {error}; {_REMEDY}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise DataError(
            f"{path}: no IDX file of {dimensions} dimensions of bytes (it begins with {content[:4].hex() or 'nothing'}); {_REMEDY}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != int(np.prod(shape, dtype=np.int64)):
        announced = " x ".join(map(str, shape))
        raise DataError(f"{path}: holds {len(content) - start} values, its header announces {announced}; {_REMEDY}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
