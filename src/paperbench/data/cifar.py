"""CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test pictures of 32 x 32 pixels, 100 classes of equal size.

Read from `cifar-100-python/{train,test,meta}` as published: pickles of Python 2. They are read without executing anything: only
only the parts of arrays and text are allowed.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from paperbench.data.image_sets import ImageSet
from paperbench.data.layout import count_departure, data_root, missing
from paperbench.errors import DataError

SIDE: Final = 32
_FOLDER: Final = "cifar-100-python"
_REMEDY: Final = "remove the folder and run `paperbench data get cifar100` again"
_COUNTS: Final = {"train": 50_000, "test": 10_000}
_PUBLISHED: Final = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""MD5 sums of the published files, as torchvision has them."""
_HARMLESS: Final = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("__builtin__", "bytes"),
}


def find(root: str | Path | None) -> Path:
    """The folder with `train`, `test` and `meta`: `root/cifar-100-python`, or `root` itself. Raises DataError."""
    base = data_root(root)
    for folder in (base / _FOLDER, base):
        if all((folder / name).is_file() for name in ("train", "test", "meta")):
            return folder
    raise missing("cifar100", base, f"{_FOLDER}/train, test and meta were looked for")


def class_names(root: str | Path | None) -> tuple[str, ...]:
    """The 100 fine labels, in the order of their numbers. Raises DataError."""
    path = find(root) / "meta"
    names = _read(path).get("fine_label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: holds no list fine_label_names; {_REMEDY}")
    return tuple(names)


def load(root: str | Path | None, split: Literal["train", "test"]) -> ImageSet:
    """The `train` or `test` split, (N, 3, 32, 32). Raises DataError naming the file for what is missing or damaged."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; it takes 'train' or 'test'")
    classes = class_names(root)
    path = find(root) / split
    content = _read(path)
    pixels, labels = content.get("data"), content.get("fine_labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or not len(pixels):
        raise DataError(f"{path}: data is no table of bytes; {_REMEDY}")
    if pixels.shape[1] != 3 * SIDE * SIDE:
        raise DataError(
            f"{path}: {pixels.shape[1]} values an image, CIFAR-100 has 3 x {SIDE} x {SIDE} = {3 * SIDE * SIDE}"
        )
    if not isinstance(labels, list) or len(labels) != len(pixels):
        count = len(labels) if isinstance(labels, list) else "no"
        raise DataError(f"{path}: {len(pixels)} images, {count} fine_labels; {_REMEDY}")
    wrong = [at for at, label in enumerate(labels) if not isinstance(label, int) or not 0 <= label < len(classes)]
    if wrong:
        raise DataError(
            f"{path}, item {wrong[0]}: label {labels[wrong[0]]!r} is none of {len(classes)} classes; {_REMEDY}"
        )
    return ImageSet(
        images=torch.from_numpy(np.ascontiguousarray(pixels).reshape(-1, 3, SIDE, SIDE)),
        labels=torch.tensor(labels, dtype=torch.int64),
        classes=classes,
        name=f"CIFAR-100 {split}",
    )


def departures(root: str | Path | None) -> Iterator[str]:
    """Yield in words which files are not the published ones, and how many images they have instead. Raises DataError."""
    folder = find(root)
    for name, published in _PUBLISHED.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        if digest == published:
            continue
        labels = _read(path).get("fine_labels") if name in _COUNTS else None
        other = count_departure(name, len(labels), _COUNTS[name]) if isinstance(labels, list) else []
        yield from other or [f"{path.name}: other content than the published file"]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read(path: Path) -> dict[str, Any]:
    """The dictionary of one file. Raises DataError."""
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # A damaged pickle can fail with almost anything; all of it means the same here.
        raise DataError(
            f"{path}: damaged, or no file of CIFAR-100 ({' '.join(str(error).split())}); {_REMEDY}"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not CIFAR-100's dictionary; {_REMEDY}")
    return content
