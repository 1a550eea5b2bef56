"""PASCAL VOC devkits (Everingham et al., IJCV 2010), and folders of one's own that are laid out like one.

VOC's XML counts pixels from 1 and includes both corners: a box over a whole image of 500 x 375 reads 1, 1, 500, 375 and
becomes 0, 0, 500, 375. XML is parsed without entities, document types or external references.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from paperbench.data.detection import DetectionSet, Record, box_areas
from paperbench.data.faults import REPAIRED, UNKNOWN_CLASS, Faults, OnBadBox, examine_boxes, show_box
from paperbench.data.image_files import BadImageError, inspect_all
from paperbench.data.layout import data_root, missing, read_text
from paperbench.data.pictures import decode_rgb
from paperbench.errors import DataError

CLASSES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_UNREADABLE: Final = "unreadable annotation"


def find(root: str | None, year: str) -> Path:
    """The folder VOC<year>: below a devkit, in a devkit, or `root` itself. Raises DataError."""
    base = data_root(root)
    devkit = Path("VOCdevkit") / f"VOC{year}"
    for folder in (base / devkit, base / f"VOC{year}", base / "TrainVal" / devkit, base):
        if (folder / "ImageSets" / "Main").is_dir():
            return folder
    raise missing("voc", base, f"{devkit}/ImageSets/Main was looked for (data.year={year})")


def read_ids(folder: Path, split: str) -> list[str]:
    """The image names of `ImageSets/Main/<split>.txt`, as listed. Raises DataError naming the splits there are."""
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        # Lists of one class are named <class>_<split>; they are no splits.
        there = sorted(path.stem for path in listing.parent.glob("*.txt") if "_" not in path.stem)
        raise DataError(
            f"{listing}: no such split; there are: {', '.join(there) or 'none'} "
            "(data.train_split and data.test_split choose)"
        )
    ids = [line.split()[0] for line in read_text(listing).splitlines() if line.strip()]
    if not ids:
        raise DataError(f"{listing}: lists no image; the file is empty or half-written")
    return ids


def read(
    *,
    root: str | None = None,
    year: str = "2007",
    split: str,
    classes: Sequence[str] = (),
    zero_based: bool = False,
    on_bad_box: OnBadBox = "error",
    limit: int = 0,
) -> DetectionSet:
    """The images that `ImageSets/Main/<split>.txt` lists, in its order; image ids are the names in it.

    classes: a label set of one's own, in the order of the labels; empty for VOC's 20. zero_based: the XML counts pixels
    from 0, both corners included. limit: reads the first images only; 0 reads all.
    Raises DataError: see `data.faults` for what `on_bad_box` decides; a missing devkit or split, and XML with entities
    or a document type, are errors always.
    """
    folder = find(root, year)
    faults = Faults(f"{folder} ({split})", on_bad_box)
    ids: dict[str, Path] = {}
    for name in read_ids(folder, split):
        if limit and len(ids) == limit:
            break
        if name in ids:
            faults.add("listed twice", f"{folder / 'ImageSets' / 'Main' / f'{split}.txt'}, {name}", "")
        else:
            ids[name] = _image_path(folder, name)

    label_set = tuple(classes) or CLASSES
    labels = {name: label for label, name in enumerate(label_set, start=1)}
    first_pixel = 0 if zero_based else 1
    records: list[Record] = []
    paths: list[Path] = []
    repaired = 0
    for (name, path), header in zip(ids.items(), inspect_all(list(ids.values())), strict=True):
        annotation = folder / "Annotations" / f"{name}.xml"
        if isinstance(header, BadImageError):
            faults.add(header.reason, str(header.path), header.detail)
            continue
        tree = parse(annotation, faults)
        if tree is None or not _size_agrees(tree, header.size, annotation, faults):
            continue
        record, clipped = _record(tree, name, annotation, header.size, labels, first_pixel, faults)
        records.append(record)
        paths.append(path)
        repaired += clipped
    return DetectionSet(
        name="voc",
        split=split,
        classes=label_set,
        records=records,
        decode=lambda index: decode_rgb(paths[index]),
        dropped=faults.finish(len(records)),
        repaired={REPAIRED: repaired} if repaired else {},
    )


def _image_path(folder: Path, name: str) -> Path:
    candidates = [folder / "JPEGImages" / f"{name}{suffix}" for suffix in _SUFFIXES]
    return next((path for path in candidates if path.is_file()), candidates[0])


def parse(path: Path, faults: Faults) -> Element | None:
    """The `annotation` element of an XML file; None, and a fault, for a file that is missing, empty or cut short.

    Raises DataError for entities, document types and external references: no annotation needs them.
    """
    try:
        tree = fromstring(path.read_bytes(), forbid_dtd=True)
    except FileNotFoundError:
        faults.add("missing annotation", str(path), "the image is listed and this file does not exist")
        return None
    except DefusedXmlException as error:
        raise DataError(
            f"{path}: refused: it declares a document type or entities ({type(error).__name__}), which can make a parser "
            "read other files or exhaust the memory; remove the declaration"
        ) from error
    except (ParseError, ValueError, LookupError, OSError) as error:
        empty = path.is_file() and path.stat().st_size == 0
        faults.add(_UNREADABLE, str(path), "the file is empty" if empty else f"half-written or no XML: {error}")
        return None
    if tree.tag != "annotation":
        faults.add(_UNREADABLE, str(path), f"its root is <{tree.tag}>, not <annotation>")
        return None
    return tree


def _size_agrees(tree: Element, header: tuple[int, int], path: Path, faults: Faults) -> bool:
    width, height = tree.findtext("size/width"), tree.findtext("size/height")
    if width is None and height is None:
        return True
    if (_number(height), _number(width)) == header:
        return True
    faults.add("size contradicts the image", str(path), f"{width} x {height}, the image has {header[1]} x {header[0]}")
    return False


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _record(
    tree: Element,
    name: str,
    path: Path,
    header: tuple[int, int],
    labels: dict[str, int],
    first_pixel: int,
    faults: Faults,
) -> tuple[Record, int]:
    """The record of one file, and how many of its boxes were clipped."""
    found: list[list[float]] = []
    used: list[tuple[int, bool, str]] = []
    for number, item in enumerate(tree.findall("object"), start=1):
        label_name = (item.findtext("name") or "").strip()
        where = f"{path}, object {number} ({label_name or 'without a name'})"
        if label_name not in labels:
            faults.add(UNKNOWN_CLASS, where, _unknown(label_name, list(labels)))
            continue
        texts = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        corners = [value for value in map(_number, texts) if value is not None]
        if len(corners) < 4:
            faults.add("no box", where, f"xmin, ymin, xmax, ymax read {', '.join(map(str, texts))}")
            continue
        found.append(corners)
        used.append((labels[label_name], (item.findtext("difficult") or "").strip() in ("1", "true"), where))

    raw = np.array(found, np.float64).reshape(-1, 4)
    boxes, reasons, clipped = examine_boxes(raw, np.tile(np.array([header]), (len(raw), 1)), first_pixel=first_pixel)
    for (_, _, where), reason, corners in zip(used, reasons, raw, strict=True):
        if reason:
            faults.add(reason, where, f"{show_box(corners)} in an image of {header[1]} x {header[0]}")
    sound = [index for index, reason in enumerate(reasons) if reason is None]
    boxes = boxes[sound]
    record = Record(
        image_id=name,
        source=str(path),
        height=header[0],
        width=header[1],
        boxes=boxes,
        labels=np.array([used[index][0] for index in sound], np.int64),
        difficult=np.array([used[index][1] for index in sound], bool),
        crowd=np.zeros(len(sound), bool),
        area=box_areas(boxes),
    )
    return record, int(clipped.sum())


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known[:8])}{' …' if len(known) > 8 else ''}"
    return f"'{name}'; {hint}; data.classes=[…] gives a label set of one's own"
