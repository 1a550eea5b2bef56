"""Detections of one image, the form that every evaluation, drawing and file of this package takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Detections in one image, in any order.

    boxes: (N, 4) float, continuous 0-based `xyxy` in pixels of the image as it is stored, as in
    `data.detection.Record`; scores: (N,) float, higher is surer; labels: (N,) int64 in 1..C. What a net finds is float32, what a
    file holds float64: scorers compute in float64. Raises `ValueError` where shapes disagree, a number is not finite, or a label
    is below 1: any of these would be ranked or dropped in silence by a scorer.

    masks, of nets that draw them: (N, M, M) uint8, the object in the frame of its box, `masks.FULL` where it is sure.
    """

    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    labels: NDArray[np.int64]
    masks: NDArray[np.uint8] | None = None
    order: NDArray[np.int64] | None = None
    """(N,) places of the detections among those of all images, where a file has them in an order of its own: equal scores are
    ranked by it. None for the order of images and, within one, the one given."""

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ValueError(
                "detections need boxes (N, 4), scores (N,) and labels (N,); got "
                f"{self.boxes.shape}, {self.scores.shape} and {self.labels.shape}"
            )
        if self.order is not None and self.order.shape != (count,):
            raise ValueError(f"{count} detections need places ({count},), got {self.order.shape}")
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != count):
            raise ValueError(f"{count} detections need masks ({count}, M, M), got {self.masks.shape}")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("a detection's box or score is not finite")
        if count and self.labels.min() < 1:
            raise ValueError(f"labels of detections count from 1, got {self.labels.min()}: 0 is the background")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        """An image in which nothing was found."""
        return cls(boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), labels=np.zeros(0, np.int64))

    def above(self, score: float) -> Detections:
        """The detections whose score is at least `score`, in the same order."""
        keep = self.scores >= score
        return Detections(
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            masks=None if self.masks is None else self.masks[keep],
            order=None if self.order is None else self.order[keep],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """One class's D detections in I images by falling score, at T overlaps that a match may need.

    scores: (D,) float64; images: (D,) int64, the image of each; hits: (T, D) bool, whether it found an object; counted: (T, D)
    bool, False for detections that count as neither right nor wrong (a crowd, a difficult object), which are no hits;
    objects: (I,) int64, objects to be found in each image.
    """

    scores: NDArray[np.float64]
    images: NDArray[np.int64]
    hits: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    objects: NDArray[np.int64]
