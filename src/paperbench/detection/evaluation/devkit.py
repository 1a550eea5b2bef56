"""Ground truth as the VOC devkit scores it: annotations alone, without opening an image.

`data.voc` reads a devkit to train on and mends or refuses what would harm training. Here nothing is mended, so that the
numbers are the devkit's own: boxes stay as annotated, even where they leave the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from paperbench.data.detection import Record
from paperbench.data.faults import Faults
from paperbench.data.voc import CLASSES, parse, read_ids
from paperbench.errors import DataError


def read_truth(folder: Path, split: str, classes: Sequence[str] = ()) -> list[Record]:
    """The annotations of `ImageSets/Main/<split>.txt` below `folder` (VOCdevkit/VOC<year>), in its order.

    Boxes become continuous and count from 0: pixels a..b, both included, are the interval a-1..b. With `classes` given,
    objects of other classes are left out; otherwise the 20 of VOC are meant and any other is a fault. Raises `DataError` that
    names every fault by file and object, a missing folder and a missing split.
    """
    if not (folder / "ImageSets" / "Main").is_dir():
        raise DataError(f"{folder}: no ImageSets/Main in it; gt=DIR is the folder VOCdevkit/VOC<year>")
    labels = {name: label for label, name in enumerate(classes or CLASSES, start=1)}
    faults = Faults(f"{folder} ({split})", "error", remedy="Nothing was scored: correct the annotations")
    records = []
    for name in dict.fromkeys(read_ids(folder, split)):
        path = folder / "Annotations" / f"{name}.xml"
        tree = parse(path, faults)
        if tree is not None:
            records.append(_record(tree, name, path, labels, faults, others_are_faults=not classes))
    faults.finish(max(1, len(records)))  # at least 1: that message speaks of data.root
    return records


def _record(
    tree: Element, name: str, path: Path, labels: dict[str, int], faults: Faults, *, others_are_faults: bool
) -> Record:
    boxes: list[list[float]] = []
    kept: list[tuple[int, bool]] = []
    for number, item in enumerate(tree.findall("object"), start=1):
        class_name = (item.findtext("name") or "").strip()
        where = f"{path}, object {number} ({class_name or 'without a name'})"
        if class_name not in labels:
            if others_are_faults:
                near = get_close_matches(class_name, labels, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                faults.add("unknown class", where, f"{hint}classes=[...] scores a label set of one's own")
            continue
        texts = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        x1, y1, x2, y2 = (_number(text) for text in texts)
        if not (x1 <= x2 and y1 <= y2):  # false for NaN as well
            faults.add("no box", where, f"xmin, ymin, xmax, ymax read {', '.join(map(str, texts))}")
            continue
        boxes.append([x1 - 1, y1 - 1, x2, y2])
        kept.append((labels[class_name], (item.findtext("difficult") or "").strip() in ("1", "true")))
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(
        image_id=name,
        source=str(path),
        height=_pixels(tree.findtext("size/height")),
        width=_pixels(tree.findtext("size/width")),
        boxes=corners,
        labels=np.array([label for label, _ in kept], np.int64),
        difficult=np.array([difficult for _, difficult in kept], bool),
        crowd=np.zeros(len(kept), bool),
        area=np.prod(corners[:, 2:] - corners[:, :2], axis=1, dtype=np.float32),
    )


def _number(text: str | None) -> float:
    """The number a text spells; NaN for none."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _pixels(text: str | None) -> int:
    """A side of the image; 0 where the annotation does not say."""
    value = _number(text)
    return 0 if math.isnan(value) else int(value)
