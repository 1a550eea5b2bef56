"""The form in which every reader returns a detection data set, whatever its format on disk.

Boxes are continuous, 0-based, `xyxy` in pixels of the image as it is stored: a box that covers the whole image is
`(0, 0, width, height)`. Labels count from 1; 0 is the background and never appears in ground truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paperbench.data.pictures import Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One image and its ground truth.

    boxes: (N, 4) float64 xyxy, as exact as the file has them, since overlaps are held against thresholds; labels: (N,) int64 in
    1..C; difficult, crowd: (N,) bool; area: (N,) float64 in square pixels.
    `source` is the file (or the generator's seed and index) that an error message can name.
    """

    image_id: int | str
    source: str
    height: int
    width: int
    boxes: NDArray[np.floating]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    area: NDArray[np.floating]

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """(N,) objects that are to be learnt and found: neither `difficult` nor a crowd."""
        return ~(self.difficult | self.crowd)


class Source(NamedTuple):
    """A part of a data set that was joined from several: its name, images and objects."""

    name: str
    images: int
    objects: int


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionSet:
    """An indexed, fully checked detection data set; `decode(i)` returns the pixels of `records[i]`.

    `classes[k - 1]` is the name of label k. `decode` returns (H, W, 3) uint8 RGB, is safe to call from several threads, and
    raises `DataError` naming the file. `dropped` counts what was left out because of `data.on_bad_box`, `repaired` the boxes that
    were clipped to their image, both by reason; `remarks` counts what was read in one of several ways, by a clause that says which.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    records: Sequence[Record]
    decode: Callable[[int], NDArray[np.uint8]]
    dropped: dict[str, int]
    repaired: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    category_ids: tuple[int | str, ...] = ()
    """`category_ids[k - 1]` is COCO's id of label k; empty for data sets that have no ids of their own."""
    masks: Callable[[int], NDArray[np.bool_]] | None = None
    """`masks(i)` returns the visible pixels of each object of `records[i]`, (N, H, W) in their order; as `decode` otherwise.
    None for data without masks."""
    picture: Callable[[int], Picture] | None = None
    """`decode` with the choices that the file left open; None for data without files."""
    files: Sequence[Path] = ()
    """The image file of each record; empty for data without files."""
    sources: tuple[Source, ...] = ()
    """The parts that the set was joined from, in the order of its images; empty for a set of one piece."""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def objects(self) -> int:
        """Number of annotated objects, `difficult` and crowd regions included."""
        return sum(len(record.labels) for record in self.records)

    @property
    def wanted(self) -> int:
        """Number of objects that are to be learnt and found: neither `difficult` nor a crowd."""
        return sum(int(record.wanted.sum()) for record in self.records)


def box_areas(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """(N, 4) xyxy to (N,) square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
