"""Remarks on detections that fit their objects far better when they are read otherwise: other classes, another form of the boxes,
another scale; and on detections that stand in a file twice, or without an order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import Record
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.voc import paired_iou

Boxes = NDArray[np.float64]

FEWEST: Final = 5
"""Objects of a class, of all together, and detections of one score, from which something is said."""
MOST_IMAGES: Final = 300
"""Images that are looked at, the first of those with objects."""
_OVERLAP: Final = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Flat:
    """Boxes (N, 4) xyxy of all images, with their image and label, (N,) int64, and, of detections, scores (N,)."""

    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: Boxes
    scores: NDArray[np.float64]

    @classmethod
    def objects(cls, records: Sequence[Record]) -> Flat:
        """The objects to be found."""
        wanted = [record.wanted for record in records]
        return cls(
            images=np.repeat(np.arange(len(records)), [int(part.sum()) for part in wanted]),
            labels=np.concatenate([record.labels[part] for record, part in zip(records, wanted, strict=True)]),
            boxes=np.concatenate([record.boxes[part] for record, part in zip(records, wanted, strict=True)]).astype(
                float
            ),
            scores=np.ones(sum(int(part.sum()) for part in wanted)),
        )

    @classmethod
    def detections(cls, found: Sequence[Detections]) -> Flat:
        """All detections."""
        return cls(
            images=np.repeat(np.arange(len(found)), [len(item) for item in found]),
            labels=np.concatenate([item.labels for item in found]),
            boxes=np.concatenate([item.boxes for item in found]).astype(float),
            scores=np.concatenate([item.scores for item in found]).astype(float),
        )


def remarks_on_fit(objects: Flat, found: Flat, classes: Sequence[str]) -> list[str]:
    """Return what is doubtful about detections beside the objects; labels are 1 to C, of `classes`."""
    return [*_repeated(found), *_fit(objects, found, classes)] if len(found.scores) else []


def _repeated(found: Flat) -> Iterator[str]:
    columns = (found.images, found.labels, *found.boxes.T, found.scores)
    count = len(found.scores)
    again = count - len(np.unique(np.stack([np.asarray(column, float) for column in columns], 1), axis=0))
    if again:
        yield (
            f"{again:,} of {count:,} detections stand in the files more than once, to the last digit of box and score: all but the "
            "first of them count as mistakes"
        )
    if count >= FEWEST and found.scores.min() == found.scores.max():
        yield f"all {count:,} detections have the score {found.scores[0]:g}: they are ranked in the order of the files"


def _fit(objects: Flat, found: Flat, classes: Sequence[str]) -> Iterator[str]:
    if len(objects.scores) < FEWEST:
        return
    pairs = _Pairs(objects, found)
    here, tables = pairs.fit(found.boxes, len(classes))
    moved = _moved(tables)
    if moved:
        of = ", ".join(f"{classes[column]} on {classes[k]}" for k, column in moved[:5])
        yield (
            f"detections of some classes lie on objects of others ({of}{', …' if len(moved) > 5 else ''}): the numbers of their "
            "classes stand for other names than those of the annotations"
        )
    best, said = 0.5, ""
    for what, convert in _readings(objects, found, pairs):
        with np.errstate(all="ignore"):
            share, _ = pairs.fit(convert(found.boxes), len(classes))
        if share > max(best, 2 * here):
            best, said = share, what
    if said:
        yield (
            f"the boxes of {100 * here:.0f} % of the objects are met as they are read, and of {100 * best:.0f} % if {said}: "
            "correct the file of detections"
        )


def _moved(table: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the classes whose objects are found by detections of another one, with that: more than half of each, one to one."""
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(table, maximize=True)
    totals = table.sum(1)
    moved = [(k, int(column)) for k, column in enumerate(columns) if column != k and table[k].any()]
    clear = all(totals[k] >= FEWEST and 2 * table[k, column] > totals[k] for k, column in moved)
    return moved if clear else []


def _readings(objects: Flat, found: Flat, pairs: _Pairs) -> Iterator[tuple[str, Callable[[Boxes], Boxes]]]:
    """Yield other ways to read boxes, each with the clause that names it."""

    def columns(*numbers: int) -> Callable[[Boxes], Boxes]:
        return lambda boxes: boxes[:, list(numbers)]

    def from_sides(boxes: Boxes) -> Boxes:
        return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])

    def to_sides(boxes: Boxes) -> Boxes:
        return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])

    def centred(boxes: Boxes) -> Boxes:
        return boxes - np.tile((boxes[:, 2:] - boxes[:, :2]) / 2, 2)

    yield "what was taken for width and height are the far corners", from_sides
    yield "what was taken for far corners are width and height", to_sides
    yield "what was taken for the first corner is the centre", centred
    yield "x and y are exchanged", columns(1, 0, 3, 2)
    sides, others = (part.boxes[:, 2:] - part.boxes[:, :2] for part in (objects, found))
    with np.errstate(all="ignore"):
        scale = np.median(sides, 0) / np.median(others[pairs.surest], 0)
    if np.isfinite(scale).all() and (scale > 0).all() and (np.abs(scale - 1) > 0.05).any():
        x, y = scale.tolist()
        yield (
            f"they are of images {1 / x:.3g} times as wide and {1 / y:.3g} times as high",
            lambda boxes: boxes * [x, y, x, y],
        )


class _Pairs:
    """Objects and the detections of their images, which are paired once and measured under several readings."""

    def __init__(self, objects: Flat, found: Flat) -> None:
        chosen = np.unique(objects.images)[:MOST_IMAGES]
        own = np.flatnonzero(np.isin(objects.images, chosen))
        by_image = np.argsort(found.images, kind="stable")
        begins = np.searchsorted(found.images[by_image], objects.images[own])
        ends = np.searchsorted(found.images[by_image], objects.images[own], side="right")
        counts = ends - begins
        self.objects = len(own)
        self.of = np.repeat(np.arange(len(own)), counts)
        within = np.arange(len(self.of)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.found = by_image[np.repeat(begins, counts) + within]
        self._boxes, self._labels = objects.boxes[own], objects.labels[own]
        self._found_labels, self._scores = found.labels, found.scores
        self.surest = self._surest(found, objects, chosen)

    @staticmethod
    def _surest(found: Flat, objects: Flat, chosen: NDArray[Any]) -> NDArray[np.int64]:
        """Of each image as many detections as it has objects, those of the highest scores."""
        wanted = np.bincount(objects.images, minlength=int(max(objects.images.max(), found.images.max())) + 1)
        order = np.lexsort((-found.scores, found.images))
        images = found.images[order]
        rank = np.arange(len(order)) - np.searchsorted(images, images)
        return order[(rank < wanted[images]) & np.isin(images, chosen)]

    def fit(self, boxes: Boxes, classes: int) -> tuple[float, NDArray[np.int64]]:
        """Return the share of objects that a detection of their class overlaps by half, and how often, (C, C), the surest detection
        of any class that does so is of which class (columns) on an object of which (rows)."""
        overlap = paired_iou(boxes[self.found], self._boxes[self.of], inclusive=False)
        met = np.flatnonzero(overlap >= _OVERLAP)
        own = self._found_labels[self.found[met]] == self._labels[self.of[met]]
        share = len(np.unique(self.of[met][own])) / self.objects
        order = met[np.lexsort((-self._scores[self.found[met]], self.of[met]))]
        _, first = np.unique(self.of[order], return_index=True)
        table = np.zeros((classes, classes), np.int64)
        np.add.at(table, (self._labels[self.of[order[first]]] - 1, self._found_labels[self.found[order[first]]] - 1), 1)
        return share, table
