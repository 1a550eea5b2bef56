"""Content of COCO's JSON files, read strictly: training, evaluation and `paperbench data check` share this reader.

A value of another type than COCO's is a fault that is named by file, entry, key and value: nothing is guessed, since a flag "0"
in quotes counts as true in most programs. `area` and `iscrowd` may be absent or null; whole numbers may be written as 96.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paperbench.config import unique_keys
from paperbench.data.faults import BAD_VALUE, UNKNOWN_CLASS, Faults
from paperbench.data.layout import read_text
from paperbench.data.values import class_name, flag, name_of, real, shown, whole
from paperbench.errors import DataError

Id = int | str
_PARTS: Final = ("images", "annotations", "categories")


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """A file of annotations: `images` and `annotations` as they stand there; category k + 1 is `classes[k]`, with the id
    `category_ids[k]`, in the order of the ids."""

    path: Path
    images: Sequence[Mapping[str, Any]]
    image_ids: Sequence[Id]
    annotations: Sequence[Any]
    classes: tuple[str, ...]
    category_ids: tuple[Id, ...]

    def where(self, place: int) -> str:
        """Name the annotation at a place of the list in a message: the file, and its id, or the place where it has none."""
        entry = self.annotations[place]
        return (
            f"{self.path}, annotation {shown(entry['id'])}" if "id" in entry else f"{self.path}, annotations[{place}]"
        )

    @property
    def labels(self) -> dict[Id, int]:
        """The label, 1 to C, of each category id."""
        return {key: label for label, key in enumerate(self.category_ids, start=1)}


_LARGER: Final = 1.2
_LARGER_BY: Final = 16.0
"""Square pixels; boxes of whole pixels may be one short."""
UNLIKELY_AREA: Final = (
    "an area of 0 or larger than their box, and it decides whether they count as small, medium or large"
)


class Objects(NamedTuple):
    """Annotations whose image, class and numbers are known, in the order of the file.

    places: (N,) places in the file's list, see `Content.where`; image: (N,) place of the image; label: (N,) in 1..C; xywh: (N, 4),
    which may be infinite or NaN; area: (N,), NaN for the `without_area` annotations that have none.
    """

    places: list[int]
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    xywh: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    segmentation: list[Any]
    without_area: int

    def areas(self, of_boxes: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the areas, (N,); that of the box where there is none. of_boxes: (N,), of the boxes as they are used."""
        return np.where(np.isnan(self.area), of_boxes, self.area)

    def unlikely_area(self) -> NDArray[np.bool_]:
        """Return which areas are no object's: larger than its box by more than rounding does, as when boxes alone were scaled, or
        0."""
        with np.errstate(over="ignore", invalid="ignore"):
            of_boxes = np.prod(self.xywh[:, 2:], axis=1)
        return (self.area > _LARGER * of_boxes + _LARGER_BY) | ((self.area == 0) & (of_boxes > 0))


def entry_id(value: Any) -> Id | None:
    """The id of an entry: a whole number, or text; None for anything else."""
    return value if type(value) is int else whole(value) if isinstance(value, float) else name_of(value)


def id_order(value: Id) -> tuple[bool, Id]:
    """Sort key: numbers by value, then text."""
    return isinstance(value, str), value


def load_json(path: Path) -> Any:
    """Raises DataError for a file that cannot be read or is not whole."""
    text = read_text(path)
    try:
        return unique_keys.load_json(text)
    except (ValueError, RecursionError) as error:
        what = "the file is empty" if not text.strip() else f"half-written or not valid JSON: {error}"
        raise DataError(f"{path}: {what}; copy or write it again") from error


def load(path: Path) -> Content:
    """Read a file of annotations as far as its lists, ids and categories. Raises DataError for what is not in COCO's format."""
    content = load_json(path)
    if not isinstance(content, dict):
        what = f"a {type(content).__name__} instead of an object"
        raise DataError(f"{path}: not COCO's format: {what} with the lists {', '.join(_PARTS)}")
    for part in _PARTS:
        entries = content.get(part)
        if not isinstance(entries, list):
            raise DataError(f"{path}: not COCO's format: '{part}' must be a list")
        needs_id = part != "annotations"
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise DataError(f"{path}: not COCO's format: {part}[{place}] is {shown(entry)}, not an object")
            if needs_id and entry_id(entry.get("id")) is None:
                given = f"is {shown(entry['id'])}" if "id" in entry else "is missing"
                raise DataError(f"{path}: {part}[{place}]: id {given}; it must be a whole number, or text")
    names, ids = _categories(path, content["categories"])
    return Content(
        path=path,
        images=content["images"],
        image_ids=[_known_id(entry["id"]) for entry in content["images"]],
        annotations=content["annotations"],
        classes=names,
        category_ids=ids,
    )


def _known_id(value: Any) -> Id:
    found = entry_id(value)
    assert found is not None
    return found


def _categories(path: Path, entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[Id, ...]]:
    """Names and ids by label, in the order of the ids."""
    if not entries:
        raise DataError(
            f"{path}: not COCO's format: 'categories' must have an 'id' and a 'name' each, and there is none"
        )
    named: dict[Id, str] = {}
    owners: dict[str, Id] = {}
    for place, entry in enumerate(entries):
        key, name = _known_id(entry["id"]), class_name(entry.get("name"))
        where = f"{path}: categories[{place}] (id {shown(key)})"
        if name is None:
            given = shown(entry["name"]) if "name" in entry else "missing"
            raise DataError(f"{where}: name is {given}; a category is named by text, in quotes")
        if key in named:
            raise DataError(f"{where}: two categories share an id or a name: {named[key]!r} and {name!r} have this id")
        if name in owners:
            raise DataError(
                f"{where}: two categories share an id or a name: {name!r} is also that of id {shown(owners[name])}; "
                "rename or merge them, since results are by name"
            )
        named[key], owners[name] = name, key
    ids = sorted(named, key=id_order)
    return tuple(named[key] for key in ids), tuple(ids)


def objects_of(content: Content, places: Mapping[Id, int], faults: Faults, *, strays: bool = True) -> Objects:
    """The annotations of the images in `places`; a fault for each that has a value which is none.

    places: by image id, -1 for an image that is left out with its objects. strays: whether an annotation of an image that is not in
    `places` is a fault; it is none of a shortened list.
    """
    labels = content.labels
    used: list[tuple[int, int, int, Any]] = []
    numbers: list[list[float]] = []
    areas: list[float] = []
    crowds: list[bool] = []
    without_area = 0
    for number, entry in enumerate(content.annotations):
        key = entry_id(entry.get("image_id"))
        place = None if key is None else places.get(key)
        if place is not None and place < 0:
            continue
        if place is None:
            if strays:
                faults.add("unknown image", content.where(number), _unknown("image_id", entry, places))
            continue
        category = entry_id(entry.get("category_id"))
        label = None if category is None else labels.get(category)
        box = entry.get("bbox")
        xywh = [real(value) for value in box] if isinstance(box, list) else []
        area, crowd = entry.get("area"), flag(entry.get("iscrowd"))
        size = real(area)
        if label is None:
            faults.add(UNKNOWN_CLASS, content.where(number), _unknown("category_id", entry, labels))
        elif len(xywh) != 4 or None in xywh:
            faults.add("no box", content.where(number), f"bbox is {shown(box)}, not [x, y, width, height]")
        elif area is not None and not (size is not None and 0 <= size < np.inf):
            faults.add(BAD_VALUE, content.where(number), f"area is {shown(area)}, not a number of 0 or more")
        elif crowd is None:
            faults.add(BAD_VALUE, content.where(number), f"iscrowd is {shown(entry['iscrowd'])}, not 0 or 1")
        else:
            x, y, width, height = (float(value) for value in xywh if value is not None)
            used.append((number, place, label, entry.get("segmentation")))
            numbers.append([x, y, width, height])
            without_area += size is None
            areas.append(np.nan if size is None else size)
            crowds.append(crowd)
    return Objects(
        places=[number for number, _, _, _ in used],
        image=np.array([place for _, place, _, _ in used], np.int64),
        label=np.array([label for _, _, label, _ in used], np.int64),
        xywh=np.array(numbers, np.float64).reshape(-1, 4),
        area=np.array(areas, np.float64),
        crowd=np.array(crowds, bool),
        segmentation=[part for _, _, _, part in used],
        without_area=without_area,
    )


def _unknown(key: str, entry: Mapping[str, Any], known: Mapping[Id, int]) -> str:
    part = "images" if key == "image_id" else "categories"
    if key not in entry:
        return f"it has no {key}"
    value = entry[key]
    as_number = (
        isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 and int(value) in known
    )
    as_text = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**20 and str(value) in known
    other = f"; its ids are {'numbers' if as_number else 'text'}" if as_number or as_text else ""
    return f"{key} {shown(value)} is not among the {part}{other}"


class Results(NamedTuple):
    """Entries of a file of results, in its order: place of the image (D,) int64, label (D,) int64 in 1..C, xywh (D, 4) float64 and
    score (D,) float64."""

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    xywh: NDArray[np.float64]
    score: NDArray[np.float64]


def read_results(path: Path, content: Content, places: Mapping[Id, int]) -> Results:
    """Read a file of results for the images and categories of `content`. Raises DataError that names every faulty entry."""
    entries = load_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path}: COCO results are a list of objects with image_id, category_id, bbox and score")
    plain = _plain_results(entries, content.labels, places)
    return plain if plain is not None else _looked_through(path, entries, content.labels, places)


def _plain_results(entries: list[Any], labels: Mapping[Id, int], places: Mapping[Id, int]) -> Results | None:
    """Return entries of which each has what it should, in the types that JSON writers use; None where any has not.

    Whole columns are looked at, which is much faster than entry by entry.
    """
    try:
        keys, categories, boxes, scores = (
            [entry[name] for entry in entries] for name in ("image_id", "category_id", "bbox", "score")
        )
        if not set(map(type, boxes)) <= {list} or not set(map(len, boxes)) <= {4}:
            return None
        numbers = list(chain.from_iterable(boxes))
        if not {*map(type, keys), *map(type, categories)} <= {int, str}:
            return None
        if not {*map(type, numbers), *map(type, scores)} <= {int, float}:
            return None
        results = Results(
            image=np.array([places[key] for key in keys], np.int64),
            label=np.array([labels[key] for key in categories], np.int64),
            xywh=np.array(numbers, np.float64).reshape(-1, 4),
            score=np.array(scores, np.float64),
        )
    except (KeyError, TypeError, OverflowError):
        return None
    sound = np.isfinite(results.xywh).all() and np.isfinite(results.score).all() and (results.xywh[:, 2:] >= 0).all()
    return results if sound else None


def _looked_through(path: Path, entries: list[Any], labels: Mapping[Id, int], places: Mapping[Id, int]) -> Results:
    faults = Faults(str(path), "error", remedy="Nothing was scored: correct the file of results")
    image: list[int] = []
    label: list[int] = []
    boxes: list[list[float]] = []
    scores: list[float] = []
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            faults.add(BAD_VALUE, where, f"{shown(entry)} is not an object")
            continue
        key, category = entry_id(entry.get("image_id")), entry_id(entry.get("category_id"))
        box, score = entry.get("bbox"), real(entry.get("score"))
        xywh = [value for value in map(real, box) if value is not None] if isinstance(box, list) else []
        if key is None or key not in places:
            faults.add("unknown image", where, _unknown("image_id", entry, places))
        elif category is None or category not in labels:
            faults.add(UNKNOWN_CLASS, where, _unknown("category_id", entry, labels))
        elif len(xywh) != 4 or not isinstance(box, list) or len(box) != 4 or not np.isfinite(xywh).all():
            faults.add("no box", where, f"bbox is {shown(box)}, not [x, y, width, height]")
        elif xywh[2] < 0 or xywh[3] < 0:
            faults.add("no box", where, f"bbox is {shown(box)}, with width {box[2]} and height {box[3]}")
        elif score is None or not np.isfinite(score):
            faults.add(BAD_VALUE, where, f"score is {shown(entry.get('score'))}, not a finite number")
        else:
            image.append(places[key])
            label.append(labels[category])
            boxes.append(xywh)
            scores.append(score)
    faults.finish(1)
    return Results(
        image=np.array(image, np.int64),
        label=np.array(label, np.int64),
        xywh=np.array(boxes, np.float64).reshape(-1, 4),
        score=np.array(scores, np.float64),
    )
