"""Files of the YOLO layout, read strictly: training, evaluation and `paperbench data check` share this reader.

A line of a label file is a class, by number or by name, and either a box (centre x and y, width, height) or a polygon (x and y of
three points or more), all as shares of the image's width and height; one line an object. In a file of detections the confidence
stands last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paperbench.config.suggest import nearest
from paperbench.data.faults import BAD_VALUE, NOT_FINITE, UNKNOWN_CLASS, Faults
from paperbench.data.layout import read_text
from paperbench.data.values import number_of, shown
from paperbench.errors import DataError

Kind = Literal["box", "polygon"]

WRONG_COUNT: Final = "wrong number of columns"
REPEATED: Final = "a line that stands there twice"
MIXED: Final = "a box among polygons"
_BOX: Final = 4
_SMALLEST_POLYGON: Final = 6
_PIXELS: Final = 2.0
"""Shares of an image above which coordinates are taken for pixels in what is said of them."""


class YoloObject(NamedTuple):
    """A line: its class number, and either the four numbers of a box or x and y of each point of a polygon, as shares; the
    confidence of a detection; and where it stands."""

    number: int
    kind: Kind
    values: tuple[float, ...]
    confidence: float
    where: str

    def corners(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return x1, y1, x2, y2 in pixels of an image of that size; of a polygon, those of its extent."""
        if self.kind == "polygon":
            x, y = self.values[::2], self.values[1::2]
            return min(x) * width, min(y) * height, max(x) * width, max(y) * height
        x, y, across, down = self.values
        return (x - across / 2) * width, (y - down / 2) * height, (x + across / 2) * width, (y + down / 2) * height

    def polygon(self, height: int, width: int) -> list[float]:
        """Return x and y of each point in turn, in pixels, within the image; empty for a box."""
        if self.kind == "box":
            return []
        sizes = (float(width), float(height))
        return [min(max(value * sizes[k % 2], 0.0), sizes[k % 2]) for k, value in enumerate(self.values)]

    @property
    def hint(self) -> str:
        """Text for a message about a place outside the image: coordinates that look like pixels are named so."""
        pixels = max(map(abs, self.values)) > _PIXELS
        return "; the numbers look like pixels: divide x by the image's width and y by its height" if pixels else ""


def area_of(points: Sequence[float]) -> float:
    """Area of a polygon in the square of its unit (the shoelace formula); points are x and y in turn."""
    corners: NDArray[np.float64] = np.asarray(points, np.float64).reshape(-1, 2)
    x, y = corners.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def read_labels(path: Path, classes: Mapping[int, str], faults: Faults, *, keypoints: int = 0) -> list[YoloObject]:
    """The objects of a label file, in its order; a fault, by line, for each line that is none.

    classes: names by number; a class that is not among them is a fault. keypoints: numbers behind the box that are left out.
    A box in a file of polygons is a fault, since it has no mask, and so is a line that repeats another.
    """
    found = [
        item
        for line, text in _lines(path, faults)
        if (item := _parse(text, f"{path}:{line}", classes, faults, extra=keypoints, confidence=False))
    ]
    mixed = len({item.kind for item in found}) == 2
    seen: set[tuple[int, tuple[float, ...]]] = set()
    kept = []
    for item in found:
        key = (item.number, item.values)
        if mixed and item.kind == "box":
            faults.add(MIXED, item.where, "other lines of the file are polygons: write its outline, or boxes alone")
        elif key in seen:
            faults.add(REPEATED, item.where, "the same class and numbers as a line before; take it out")
        else:
            kept.append(item)
        seen.add(key)
    return kept


def read_detections(path: Path, classes: Mapping[int, str], faults: Faults) -> list[YoloObject]:
    """The detections of one image, in the order of the file; a fault, by line, for each line that is none."""
    return [
        item
        for line, text in _lines(path, faults)
        if (item := _parse(text, f"{path}:{line}", classes, faults, extra=0, confidence=True))
    ]


def highest_number(path: Path, most: int) -> int:
    """The highest class number below `most` in a label file; -1 where none can be read."""
    try:
        first = (line.split()[0] for line in read_text(path).split("\n") if line.strip())
        return max(
            (number for text in first if (number := _class_number(text)) is not None and number < most), default=-1
        )
    except DataError:
        return -1


def looks_like_labels(path: Path) -> bool:
    """False for a text file whose first line is no line of labels, such as a list of names or of images."""
    try:
        lines = [line for line in read_text(path).split("\n") if line.strip()]
    except DataError:
        return False
    fields = lines[0].split() if lines else []
    return not lines or (len(fields) > _BOX and all(number_of(part) is not None for part in fields[-_BOX:]))


def _lines(path: Path, faults: Faults) -> list[tuple[int, str]]:
    try:
        text = read_text(path)
    except DataError as error:
        faults.add("unreadable label file", str(path), str(error).partition(": ")[2])
        return []
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _parse(
    text: str, where: str, classes: Mapping[int, str], faults: Faults, *, extra: int, confidence: bool
) -> YoloObject | None:
    named, fields = _class_and_rest(text.split())
    numbers = [number_of(part) for part in fields]
    number = _number_of_class(named, classes)
    wrong = [part for part, value in zip(fields, numbers, strict=True) if value is None]
    if number is None and "," in named:
        wrong = [part for part in named.split() if "," in part]
    if wrong:
        faults.add(BAD_VALUE, where, f"{shown(wrong[0])} is no number; commas do not stand in label files")
        return None
    values = [number for number in numbers if number is not None]
    own = values[: len(values) - extra - confidence]
    counted = len(own) == _BOX or (not extra and len(own) >= _SMALLEST_POLYGON and len(own) % 2 == 0)
    if len(values) < _BOX + extra + confidence or not counted:
        faults.add(WRONG_COUNT, where, _wrong_count(1 + len(values), extra=extra, confidence=confidence))
        return None
    if not all(map(math.isfinite, values)):
        faults.add(NOT_FINITE, where, text.strip())
        return None
    if number is None:
        faults.add(UNKNOWN_CLASS, where, _unknown_class(named, classes))
        return None
    return YoloObject(
        number=number,
        kind="box" if len(own) == _BOX else "polygon",
        values=tuple(own),
        confidence=values[-1] if confidence else 1.0,
        where=f"{where} ({classes[number]})",
    )


def _wrong_count(count: int, *, extra: int, confidence: bool) -> str:
    if confidence:
        need = "6 (class, centre x and y, width, height, confidence), or class, 3 points or more, confidence"
        hint = "; no confidence? write it last (save_conf=True)" if count == 1 + _BOX else ""
    elif extra:
        need, hint = f"{1 + _BOX + extra}: class, box and the {extra} numbers of kpt_shape", ""
    else:
        need = "5 (class, centre x and y, width, height), or class and x and y of 3 points or more"
        hint = "; is the last a confidence? Then these are detections, not labels" if count == 2 + _BOX else ""
    return f"{count} numbers, expected {need}{hint}"


def _class_number(text: str) -> int | None:
    value = number_of(text)
    return int(value) if value is not None and value >= 0 and float(value).is_integer() else None


def _class_and_rest(fields: list[str]) -> tuple[str, list[str]]:
    """The first column, which is a number or a name that may have blanks, and the others."""
    count = 1
    if number_of(fields[0]) is None:
        count = next((k for k, part in enumerate(fields) if number_of(part) is not None), 1)
    return " ".join(fields[:count]), fields[count:]


def _number_of_class(text: str, classes: Mapping[int, str]) -> int | None:
    """The number of a class that is named by number or, what is no number, by name; None where there is none."""
    if number_of(text) is None:
        return next((number for number, name in classes.items() if " ".join(name.split()) == text), None)
    number = _class_number(text)
    return number if number in classes else None


def _unknown_class(text: str, classes: Mapping[int, str]) -> str:
    if number_of(text) is not None:
        return f"{text}; the data have {_known(classes)}"
    near = nearest(text, classes.values())
    remedy = f"; nearest: {near[0]}" if near else ""
    if not classes:
        remedy = ": name them in data.yaml or with data.classes, in the order of their numbers"
    return f"{shown(text)}; the data have {_known(classes)}{remedy}"


def _known(classes: Mapping[int, str]) -> str:
    names = [f"{number} {name}" if str(number) != name else name for number, name in classes.items()]
    shown_names = ", ".join(names[:8]) + (f" … {names[-1]}" if len(names) > 8 else "")
    return f"the classes {shown_names}" if names else "no class"
