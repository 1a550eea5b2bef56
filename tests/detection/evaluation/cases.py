"""Ground truth and detections made by hand or at random, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paperbench.data.detection import DetectionSet, Record
from paperbench.detection.evaluation.detections import Detections

CLASSES = ("cat", "dog", "bird")


def record(
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    difficult: Sequence[bool] | None = None,
    crowd: Sequence[bool] | None = None,
    image_id: int | str = 0,
    size: int = 200,
) -> Record:
    """An image of `size` x `size` pixels with these objects."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(
        image_id=image_id,
        source=f"image {image_id}",
        height=size,
        width=size,
        boxes=corners,
        labels=np.array(labels, np.int64),
        difficult=np.array([False] * len(labels) if difficult is None else difficult, bool),
        crowd=np.array([False] * len(labels) if crowd is None else crowd, bool),
        area=np.prod(corners[:, 2:] - corners[:, :2], axis=1, dtype=np.float32),
    )


def found(boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int]) -> Detections:
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int64),
    )


def perfect(records: Sequence[Record]) -> list[Detections]:
    """Every object found with a score of 1."""
    return [
        Detections(boxes=item.boxes, scores=np.ones(len(item.labels), np.float32), labels=item.labels)
        for item in records
    ]


def random_case(
    seed: int, *, images: int = 12, classes: int = 3, difficult: float = 0.2, integers: bool = False, ties: bool = False
) -> tuple[list[Record], list[Detections]]:
    """Images with 0 to 5 objects, most of them found somewhat off, some twice, beside detections of nothing.

    `integers` rounds all corners to whole pixels; `ties` leaves only five different scores.
    """
    rng = np.random.default_rng(seed)
    records, detections = [], []
    for image in range(images):
        truth = _boxes(rng, int(rng.integers(0, 6)))
        labels = rng.integers(1, classes + 1, len(truth))
        copies = np.repeat(np.arange(len(truth)), rng.integers(0, 3, len(truth)))
        noise = rng.normal(0, 6, (len(copies), 4))
        extra = _boxes(rng, int(rng.integers(0, 5)))
        boxes = np.concatenate([truth[copies] + noise, extra])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        if integers:
            truth, boxes = truth.round(), boxes.round()
        scores = rng.random(len(boxes))
        if ties:
            scores = (scores * 5).round() / 5
        guesses = np.concatenate([labels[copies], rng.integers(1, classes + 1, len(extra))])
        records.append(record(truth.tolist(), labels.tolist(), difficult=(rng.random(len(truth)) < difficult).tolist(),
                              image_id=image))  # fmt: skip
        detections.append(found(boxes.tolist(), scores.tolist(), guesses.tolist()))
    return records, detections


def data_set(records: Sequence[Record], classes: Sequence[str] = CLASSES) -> DetectionSet:
    """The records as a data set of plain grey images."""

    def decode(index: int) -> np.ndarray:
        return np.full((records[index].height, records[index].width, 3), 128, np.uint8)

    return DetectionSet(name="made", split="test", classes=tuple(classes), records=records, decode=decode, dropped={})


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 120, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(15, 70, (count, 2))], axis=1)
