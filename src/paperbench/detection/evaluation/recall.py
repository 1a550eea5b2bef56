"""Recall of proposals: recall over overlap and number of proposals, as in figure 4 of Faster R-CNN.

One proposal answers for one object: of all pairs left, the one with the largest overlap is taken and both leave (the
protocol of Hosang et al., "What makes for effective detection proposals?", which that figure follows). `difficult`
objects and crowd regions are not asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import Record

COUNTS = (100, 300, 1000, 2000)
THRESHOLDS = np.arange(50, 101, 5) / 100
"""Overlaps .5:.05:1 of the curve; the average recall is the mean over .5:.05:.95, as COCO takes it."""

_CELLS = 4_000_000
"""Proposal-object pairs that are handled at a time: tens of megabytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RecallResult:
    """recall: (K, T) in 0..1 for `counts` (K) and `thresholds` (T); average: (K,) mean recall over .5:.05:.95; NaN
    without any object. `mean_proposals` per image."""

    counts: tuple[int, ...]
    thresholds: NDArray[np.float64]
    recall: NDArray[np.float64]
    average: NDArray[np.float64]
    objects: int
    mean_proposals: float

    def metrics(self) -> dict[str, float]:
        """`proposals/recall50@N`, `proposals/recall70@N`, `proposals/AR@N` in percent; empty without any object.
        `proposals/per_image` is their mean number."""
        if not self.objects:
            return {}
        named: dict[str, float] = {}
        for row, count in enumerate(self.counts):
            for threshold in (50, 70):
                column = int(np.flatnonzero(self.thresholds == threshold / 100)[0])
                named[f"proposals/recall{threshold}@{count}"] = 100.0 * float(self.recall[row, column])
            named[f"proposals/AR@{count}"] = 100.0 * float(self.average[row])
        return named | {"proposals/per_image": self.mean_proposals}


def evaluate(
    records: Sequence[Record], proposals: Sequence[NDArray[np.float32]], *, counts: Sequence[int] = COUNTS
) -> RecallResult:
    """Recall of the best N proposals of each image, for the N of `counts` that the proposals can tell apart.

    `proposals[i]` is (P, 4) xyxy, best first, in pixels of the image `records[i]`. `@N` means the best N, or all where
    there are fewer; an N is left out when a smaller one already covered the largest number that any image has. Raises
    `ValueError` when the sequences differ in length.
    """
    if len(records) != len(proposals):
        raise ValueError(f"{len(records)} images but proposals for {len(proposals)}")
    available = max((len(boxes) for boxes in proposals), default=0)
    ordered = sorted(set(counts))
    used = tuple(n for n, smaller in zip(ordered, [0, *ordered], strict=False) if smaller < max(available, 1))

    wanted = [record.boxes[record.wanted].astype(np.float64) for record in records]
    objects = sum(len(boxes) for boxes in wanted)
    covered = np.zeros((len(used), 0))
    # Images with like numbers of objects and proposals share a batch, so that little of it is padding.
    order = sorted(range(len(wanted)), key=lambda index: (len(wanted[index]), len(proposals[index])))
    order = [index for index in order if len(wanted[index])]
    while order:
        widest = len(wanted[order[-1]]) * max(1, min(available, used[-1]))
        batch, order = order[-max(1, _CELLS // widest) :], order[: -max(1, _CELLS // widest)]
        overlap = _padded_overlap([proposals[index][: used[-1]] for index in batch], [wanted[index] for index in batch])
        real = np.arange(overlap.shape[2]) < np.array([len(wanted[index]) for index in batch])[:, None]
        rows = [_one_to_one(overlap[:, :count])[real] for count in used]
        covered = np.concatenate([covered, np.stack(rows)], axis=1)

    reached = (covered[:, :, None] >= THRESHOLDS).sum(axis=1)
    recall = reached / objects if objects else np.full(reached.shape, np.nan)
    return RecallResult(
        counts=used,
        thresholds=THRESHOLDS,
        recall=recall,
        average=recall[:, THRESHOLDS < 1].mean(axis=1),
        objects=objects,
        mean_proposals=float(np.mean([len(boxes) for boxes in proposals])) if proposals else 0.0,
    )


def _padded_overlap(proposals: list[NDArray[np.float32]], objects: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(B, P, G) overlap; padding has -1, below any real overlap."""
    most, widest = max(1, *map(len, proposals)), max(map(len, objects))
    a, b = np.zeros((len(proposals), most, 4)), np.zeros((len(objects), widest, 4))
    for row, (boxes, gt) in enumerate(zip(proposals, objects, strict=True)):
        a[row, : len(boxes)], b[row, : len(gt)] = boxes, gt
    low = np.maximum(a[:, :, None, :2], b[:, None, :, :2])
    size = np.maximum(np.minimum(a[:, :, None, 2:], b[:, None, :, 2:]) - low, 0.0)
    intersection = size[..., 0] * size[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    union = area_a[:, :, None] + area_b[:, None, :] - intersection
    overlap = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    real_a = np.arange(most) < np.array([len(boxes) for boxes in proposals])[:, None]
    real_b = np.arange(widest) < np.array([len(gt) for gt in objects])[:, None]
    return np.where(real_a[:, :, None] & real_b[:, None, :], overlap, -1.0)


def _one_to_one(overlap: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, P, G) -> (B, G): the overlap of each object with its proposal, 0 without one; ties go to the better proposal.

    One round pairs one object in every image of the batch at once.
    """
    left = overlap.copy()
    images = np.arange(len(left))
    covered = np.zeros((len(left), left.shape[2]))
    for _ in range(left.shape[2]):
        flat = left.reshape(len(left), -1).argmax(axis=1)
        proposal, gt = np.divmod(flat, left.shape[2])
        covered[images, gt] = np.maximum(covered[images, gt], left[images, proposal, gt])
        left[images, proposal], left[images, :, gt] = -1.0, -1.0
    return covered
