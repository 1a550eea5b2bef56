"""Overlap and surface distances against numbers known by hand, and one policy for empty masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from paperbench.rca.mask_metrics import DISTANCES, HIGHER_IS_BETTER, OVERLAPS, compare, distance_metrics, overlap

ALL = tuple(HIGHER_IS_BETTER)


def planes(*masks: list[list[int]]) -> torch.Tensor:
    return torch.tensor(masks, dtype=torch.bool)


def test_overlaps_by_hand() -> None:
    predicted, truth = planes([[1, 1, 1, 0]]), planes([[0, 1, 1, 1]])
    (row,) = compare(predicted, truth, (1.0, 1.0), OVERLAPS)
    assert row == {"dsc": 4 / 6, "jaccard": 2 / 4, "precision": 2 / 3, "recall": 2 / 3}


def test_precision_and_recall_are_not_each_other() -> None:
    (row,) = compare(planes([[1, 1, 1, 1]]), planes([[0, 0, 0, 1]]), (1.0, 1.0), OVERLAPS)
    assert (row["precision"], row["recall"]) == (0.25, 1.0)


def test_two_empty_masks_are_undefined_and_one_is_as_bad_as_can_be() -> None:
    nothing, something = planes([[0, 0]]), planes([[0, 1]])
    both = compare(nothing, nothing, (1.0, 1.0), ALL)[0]
    assert all(math.isnan(value) for value in both.values())
    for a, b in ((nothing, something), (something, nothing)):
        row = compare(a, b, (1.0, 1.0), ALL)[0]
        assert [row[name] for name in OVERLAPS] == [0.0] * 4
        assert [row[name] for name in DISTANCES] == [math.inf] * 3


def test_single_pixels_two_apart() -> None:
    a, b = np.zeros((2, 128, 128), bool)
    a[50, 70] = b[50, 72] = True
    assert distance_metrics(b, a, (2, 1)) == {"asd": 2.0, "hd": 2.0, "hd95": 2.0}


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_neighbouring_pixels_are_one_spacing_apart(spacing: float) -> None:
    a, b = np.array([[True, False]]), np.array([[False, True]])
    assert distance_metrics(a, b, (1.0, spacing))["asd"] == spacing


def test_a_slab_that_is_one_layer_thicker() -> None:
    truth, predicted = np.zeros((2, 100, 100, 100), bool)
    truth[:50], predicted[:51] = True, True
    row = compare(torch.from_numpy(predicted[None]), torch.from_numpy(truth[None]), (2, 1, 1), ("dsc", "hd"))[0]
    assert row["hd"] == 2.0
    assert row["dsc"] == pytest.approx(0.990, abs=5e-4)


def test_distances_scale_with_spacing() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 20, 20)) > 0.8
    once, twice = distance_metrics(a, b, (1.0, 1.5)), distance_metrics(a, b, (2.0, 3.0))
    assert {k: 2 * v for k, v in once.items()} == pytest.approx(twice)


def test_distances_are_those_of_all_pairs_of_surface_voxels() -> None:
    a, b = np.zeros((2, 12, 14), bool)
    a[2:7, 3:9], b[4:10, 5:12] = True, True

    def edge(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inner) * np.array([1.5, 1.0])

    apart = np.linalg.norm(edge(a)[:, None] - edge(b)[None], axis=2)
    both = np.concatenate([apart.min(1), apart.min(0)])
    row = distance_metrics(a, b, (1.5, 1.0))
    assert row["asd"] == pytest.approx(both.mean())
    assert row["hd"] == pytest.approx(both.max())


def test_an_unknown_metric_is_no_zero() -> None:
    with pytest.raises(ValueError, match="dsc, jaccard"):
        overlap("dice", 1, 1, 1)
