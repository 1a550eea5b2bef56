"""EMNIST (Cohen, Afshar, Tapson, van Schaik 2017): handwritten letters and digits in MNIST's form.

Read from the IDX files of the published `gzip.zip` in torchvision's layout, `EMNIST/raw`, packed with gzip or not.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from paperbench.data.idx import IMAGES, LABELS, find_idx, read_idx
from paperbench.data.image_sets import ImageSet
from paperbench.data.layout import count_departure, data_root, missing
from paperbench.data.mnist import SIDE
from paperbench.errors import DataError

Variant = Literal["balanced", "bymerge", "byclass", "letters", "digits", "mnist"]

_ALIKE: Final = "cijklmopsuvwxyz"
"""Letters whose capital looks the same; `bymerge` and `balanced` count the two as one, under the capital's name."""

_MERGED: Final = (
    *string.digits,
    *string.ascii_uppercase,
    *(letter for letter in string.ascii_lowercase if letter not in _ALIKE),
)
CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "byclass": tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase),
    "bymerge": _MERGED,
    "balanced": _MERGED,
    "letters": tuple(string.ascii_lowercase),
    "digits": tuple(string.digits),
    "mnist": tuple(string.digits),
}
_FIRST_LABEL: Final = {"letters": 1}
_COUNTS: Final = {
    "byclass": (697_932, 116_323),
    "bymerge": (697_932, 116_323),
    "balanced": (112_800, 18_800),
    "letters": (124_800, 20_800),
    "digits": (240_000, 40_000),
    "mnist": (60_000, 10_000),
}
"""Training and test images of each variant, as in the files of `gzip.zip`; the paper splits 20,800 of the letters' off."""
_REMEDY: Final = "remove it and run `paperbench data get emnist` again"


def find(root: str | Path | None, split: Literal["train", "test"], *, variant: Variant) -> tuple[Path, Path]:
    """The files of images and of labels, in `EMNIST/raw`, `EMNIST/raw/gzip` or `gzip` below `root`, or in it. Raises DataError."""
    base = data_root(root)
    prefix = f"emnist-{variant}-{split}"
    found = find_idx((base / "EMNIST" / "raw", base / "EMNIST" / "raw" / "gzip", base / "gzip", base), prefix)
    if found is None:
        wanted = " and ".join(f"{prefix}-{kind}" for kind in (IMAGES, LABELS))
        raise missing("emnist", base, f"{wanted} were looked for, with and without .gz")
    return found


def load(root: str | Path | None, split: Literal["train", "test"], *, variant: Variant) -> ImageSet:
    """The `train` or `test` part of a variant, upright: the files hold every image transposed.

    Raises DataError naming the file for what is missing, damaged or no EMNIST.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; it takes 'train' or 'test'")
    image_file, label_file = find(root, split, variant=variant)
    images, labels = (
        read_idx(file, dimensions=dimensions, remedy=_REMEDY) for file, dimensions in ((image_file, 3), (label_file, 1))
    )
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{image_file}: images of {images.shape[1]} x {images.shape[2]} pixels, EMNIST has {SIDE} x {SIDE}"
        )
    if len(images) != len(labels):
        raise DataError(f"{image_file} has {len(images)} images, {label_file} has {len(labels)} labels; {_REMEDY}")
    if len(labels) == 0:
        raise DataError(f"{image_file}: holds no image; {_REMEDY}")
    classes = CLASSES[variant]
    own = labels.astype(np.int64) - _FIRST_LABEL.get(variant, 0)
    if own.min() < 0 or own.max() >= len(classes):
        at = int(np.flatnonzero((own < 0) | (own >= len(classes)))[0])
        raise DataError(f"{label_file}, item {at}: label {labels[at]} is none of {variant}'s {len(classes)}; {_REMEDY}")
    return ImageSet(
        images=torch.from_numpy(images).transpose(1, 2).contiguous(),
        labels=torch.from_numpy(own),
        classes=classes,
        name=f"EMNIST {variant} {split}",
    )


def departures(root: str | Path | None, *, variant: Variant) -> Iterator[str]:
    """Yield in words which part of a variant has another number of images than the published one. Raises DataError."""
    for split, published in zip(("train", "test"), _COUNTS[variant], strict=True):
        _, label_file = find(root, split, variant=variant)
        yield from count_departure(split, len(read_idx(label_file, dimensions=1, remedy=_REMEDY)), published)
