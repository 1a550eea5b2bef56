"""Penn-Fudan pedestrians (Wang, Shi, Song, Shen, ACCV 2007): 170 photographs, 423 pedestrians in boxes.

Boxes come from the annotation texts, which count pixels from 1 with both corners included. `PedMasks` holds an image for each
photograph in which pixels of object k have the value k; it is read only by what needs masks.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet, Record, box_areas
from paperbench.data.faults import Faults, OnBadBox, examine_boxes, repairs, show_box
from paperbench.data.image_files import BadImageError, decode_values, inspect_all
from paperbench.data.layout import data_root, missing, read_text
from paperbench.data.pictures import decode_rgb, read_picture
from paperbench.errors import ConfigError, DataError

CLASSES: Final = ("pedestrian",)

_NUMBER = r"\s*(-?\d+)\s*"
_BOX: Final = re.compile(
    rf"^Bounding box for object\s+(\d+).*:\s*\({_NUMBER},{_NUMBER}\)\s*-\s*\({_NUMBER},{_NUMBER}\)", re.MULTILINE
)
_SIZE: Final = re.compile(r"^Image size \(X x Y x C\)\s*:\s*(\d+)\s*x\s*(\d+)", re.MULTILINE)
_COUNT: Final = re.compile(r"^Objects with ground truth\s*:\s*(\d+)", re.MULTILINE)


def _shuffled(names: list[str]) -> list[str]:
    """A fixed order, by a hash of the name, which depends on no library's random numbers."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def find(root: str | None) -> Path:
    """The folder with PNGImages and Annotation: `root/PennFudanPed` or `root` itself. Raises DataError."""
    base = data_root(root)
    for folder in (base / "PennFudanPed", base):
        if (folder / "PNGImages").is_dir() and (folder / "Annotation").is_dir():
            return folder
    raise missing("pennfudan", base, "PNGImages and Annotation were looked for")


def read(
    *, root: str | None = None, split: str, test_images: int = 50, on_bad_box: OnBadBox = "error", limit: int = 0
) -> DetectionSet:
    """The training or the held-back images, from `root/PennFudanPed` or `root` itself.

    split: `train` or `test`; the last `test_images` of a fixed shuffle of the file names are held back. limit: reads the
    first images of the split only; 0 reads all.
    Raises DataError for a folder that is not there and for faults; ConfigError if no image is left to train on.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; it takes 'train' or 'test'")
    folder = find(root)
    names = _shuffled([path.stem for path in (folder / "Annotation").glob("*.txt")])
    if not names:
        raise missing("pennfudan", data_root(root), f"{folder / 'Annotation'} holds no .txt")
    if test_images >= len(names):
        raise ConfigError(
            f"data.test_images={test_images} leaves nothing to train on: {folder} has {len(names)} images"
        )
    names = names[:-test_images] if split == "train" else names[-test_images:]
    names = names[:limit] if limit else names
    paths = [folder / "PNGImages" / f"{name}.png" for name in names]

    faults = Faults(f"{folder} ({split})", on_bad_box)
    records: list[Record] = []
    numbers: list[NDArray[np.int64]] = []
    used: list[Path] = []
    repaired: Counter[str] = Counter()
    for name, path, header in zip(names, paths, inspect_all(paths), strict=True):
        if isinstance(header, BadImageError):
            faults.add(header.reason, str(header.path), header.detail)
            continue
        annotation = folder / "Annotation" / f"{name}.txt"
        read_record = _record(annotation, header.size, faults, clip=on_bad_box == "clip")
        if read_record is not None:
            record, clipped, own = read_record
            records.append(record)
            numbers.append(own)
            used.append(path)
            repaired.update(clipped)
    return DetectionSet(
        name="pennfudan",
        split=split,
        classes=CLASSES,
        records=records,
        decode=lambda index: decode_rgb(used[index]),
        picture=lambda index: read_picture(used[index], exif="ignore"),
        files=used,
        masks=lambda index: _masks(
            folder / "PedMasks" / f"{used[index].stem}_mask.png", records[index], numbers[index]
        ),
        dropped=faults.finish(len(records)),
        repaired=dict(repaired),
    )


def _record(
    annotation: Path, header: tuple[int, int], faults: Faults, *, clip: bool
) -> tuple[Record, dict[str, int], NDArray[np.int64]] | None:
    """The record of one annotation file, how many of its boxes were clipped, by reason, and the numbers of its objects; None for
    a file that cannot be used."""
    text = read_text(annotation)
    size, count = _SIZE.search(text), _COUNT.search(text)
    found = _BOX.findall(text)
    if size is None or count is None or len(found) != int(count[1]):
        detail = f"announces {count[1]} objects and has {len(found)}" if count else "no size or number of objects in it"
        faults.add("half-written annotation", str(annotation), detail)
        return None
    height, width = header
    if (int(size[2]), int(size[1])) != header:
        faults.add(
            "size contradicts the image", str(annotation), f"{size[1]} x {size[2]}, the image has {width} x {height}"
        )
        return None
    corners = np.array([[float(value) for value in row[1:]] for row in found], np.float64).reshape(-1, 4)
    sizes = np.tile(np.array([header]), (len(found), 1))
    boxes, reasons, clipped = examine_boxes(corners, sizes, first_pixel=1, clip=clip)
    for row, reason, raw in zip(found, reasons, corners, strict=True):
        if reason:
            faults.add(reason, f"{annotation}, object {row[0]}", f"{show_box(raw)} in {width} x {height}")
    sound = np.array([reason is None for reason in reasons], bool)
    boxes = boxes[sound]
    record = Record(
        image_id=annotation.stem,
        source=str(annotation),
        height=height,
        width=width,
        boxes=boxes,
        labels=np.ones(len(boxes), np.int64),
        difficult=np.zeros(len(boxes), bool),
        crowd=np.zeros(len(boxes), bool),
        area=box_areas(boxes),
    )
    numbers = np.array([int(row[0]) for row in found], np.int64)
    return record, repairs(clipped), numbers[sound]


def _masks(path: Path, record: Record, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The pixels of each object. Raises DataError for an image that is missing, damaged, of another size, or lacks an object."""
    values = decode_values(path)
    if values.shape != (record.height, record.width):
        raise DataError(
            f"{path}: {values.shape[1]} x {values.shape[0]} pixels, the photograph has {record.width} x {record.height}"
        )
    masks = values[None] == numbers[:, None, None]
    empty = numbers[~masks.any((1, 2))]
    if len(empty):
        raise DataError(f"{path}: no pixel has the value {empty[0]}, which is an object of {record.source}")
    return masks
