"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011): 5,994 training and 5,794 test photographs of 200 species.

Read as the archive unpacks: `CUB_200_2011` with `images.txt`, `classes.txt`, `image_class_labels.txt`, `train_test_split.txt` and
the folder `images`. Every text file has an id and a value a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.data.image_files import READERS, BadImageError
from paperbench.data.image_sets import ImageSet
from paperbench.data.layout import count_departure, data_root, missing, read_text
from paperbench.data.pictures import decode_rgb, square
from paperbench.errors import DataError

FOLDER: Final = "CUB_200_2011"
_FILES: Final = ("images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt")
_COUNTS: Final = {"train": 5_994, "test": 5_794}
_SPECIES: Final = 200


def find(root: str | Path | None) -> Path:
    """The folder `root/CUB_200_2011` or `root` itself. Raises DataError."""
    base = data_root(root)
    for folder in (base / FOLDER, base):
        if all((folder / name).is_file() for name in _FILES) and (folder / "images").is_dir():
            return folder
    raise missing("cub", base, f"{', '.join(_FILES)} and images/ were looked for")


def read(
    root: str | Path | None, split: Literal["train", "test"]
) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...]]:
    """Files, classes (N,) from 0, and the names of the classes. Raises DataError naming file and line."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; it takes 'train' or 'test'")
    folder = find(root)
    images, species, labels, training = (_table(folder / name) for name in _FILES)
    classes = tuple(name.partition(".")[2] or name for name in species.values())
    numbers = {identity: place for place, identity in enumerate(species)}
    paths, found = [], []
    for identity, name in images.items():
        if identity not in labels or identity not in training:
            raise DataError(f"{folder}: image {identity} ({name}) is not in all of {', '.join(_FILES[2:])}")
        if labels[identity] not in numbers:
            raise DataError(
                f"{folder / _FILES[2]}: image {identity} has class {labels[identity]}, which classes.txt lacks"
            )
        if training[identity] not in ("0", "1"):
            raise DataError(f"{folder / _FILES[3]}: image {identity} has {training[identity]!r}; it takes 0 or 1")
        if (training[identity] == "1") == (split == "train"):
            paths.append(folder / "images" / name)
            found.append(numbers[labels[identity]])
    if not paths:
        raise DataError(f"{folder / _FILES[3]}: no image belongs to the {split} split")
    return paths, np.array(found, np.int64), classes


def _table(path: Path) -> dict[str, str]:
    """Values by id, in the order of the file."""
    table: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        identity, _, value = line.strip().partition(" ")
        if not value or identity in table:
            raise DataError(f"{path}:{number}: expected an id of its own and a value, found {line!r}")
        table[identity] = value
    return table


def load(
    root: str | Path | None,
    split: Literal["train", "test"],
    *,
    side: int,
    limit: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """The images of a split, resized so that the short side is `side` and cut to the middle square; (N, 3, side, side).

    limit: so many of them, spread evenly over the split and so over the classes; 0 is all. Raises DataError with every image that
    does not decode.
    """
    paths, labels, classes = read(root, split)
    if limit and limit < len(paths):
        chosen = np.linspace(0, len(paths) - 1, limit).round().astype(int)
        paths, labels = [paths[k] for k in chosen], labels[chosen]
    images = np.zeros((len(paths), 3, side, side), np.uint8)
    faults: list[str] = []

    def fill(number: int) -> None:
        try:
            images[number] = square(decode_rgb(paths[number]), side)
        except BadImageError as error:
            faults.append(str(error))

    with ThreadPoolExecutor(READERS) as pool:
        for number, _ in enumerate(pool.map(fill, range(len(paths))), start=1):
            if progress is not None and (number % 100 == 0 or number == len(paths)):
                progress(number, len(paths))
    if faults:
        raise DataError("\n".join([*sorted(faults)[:20], f"{len(faults)} images of CUB-200-2011 cannot be used"]))
    return ImageSet(
        images=torch.from_numpy(images), labels=torch.from_numpy(labels), classes=classes, name=f"CUB-200-2011 {split}"
    )


def departures(root: str | Path | None) -> Iterator[str]:
    """Yield in words where the lists have other numbers of images or species than the published ones. Raises DataError."""
    for split in ("train", "test"):
        paths, _, classes = read(root, split)
        yield from count_departure(split, len(paths), _COUNTS[split])
    yield from count_departure("classes.txt", len(classes), _SPECIES, what="species")
