"""Metrics of two binary masks: overlap from counts, surface distances in millimetres.

One policy for empty masks everywhere: both empty is undefined (NaN); one empty is an overlap of 0 and a distance of infinity.
Precision of an empty prediction and recall of an empty truth are 0 by the same rule, though 0/0 by their formula. Undefined values
are counted wherever they are left out of an average.

Surface distances are between voxels: the surface of a mask is its voxels that touch the outside by a face (the border of the
image is outside), and a distance is that to the nearest surface voxel of the other mask. Means are over both surfaces together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperbench.rca.mask_metric_specs import DISTANCE_NAMES, METRIC_SPECS, OVERLAP_NAMES

OVERLAPS: Final = OVERLAP_NAMES
DISTANCES: Final = DISTANCE_NAMES
HIGHER_IS_BETTER: Final = {name: spec.higher_is_better for name, spec in METRIC_SPECS.items()}


def counts(predicted: Tensor, truth: Tensor) -> list[tuple[int, ...]]:
    """Return, for each label of binary masks (L, ...), the voxels in both, in the prediction, in the truth."""
    a, b = predicted.flatten(1), truth.flatten(1)
    if a.device.type == "cpu":  # NumPy counts seven times as fast as sums of booleans
        rows = zip((a & b).numpy(), a.numpy(), b.numpy(), strict=True)
        return [tuple(int(np.count_nonzero(mask)) for mask in row) for row in rows]
    return [tuple(row) for row in torch.stack([(a & b).sum(1), a.sum(1), b.sum(1)], dim=1).tolist()]


def overlap(name: str, both: int, predicted: int, truth: int) -> float:
    """Return an overlap metric from the counts of `counts`; NaN where both masks are empty."""
    if predicted == 0 and truth == 0:
        return math.nan
    if predicted == 0 or truth == 0:
        return 0.0
    match name:
        case "dsc":
            return 2 * both / (predicted + truth)
        case "jaccard":
            return both / (predicted + truth - both)
        case "precision":
            return both / predicted
        case "recall":
            return both / truth
    raise ValueError(f"{name!r} is no overlap metric; there are {', '.join(OVERLAPS)}")


def distances(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return distances in millimetres from each surface voxel of one mask to the other's surface, both ways; neither may be empty.

    Masks (...) of equal shape; `spacing` in millimetres along each axis.
    """
    from scipy import ndimage

    window = _bounding_box(predicted | truth)
    a, b = (_surface(mask[window]) for mask in (predicted, truth))
    to_b = ndimage.distance_transform_edt(~b, sampling=spacing)
    to_a = ndimage.distance_transform_edt(~a, sampling=spacing)
    return np.asarray(to_b)[a], np.asarray(to_a)[b]


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    found = np.nonzero(mask)
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in found)


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    return mask & ~np.asarray(ndimage.binary_erosion(mask), dtype=bool)


def distance_metrics(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> dict[str, float]:
    """Return `asd`, `hd` and `hd95` in millimetres; NaN where both masks are empty, infinity where one is.

    `asd` is the mean over both surfaces together, `hd95` the larger of the two directed 95th percentiles.
    """
    if not predicted.any() or not truth.any():
        value = math.nan if not predicted.any() and not truth.any() else math.inf
        return dict.fromkeys(DISTANCES, value)
    there, back = distances(predicted, truth, spacing)
    return {
        "asd": float(np.concatenate([there, back]).mean()),
        "hd": float(max(there.max(), back.max())),
        "hd95": float(max(np.percentile(there, 95), np.percentile(back, 95))),
    }


def compare(predicted: Tensor, truth: Tensor, spacing: Sequence[float], names: Sequence[str]) -> list[dict[str, float]]:
    """Return the metrics `names` of each of L labels; binary masks (L, ...) on any device."""
    rows = [{name: overlap(name, *row) for name in names if name in OVERLAPS} for row in counts(predicted, truth)]
    if any(name in DISTANCES for name in names):
        for row, a, b in zip(rows, predicted.cpu().numpy(), truth.cpu().numpy(), strict=True):
            distances_of = distance_metrics(a, b, spacing)
            row.update({name: distances_of[name] for name in names if name in DISTANCES})
    return rows
