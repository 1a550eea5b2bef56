"""MNIST (LeCun, Bottou, Bengio, Haffner 1998): 60,000 training and 10,000 test digits of 28 x 28 pixels.

Read from the four IDX files in torchvision's layout, `MNIST/raw`, packed with gzip or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from paperbench.data.idx import IMAGES, LABELS, digest, find_idx, read_idx
from paperbench.data.image_sets import ImageSet
from paperbench.data.layout import count_departure, data_root, missing
from paperbench.errors import DataError

CLASSES: Final = tuple("0123456789")
SIDE: Final = 28

_PREFIX: Final = {"train": "train", "test": "t10k"}
_REMEDY: Final = "remove it and run `paperbench data get mnist` again"
_COUNTS: Final = {"train": 60_000, "test": 10_000}
_PUBLISHED: Final = {
    ("train", IMAGES): "6bbc9ace898e44ae57da46a324031adb",
    ("train", LABELS): "a25bea736e30d166cdddb491f175f624",
    ("test", IMAGES): "2646ac647ad5339dbf082846283269ea",
    ("test", LABELS): "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 sums of the published files, unpacked."""


def find(root: str | Path | None, split: Literal["train", "test"]) -> tuple[Path, Path]:
    """The files of images and of labels of a split, below `root/MNIST/raw`, `root/raw` or `root`. Raises DataError."""
    base = data_root(root)
    found = find_idx((base / "MNIST" / "raw", base / "raw", base), _PREFIX[split])
    if found is None:
        wanted = " and ".join(f"{_PREFIX[split]}-{kind}" for kind in (IMAGES, LABELS))
        raise missing("mnist", base, f"{wanted} were looked for, with and without .gz")
    return found


def load(root: str | Path | None, split: Literal["train", "test"]) -> ImageSet:
    """The `train` or `test` split. Raises DataError naming the file for what is missing, damaged or no MNIST."""
    if split not in _PREFIX:
        raise ValueError(f"split is {split!r}; it takes 'train' or 'test'")
    image_file, label_file = find(root, split)
    images, labels = (
        read_idx(file, dimensions=dimensions, remedy=_REMEDY) for file, dimensions in ((image_file, 3), (label_file, 1))
    )
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


def departures(root: str | Path | None) -> Iterator[str]:
    """Yield in words what the files on disk have other than the published ones, first of all their counts. Raises DataError."""
    for split in ("train", "test"):
        files = find(root, split)
        count = len(read_idx(files[1], dimensions=1, remedy=_REMEDY))
        other = count_departure(split, count, _COUNTS[split])
        if other:
            yield from other
            continue
        for kind, file in zip((IMAGES, LABELS), files, strict=True):
            if digest(file, _REMEDY) != _PUBLISHED[split, kind]:
                yield f"{split}: {file.name} has the published number of {kind.partition('-')[0]}, but other content"
