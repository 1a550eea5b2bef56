"""Data sets in memory, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet, Record, box_areas


def record(
    index: int, height: int, width: int, boxes: Sequence[Sequence[float]] = (), **flags: Sequence[bool]
) -> Record:
    """Labels 1, 2, ... in the order of the boxes."""
    own = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(
        image_id=index,
        source=f"image {index}",
        height=height,
        width=width,
        boxes=own,
        labels=np.arange(1, len(own) + 1),
        difficult=np.array(flags.get("difficult", [False] * len(own)), bool),
        crowd=np.array(flags.get("crowd", [False] * len(own)), bool),
        area=box_areas(own),
    )


class Pixels:
    """Noise that follows from the index, and a count of how often each image was asked for."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.asked: list[int] = []

    def __call__(self, index: int) -> NDArray[np.uint8]:
        self.asked.append(index)
        shape = (self.records[index].height, self.records[index].width, 3)
        return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)


def in_memory(*records: Record) -> tuple[DetectionSet, Pixels]:
    pixels = Pixels(records)
    dataset = DetectionSet(
        name="memory", split="train", classes=("a", "b", "c"), records=records, decode=pixels, dropped={}
    )
    return dataset, pixels
