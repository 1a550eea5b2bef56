"""Street View House Numbers, format 1 (Netzer et al. 2011): photographs with a box around every digit.

`train.tar.gz`, `extra.tar.gz` and `test.tar.gz` unpack to a folder each with `1.png`, `2.png`, ... and `digitStruct.mat`, a MATLAB
7.3 file: HDF5 with a reference to the name and to the boxes of each image. A crop holds the whole number with some context
(Goodfellow et al., arXiv 1312.6082, section 5.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from paperbench.data.image_files import READERS
from paperbench.data.image_sets import LONGEST, NONE, NumberSet
from paperbench.data.layout import count_departure, data_root, missing
from paperbench.errors import DataError

Split = Literal["train", "extra", "test"]
ANNOTATIONS: Final = "digitStruct.mat"
TOO_LONG: Final = f"more than {LONGEST} digits"
_COUNTS: Final = {"train": 33_402, "extra": 202_353, "test": 13_068}
_FIELDS: Final = ("label", "left", "top", "width", "height")
_REMEDY: Final = "remove the folder and run `paperbench data get svhn` again"


@dataclass(frozen=True)
class House:
    """One image: its file, its digits 0 to 9 from the left, and the box around all of them, (4,) x1, y1, x2, y2 in pixels."""

    file: Path
    digits: tuple[int, ...]
    box: tuple[float, float, float, float]


def find(root: str | Path | None, split: Split) -> Path:
    """The folder of a split, `root/svhn/<split>`. Raises DataError."""
    folder = data_root(root) / "svhn" / split
    if not (folder / ANNOTATIONS).is_file():
        raise missing("svhn", data_root(root), f"svhn/{split}/{ANNOTATIONS} was looked for")
    return folder


def read(folder: Path, *, limit: int = 0) -> list[House]:
    """The annotations of a split, in the order of the file; only the first `limit` unless it is 0.

    Raises DataError naming the file, and the image in it, for annotations that are damaged or make no sense.
    """
    import h5py

    path = folder / ANNOTATIONS
    try:
        with h5py.File(path, "r") as file:
            table: Any = file["digitStruct"]
            names, boxes = (np.asarray(table[field]).ravel() for field in ("name", "bbox"))
            if len(names) != len(boxes):
                raise DataError(f"{path}: {len(names)} names and {len(boxes)} sets of boxes; {_REMEDY}")
            count = min(limit or len(names), len(names))
            return [_house(folder, file, names[k], boxes[k], k) for k in range(count)]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged, or no file of SVHN's: {error}; {_REMEDY}") from error


def departures(root: str | Path | None, splits: Sequence[Split]) -> Iterator[str]:
    """Yield in words which of `splits` has, by its annotations, another number of images than published. Raises DataError."""
    import h5py

    for split in splits:
        path = find(root, split) / ANNOTATIONS
        try:
            with h5py.File(path, "r") as file:
                table: Any = file["digitStruct"]
                found = int(np.size(table["name"]))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: damaged, or no file of SVHN's: {error}; {_REMEDY}") from error
        yield from count_departure(split, found, _COUNTS[split])


def _house(folder: Path, file: Any, name: Any, boxes: Any, number: int) -> House:
    image = "".join(chr(code) for code in np.asarray(file[name]).ravel())
    where = f"{folder / ANNOTATIONS}, image {number + 1} ({image})"
    fields = {field: _numbers(file, file[boxes][field]) for field in _FIELDS}
    if not image.endswith(".png") or "/" in image or len({len(values) for values in fields.values()}) != 1:
        raise DataError(f"{where}: no PNG name, or fields of unequal length; {_REMEDY}")
    labels = fields["label"]
    if not len(labels) or not ((labels >= 1) & (labels <= 10) & (labels == labels.round())).all():
        raise DataError(f"{where}: labels {labels.tolist()}; digits are 1 to 9, and 10 for zero")
    left, top = fields["left"], fields["top"]
    right, bottom = left + fields["width"], top + fields["height"]
    if not ((right > left) & (bottom > top)).all():
        raise DataError(f"{where}: a box without area")
    order = np.argsort(left, kind="stable")
    digits = tuple(int(label) % 10 for label in labels[order])
    return House(folder / image, digits, (left.min(), top.min(), right.max(), bottom.max()))


def _numbers(file: Any, field: Any) -> NDArray[np.float64]:
    """The values of a field: one number as it is, several as references to a number each."""
    content = np.asarray(field).ravel()
    if content.dtype == object:
        return np.array([float(np.asarray(file[reference]).ravel()[0]) for reference in content])
    return content.astype(np.float64)


def load(
    root: str | Path | None,
    splits: tuple[Split, ...],
    *,
    size: int,
    context: float,
    limit: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NumberSet:
    """The images of `splits`, one after the other, cropped to `size` x `size`.

    context: how much larger the crop is than the box around the number, in each direction; what would lie outside the image is
    left away. Numbers of more than five digits are left out and counted. Raises DataError with every image that does not decode.
    """
    houses = [house for split in splits for house in read(find(root, split), limit=limit)]
    left_out = Counter(TOO_LONG for house in houses if len(house.digits) > LONGEST)
    used = [house for house in houses if len(house.digits) <= LONGEST][: limit or None]
    images = np.zeros((len(used), 3, size, size), np.uint8)
    faults: list[str] = []

    def fill(number: int) -> None:
        try:
            images[number] = _crop(used[number], size, context)
        except (OSError, SyntaxError, ValueError) as error:
            faults.append(f"{used[number].file}: cannot be read: {error}")

    with ThreadPoolExecutor(READERS) as pool:
        for number, _ in enumerate(pool.map(fill, range(len(used))), start=1):
            if progress is not None and (number % 1000 == 0 or number == len(used)):
                progress(number, len(used))
    if faults:
        raise DataError("\n".join([*sorted(faults)[:20], f"{len(faults)} images of SVHN cannot be read; {_REMEDY}"]))
    labels = np.full((len(used), LONGEST), NONE, np.int64)
    for row, house in zip(labels, used, strict=True):
        row[: len(house.digits)] = house.digits
    return NumberSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        name=f"SVHN {'+'.join(splits)}",
        left_out=dict(left_out),
    )


def _crop(house: House, size: int, context: float) -> NDArray[np.uint8]:
    """(3, size, size) uint8 around the number."""
    x1, y1, x2, y2 = house.box
    wide, high = context * (x2 - x1) / 2, context * (y2 - y1) / 2
    with Image.open(house.file) as image:
        box = (max(0, x1 - wide), max(0, y1 - high), min(image.width, x2 + wide), min(image.height, y2 + high))
        if box[2] - box[0] < 1 or box[3] - box[1] < 1:
            raise ValueError(f"the number's box {house.box} lies outside of {image.width} x {image.height} pixels")
        resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized).transpose(2, 0, 1)
