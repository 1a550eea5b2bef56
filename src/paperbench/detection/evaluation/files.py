"""Detections and ground truth on disk: the VOC devkit's annotations and `comp4_det_<split>_<class>.txt`, COCO's results JSON.

The devkit's line is `image score x1 y1 x2 y2` with corners in pixels that count from 1 and belong to the box. Boxes of a net are
continuous and count from 0, so what is written has x1 and y1 moved by one: the interval 0..W is pixels 1..W. What is read
keeps the devkit's corners, for its overlaps with widths of x2 - x1 + 1 (`voc.evaluate(inclusive=True)`) to the last bit, and the
order of the file, which decides between equal scores.

`data.voc` reads a devkit to train on and repairs or refuses what would harm training. Here nothing is repaired, so that the numbers
are the devkit's own: boxes stay as annotated, even where they leave the image. Both read objects by `data.voc.objects_of`.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from paperbench.data.detection import Record
from paperbench.data.faults import Faults
from paperbench.data.held_out import Part
from paperbench.data.layout import read_text
from paperbench.data.values import as_stored, number_of
from paperbench.data.voc import CLASSES, VocObject, objects_of, parse
from paperbench.data.voc_layout import devkit_in, unlisted_in
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.masks import as_runs, in_image
from paperbench.errors import DataError

_MOST_FAULTS = 20
_UNSAFE = re.compile(r'[/\\:*?"<>|%\x00-\x1f]')
"""Characters of a class name that a file name cannot have somewhere; written as in an address, such as %2F."""
_TO_PIXELS = np.array([1.0, 1.0, 0.0, 0.0])


def voc_file(directory: Path, split: str, name: str) -> Path:
    """Where the devkit keeps one class's detections (competition 4: detection with any training data).

    A character of the class's name that cannot be part of a file's is written as `%2F`.
    """
    safe = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", name)
    return directory / f"comp4_det_{split}_{safe}.txt"


def write_voc(
    directory: Path, split: str, image_ids: Sequence[str], detections: Sequence[Detections], classes: Sequence[str]
) -> list[Path]:
    """One file per class, also for a class without detections; `detections[i]` belongs to `image_ids[i]`.

    Scores are written to nine digits, which single precision survives; corners to a millionth of a pixel.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = [[] for _ in classes]
    for image, found in zip(image_ids, detections, strict=True):
        corners = found.boxes.astype(np.float64) + _TO_PIXELS
        for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), corners.tolist(), strict=True):
            numbers = " ".join(f"{value:.6f}" for value in box)
            lines[label - 1].append(f"{image} {score:.9g} {numbers}\n")
    paths = [voc_file(directory, split, name) for name in classes]
    for path, text in zip(paths, lines, strict=True):
        path.write_text("".join(text), encoding="utf-8")
    return paths


def read_voc(directory: Path, split: str, image_ids: Sequence[str], classes: Sequence[str]) -> list[Detections]:
    """The detections of every image of the split, in the order of `image_ids`, within one image in the order of files
    and lines. An empty file is a class that was never detected. Boxes are the devkit's corners, which belong to the box and
    count from 1; `order` holds the lines' own.

    Raises `DataError` naming file and line for every fault: a class without its file, a line without six fields, a
    number that is none, an image that is not in the split.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; dt=DIR is the folder of comp4_det_{split}_<class>.txt")
    paths = [as_stored(voc_file(directory, split, name)) for name in classes]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(_name_missing(directory, missing, len(paths)))

    index = {image: row for row, image in enumerate(image_ids)}
    rows: list[int] = []
    labels: list[int] = []
    numbers: list[list[float]] = []
    faults: list[str] = []
    for label, path in enumerate(paths, start=1):
        for line_number, line in enumerate(read_text(path).split("\n"), start=1):
            fields = line.strip().rsplit(None, 5)
            if not fields:
                continue
            try:
                values = _parse(line, fields, index)
            except ValueError as fault:
                faults.append(f"{path}:{line_number}: {fault}")
                continue
            rows.append(index[fields[0]])
            labels.append(label)
            numbers.append(values)
    if faults:
        more = [f"... and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise DataError("\n".join(faults[:_MOST_FAULTS] + more))
    return _group(rows, labels, numbers, images=len(image_ids))


def write_coco(
    path: Path,
    image_ids: Sequence[int | str],
    category_ids: Sequence[int | str],
    detections: Sequence[Detections],
    sizes: Sequence[tuple[int, int]] | None = None,
) -> None:
    """COCO's results format; label k becomes `category_ids[k - 1]` and boxes x, y, width, height, to four decimals.

    With `sizes`, (height, width) of each image, detections that have masks carry them as `segmentation`.
    """
    entries = []
    for number, (image, found) in enumerate(zip(image_ids, detections, strict=True)):
        boxes = found.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        for place, (label, score) in enumerate(zip(found.labels.tolist(), found.scores.tolist(), strict=True)):
            rounded = [round(value, 4) for value in boxes[place].tolist()]
            entry = {"image_id": image, "category_id": category_ids[label - 1], "bbox": rounded, "score": score}
            if sizes is not None and found.masks is not None:
                entry["segmentation"] = as_runs(in_image(found.masks[place], found.boxes[place], *sizes[number]))
            entries.append(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")


def _parse(line: str, fields: list[str], index: dict[str, int]) -> list[float]:
    """Score and corners of one line, as written; `ValueError` says what is wrong with it. The image's name may have blanks."""
    if len(fields) != 6:
        raise ValueError(f"{len(line.split())} fields, expected 6: image score x1 y1 x2 y2")
    if fields[0] not in index:
        near = get_close_matches(fields[0], index, n=1)
        raise ValueError(f"image {fields[0]!r} is not in the split" + (f"; did you mean {near[0]!r}?" if near else ""))
    values = []
    for name, field in zip(("score", "x1", "y1", "x2", "y2"), fields[1:], strict=True):
        value = number_of(field)
        if value is None or not math.isfinite(value):
            raise ValueError(f"{name} is {field!r}, not a finite number")
        values.append(value)
    _, x1, y1, x2, y2 = values
    if x2 < x1 - 1 or y2 < y1 - 1:  # pixels a..a are one wide, so corners may cross by less than a pixel
        raise ValueError(f"corners ({x1:g}, {y1:g}) and ({x2:g}, {y2:g}) are inverted")
    return values


def _group(rows: list[int], labels: list[int], numbers: list[list[float]], *, images: int) -> list[Detections]:
    image = np.array(rows, np.int64)
    values = np.array(numbers, np.float64).reshape(-1, 5)
    order = np.argsort(image, kind="stable")
    bounds = np.searchsorted(image[order], np.arange(images + 1))
    boxes, scores, label = values[order, 1:], values[order, 0], np.array(labels, np.int64)[order]
    spans = [slice(bounds[row], bounds[row + 1]) for row in range(images)]
    return [Detections(boxes=boxes[span], scores=scores[span], labels=label[span], order=order[span]) for span in spans]


def _name_missing(directory: Path, missing: list[Path], expected: int) -> str:
    if len(missing) == expected:
        present = sorted(path.name for path in directory.glob("*_det_*.txt"))
        shown = ", ".join(present[:3]) + (", ..." if len(present) > 3 else "")
        seen = f"it holds {shown}" if present else "it holds no *_det_*.txt"
        return f"{directory}: none of the {expected} files such as {missing[0].name}; {seen}. Check dt= and split="
    names = ", ".join(path.name for path in missing)
    return f"{directory}: no {names}. A class that was never detected needs an empty file; classes=[...] scores fewer"


def read_truth(
    folder: Path, split: str, classes: Sequence[str] = (), *, zero_based: bool = False, part: Part | None = None
) -> list[Record]:
    """The annotations of `ImageSets/Main/<split>.txt` below `folder` (VOCdevkit/VOC<year>), in its order; of a folder without lists
    those of its XML files, see `data.voc_layout`.

    Boxes are the devkit's corners: pixels that belong to the box and count from 1; annotations that count from 0 are moved. part:
    the images that are read; None is all of the split. With `classes` given, objects of other classes are left out; otherwise the
    20 of VOC are meant and any other is a fault. Raises `DataError` that names every fault by file and object, a missing folder and
    a missing split.
    """
    layout = devkit_in(folder) or unlisted_in(folder)
    if layout is None:
        raise DataError(
            f"{folder}: no ImageSets/Main in it and no XML file of an image; gt=DIR is the folder VOCdevkit/VOC<year>, or one with "
            "an XML file for each image"
        )
    labels = {name: label for label, name in enumerate(classes or CLASSES, start=1)}
    faults = Faults(f"{folder} ({split})", "error", remedy="Nothing was scored: correct the annotations")
    records = []
    names = list(dict.fromkeys(layout.names(split)))
    within = part.of(names, layout.where(split)) if part else [True] * len(names)
    for name in itertools.compress(names, within):
        path = layout.annotation(name)
        tree = parse(path, faults)
        if tree is not None:
            objects = objects_of(tree, path, labels, faults, unknown=None if classes else _unknown(labels))
            records.append(_record(tree, objects, name, path, faults, first_pixel=0 if zero_based else 1))
    faults.finish(max(1, len(records)))  # at least 1: that message speaks of data.root
    return records


def _unknown(labels: Mapping[str, int]) -> Callable[[str], str]:
    def detail(name: str) -> str:
        near = get_close_matches(name, labels, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{hint}classes=[...] scores a label set of one's own"

    return detail


def _record(
    tree: Element, objects: Sequence[VocObject], name: str, path: Path, faults: Faults, *, first_pixel: int
) -> Record:
    kept: list[VocObject] = []
    for item in objects:
        x1, y1, x2, y2 = item.corners
        if x1 <= x2 and y1 <= y2 and np.isfinite(item.corners).all():
            kept.append(item)
        else:
            read = ", ".join(f"{value:g}" for value in item.corners)
            faults.add("no box", item.where, f"xmin, ymin, xmax, ymax read {read}")
    corners = np.array([item.corners for item in kept], np.float64).reshape(-1, 4) + (1 - first_pixel)
    return Record(
        image_id=name,
        source=str(path),
        height=_pixels(tree.findtext("size/height")),
        width=_pixels(tree.findtext("size/width")),
        boxes=corners,
        labels=np.array([item.label for item in kept], np.int64),
        difficult=np.array([item.difficult for item in kept], bool),
        crowd=np.zeros(len(kept), bool),
        area=np.prod(corners[:, 2:] - corners[:, :2] + 1, axis=1),
    )


def _pixels(text: str | None) -> int:
    """A side of the image; 0 where the annotation does not say."""
    value = number_of(text)
    return 0 if value is None or not math.isfinite(value) else int(value)
