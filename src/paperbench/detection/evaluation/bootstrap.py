"""Intervals of mean average precision over other draws of the test images (bootstrap, percentile method, 95 %).

An image that is drawn k times counts k times. Matching never looks beyond an image, so nothing is matched again: with weights
k, the sums of a ranked list are those of the list in which every detection of the image stands k times. Copies change neither
the precision envelope nor the recall that is reached, since the k-th copy of a hit has the best precision among them, and the
copies of a false detection leave the better precision before them standing at the same recall. (Equal scores within one image are
the exception: whether their copies alternate is as open as their order is.)

The interval holds the choice of test images alone. How results vary with the seed of training is another question, answered by
runs with other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from paperbench.detection.evaluation.detections import Ranked
from paperbench.detection.evaluation.voc import REFERENCE_GRID

PERCENTILES = (2.5, 97.5)
COCO_LEVELS = np.linspace(0.0, 1.0, 101)
_CHUNK = 2_000_000
"""Weights of detections held at a time."""


def coco_intervals(ranked: Sequence[Ranked], *, resamples: int) -> dict[str, float]:
    """`coco/AP` and `coco/AP50`, each with `/low` and `/high`, in percent; `ranked` by COCO's ten overlaps, one per class."""
    means = np.concatenate([coco_means(ranked, weights) for weights in _draws(ranked, resamples)])
    return _ends("coco/AP", means[:, 0]) | _ends("coco/AP50", means[:, 1])


def voc_intervals(ranked: Sequence[Ranked], *, resamples: int) -> dict[str, float]:
    """`voc07/mAP` and `voc/mAP`, each with `/low` and `/high`, in percent; `ranked` at one overlap, one per class."""
    means = np.concatenate([voc_means(ranked, weights) for weights in _draws(ranked, resamples)])
    return _ends("voc07/mAP", means[:, 0]) | _ends("voc/mAP", means[:, 1])


def coco_means(ranked: Sequence[Ranked], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B, 2) AP over .5:.05:.95 and AP at .5, as fractions, for weights (B, I) of the images; NaN where no object is drawn."""
    by_class = []
    for found in ranked:
        total = weights @ found.objects
        levels = [
            _at_levels(*_curves(found, weights, overlap, total), COCO_LEVELS).mean(axis=1)
            for overlap in range(len(found.hits))
        ]
        by_class.append(np.where(total > 0, np.stack([np.mean(levels, axis=0), levels[0]]), np.nan))
    return _mean_of_defined(np.stack(by_class)).T


def voc_means(ranked: Sequence[Ranked], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B, 2) mean AP by 11 points and by area, as fractions, for weights (B, I) of the images; NaN where no object is drawn."""
    by_class = []
    for found in ranked:
        total = weights @ found.objects
        recall, envelope = _curves(found, weights, 0, total)
        eleven = _at_levels(recall, envelope, REFERENCE_GRID).sum(axis=1) / len(REFERENCE_GRID)
        area = np.sum(np.diff(recall, prepend=0.0, axis=1) * envelope, axis=1)
        by_class.append(np.where(total > 0, np.stack([eleven, area]), np.nan))
    return _mean_of_defined(np.stack(by_class)).T


def _draws(ranked: Sequence[Ranked], resamples: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each image is drawn, (B, I), in pieces that fit into memory; the same for the same number of images."""
    images = len(ranked[0].objects)
    longest = max(len(found.scores) for found in ranked)
    size = max(1, _CHUNK // max(longest, images, 1))
    generator = np.random.default_rng(0)
    for start in range(0, resamples, size):
        yield generator.multinomial(images, np.full(images, 1.0 / images), size=min(size, resamples - start))


def _curves(
    found: Ranked, weights: NDArray[np.int64], overlap: int, total: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(B, D) recall and the precision made monotone from the right, for the detections in their order."""
    times = weights[:, found.images]
    hits = np.cumsum(times * found.hits[overlap], axis=1, dtype=np.float64)
    counted = np.cumsum(times * found.counted[overlap], axis=1, dtype=np.float64)
    precision = np.divide(hits, counted, out=np.zeros_like(hits), where=counted > 0)
    recall = hits / np.maximum(total, 1)[:, None]
    return recall, np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


def _at_levels(
    recall: NDArray[np.float64], envelope: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(B, L) best precision at a recall of at least each level; 0 beyond the recall that is reached."""
    padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    reached = np.stack([np.searchsorted(row, levels, side="left") for row in recall])
    return np.take_along_axis(padded, reached, axis=1)


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis, without NaN; NaN where all are."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.where(defined, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _ends(name: str, means: NDArray[np.float64]) -> dict[str, float]:
    means = means[~np.isnan(means)]
    if not len(means):
        return {}
    low, high = np.percentile(means, PERCENTILES)
    return {f"{name}/low": 100.0 * float(low), f"{name}/high": 100.0 * float(high)}
