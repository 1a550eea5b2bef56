"""Overlap and surface distances against MONAI, scikit-learn and SciPy, and against all pairs of surface voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, directed_hausdorff
from sklearn import metrics as sklearn_metrics

from paperbench.rca.mask_metrics import DISTANCES, OVERLAPS, compare, counts, distance_metrics
from tests.peers.cases import grid
from tests.peers.packages import peer
from tests.peers.rca.masks import KINDS, SHAPES, Mask, pair, random_mask, spacing, voxel

monai = peer("monai.metrics")
# MONAI warns of arguments that it passes to itself, and of the empty masks that are tried on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*all 0:UserWarning")

CASES = grid(KINDS, (2, 3), range(2))


def one_hot(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


def planes(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(mask)[None]


def surface_points(mask: Mask, steps: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the places of the voxels that have a neighbour outside by a face; beyond the image is outside."""
    points = []
    for place in np.argwhere(mask):
        neighbours = [
            place + sign * np.eye(mask.ndim, dtype=int)[axis] for axis in range(mask.ndim) for sign in (-1, 1)
        ]
        if any(
            (neighbour < 0).any() or (neighbour >= mask.shape).any() or not mask[tuple(neighbour)]
            for neighbour in neighbours
        ):
            points.append(place * np.array(steps))
    return np.array(points)


def percentile(values: NDArray[np.float64], share: float) -> float:
    """Return a percentile by linear interpolation between the order statistics."""
    ordered = sorted(float(value) for value in values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


@pytest.mark.parametrize(("kind", "dims", "seed"), CASES)
def test_overlaps_are_those_of_monai(kind: str, dims: int, seed: int) -> None:
    predicted, truth = pair(kind, dims, seed)
    (row,) = compare(planes(predicted), planes(truth), (1.0,) * dims, OVERLAPS)
    arguments = {"y_pred": one_hot(predicted), "y": one_hot(truth), "include_background": True}
    confusion = monai.get_confusion_matrix(**arguments)
    assert row["dsc"] == pytest.approx(float(monai.compute_dice(**arguments)), rel=1e-6)
    assert row["jaccard"] == pytest.approx(float(monai.compute_iou(**arguments)), rel=1e-6)
    for name in ("precision", "recall"):
        assert row[name] == pytest.approx(float(monai.compute_confusion_matrix_metric(name, confusion)), rel=1e-6)


@pytest.mark.parametrize(("kind", "dims", "seed"), [(kind, dims, 10 + seed) for kind, dims, seed in CASES])
def test_overlaps_are_those_of_scikit_learn(kind: str, dims: int, seed: int) -> None:
    predicted, truth = pair(kind, dims, seed)
    (row,) = compare(planes(predicted), planes(truth), (1.0,) * dims, OVERLAPS)
    flat = truth.ravel(), predicted.ravel()
    assert row["dsc"] == pytest.approx(sklearn_metrics.f1_score(*flat), rel=1e-12)
    assert row["jaccard"] == pytest.approx(sklearn_metrics.jaccard_score(*flat), rel=1e-12)
    assert row["precision"] == pytest.approx(sklearn_metrics.precision_score(*flat), rel=1e-12)
    assert row["recall"] == pytest.approx(sklearn_metrics.recall_score(*flat), rel=1e-12)


@pytest.mark.parametrize(("kind", "dims", "seed"), [(kind, dims, 20 + seed) for kind, dims, seed in CASES])
def test_distances_are_those_of_monai(kind: str, dims: int, seed: int) -> None:
    predicted, truth = pair(kind, dims, seed)
    steps = spacing(dims, seed)
    row = distance_metrics(predicted, truth, steps)
    arguments = {"y_pred": one_hot(predicted), "y": one_hot(truth), "include_background": True, "spacing": steps}
    hausdorff = monai.compute_hausdorff_distance(**arguments)
    percentile_95 = monai.compute_hausdorff_distance(**arguments, percentile=95)
    mean = monai.compute_average_surface_distance(**arguments, symmetric=True)
    assert row["hd"] == pytest.approx(float(hausdorff), rel=1e-5, abs=1e-6)
    assert row["hd95"] == pytest.approx(float(percentile_95), rel=1e-5, abs=1e-6)
    assert row["asd"] == pytest.approx(float(mean), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("kind", "dims", "seed"), [(kind, dims, 30 + seed) for kind, dims, seed in CASES])
def test_distances_are_those_of_all_pairs(kind: str, dims: int, seed: int) -> None:
    predicted, truth = pair(kind, dims, seed, SHAPES[dims][:1] + (7,) * (dims - 1))
    steps = spacing(dims, seed)
    first, second = surface_points(predicted, steps), surface_points(truth, steps)
    apart = cdist(first, second)
    there, back = apart.min(1), apart.min(0)
    row = distance_metrics(predicted, truth, steps)
    largest = max(directed_hausdorff(first, second)[0], directed_hausdorff(second, first)[0])
    assert row["hd"] == pytest.approx(largest, rel=1e-9, abs=1e-9)
    assert row["hd95"] == pytest.approx(max(percentile(there, 0.95), percentile(back, 0.95)), rel=1e-9, abs=1e-9)
    assert row["asd"] == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("empty", ["both", "predicted", "truth"])
@pytest.mark.parametrize("filled", ["random", "voxel"])
def test_empty_masks_are_what_monai_calls_them(empty: str, filled: str, dims: int) -> None:
    rng = np.random.default_rng(dims)
    some = (random_mask if filled == "random" else voxel)(rng, SHAPES[dims])
    none = np.zeros_like(some)
    predicted, truth = {"both": (none, none), "predicted": (none, some), "truth": (some, none)}[empty]
    (row,) = compare(planes(predicted), planes(truth), (1.0,) * dims, (*OVERLAPS, *DISTANCES))
    arguments = {"y_pred": one_hot(predicted), "y": one_hot(truth), "include_background": True}
    dice = float(monai.compute_dice(**arguments, ignore_empty=empty == "both"))
    hausdorff = float(monai.compute_hausdorff_distance(**arguments))
    mean = float(monai.compute_average_surface_distance(**arguments, symmetric=True))
    np.testing.assert_equal(row["dsc"], dice)
    np.testing.assert_equal(row["hd"], hausdorff)
    if empty == "both":
        assert math.isnan(row["asd"])
        assert math.isnan(mean)
    else:
        # Where one mask is empty MONAI's mean is infinite or undefined, by the side: ours is infinite on both.
        assert row["asd"] == math.inf
        assert not math.isfinite(mean)
        assert [row[name] for name in OVERLAPS] == [0.0] * 4


@pytest.mark.parametrize("labels", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_measured_one_by_one(labels: int, seed: int) -> None:
    rng = np.random.default_rng([labels, seed])
    truth, predicted = rng.integers(0, labels + 1, (2, 12, 13))
    values = np.arange(1, labels + 1)
    rows = compare(
        torch.from_numpy(predicted == values[:, None, None]),
        torch.from_numpy(truth == values[:, None, None]),
        (1.0, 1.0),
        OVERLAPS,
    )
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        truth.ravel(), predicted.ravel(), labels=values.tolist()
    )
    assert [row["dsc"] for row in rows] == pytest.approx(f1.tolist())
    assert [row["precision"] for row in rows] == pytest.approx(precision.tolist())
    assert [row["recall"] for row in rows] == pytest.approx(recall.tolist())


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_the_confusion_matrix(seed: int) -> None:
    predicted, truth = pair(list(KINDS)[seed], 3, seed)
    ((both, found, real),) = counts(planes(predicted), planes(truth))
    (_, false), (missed, right) = sklearn_metrics.confusion_matrix(
        truth.ravel(), predicted.ravel(), labels=[False, True]
    )
    assert (both, found, real) == (right, right + false, right + missed)
