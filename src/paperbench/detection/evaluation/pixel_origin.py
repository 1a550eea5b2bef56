"""Evidence on the number of the first pixel, 0 or 1, from the distances between detections and the objects they found.

A mean average precision is no evidence: that of a weak detector moves by its chance when all boxes move by one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import Record
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.voc import paired_iou

LIKELIER: Final = 20.0
"""Times by which the other origin must be the likelier one."""
_OVERLAP: Final = 0.5


def is_moved(records: Sequence[Record], detections: Sequence[Detections], shift: float) -> bool:
    """Return True where the detections lie `shift` pixels beyond the objects, right and down, far likelier than at their places.

    shift: 1 or -1. Corners are pixels that belong to the box, as in the devkit. Of each object the detection of its class counts
    that overlaps it most, by at least one half, when both are moved halfway towards each other: neither origin is preferred. The
    distances of the four sides, in units of `shift`, are taken as normal around 0 or around 1 with a spread that is not known, so
    the likelihood ratio is that of the sums of squares to the power of half the number of objects: sides of an object err together.
    """
    distances = np.array(_distances(records, detections, shift)).reshape(-1, 4)
    if not len(distances) or not 0.5 < distances.mean() < 1.5:
        return False
    here, there = float(np.square(distances).sum()), float(np.square(distances - 1).sum())
    return here > there * LIKELIER ** (2 / len(distances))


def _distances(records: Sequence[Record], detections: Sequence[Detections], shift: float) -> list[NDArray[np.float64]]:
    distances: list[NDArray[np.float64]] = []
    for record, found in zip(records, detections, strict=True):
        for box, label in zip(record.boxes.astype(np.float64), record.labels, strict=True):
            boxes: NDArray[np.float64] = found.boxes[found.labels == label].astype(np.float64)
            if not len(boxes):
                continue
            overlaps = paired_iou(boxes, np.broadcast_to(box + shift / 2, boxes.shape), inclusive=True)
            best = int(overlaps.argmax())
            if overlaps[best] >= _OVERLAP:
                distances.append((boxes[best] - box) / shift)
    return distances
