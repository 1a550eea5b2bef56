"""Features of the atlas forest against loops over boxes, and votes of label maps against SciPy's mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats

from paperbench.rca.forest import FEATURES, balanced, box_means, boxes, features
from paperbench.rca.labels import Labels
from tests.peers.cases import grid

Array = NDArray[np.float64]

SHAPES = {"picture": (9, 12), "narrow": (2, 11), "line": (1, 9), "volume": (5, 6, 4)}
OFFSETS = {"here": 0.0, "near": 0.1, "far": 0.25, "beyond": 1.5}


def integral(image: Array) -> Array:
    total = np.pad(image, [(1, 0)] * image.ndim)
    for axis in range(image.ndim):
        total = total.cumsum(axis)
    return total


def covered(centre: int, half: int, length: int) -> list[int]:
    """Return the places of a box along an axis: those inside the image, or the nearest one if none is."""
    inside = [k for k in range(centre - half, centre + half + 1) if 0 <= k < length]
    return inside or [min(max(centre, 0), length - 1)]


def mean_by_loop(image: Array, place: Sequence[int], offset: Array, width: Array) -> float:
    axes = [
        covered(k + round(float(o) * n), round(float(w) * n), n)
        for k, o, w, n in zip(place, offset, width, image.shape, strict=True)
    ]
    return float(image[np.ix_(*axes)].mean())


@pytest.mark.parametrize(("shape", "offset", "width", "seed"), grid(SHAPES, OFFSETS, (0.0, 0.08, 0.6), range(2)))
def test_box_means_are_loops(shape: str, offset: str, width: float, seed: int) -> None:
    size = SHAPES[shape]
    rng = np.random.default_rng([seed, list(SHAPES).index(shape)])
    image = rng.random(size) * (1000.0 if seed else 1.0)
    moved = OFFSETS[offset] * rng.choice([-1, 1], len(size))
    wide = np.full(len(size), width)
    found = box_means(integral(image), size, moved, wide)
    expected = [mean_by_loop(image, place, moved, wide) for place in np.ndindex(*size)]
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-9 * image.max())


@pytest.mark.parametrize(("half", "seed"), grid((0, 1, 2), range(3)))
def test_boxes_inside_the_image_are_scipys_uniform_filter(half: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((20, 20))
    found = box_means(integral(image), (20, 20), np.zeros(2), np.full(2, half / 20))
    expected = ndimage.uniform_filter(image, 2 * half + 1)
    inner = slice(half, 20 - half)
    np.testing.assert_allclose(found[inner, inner], expected[inner, inner], atol=1e-12)


@pytest.mark.parametrize(("shape", "seed"), grid(("picture", "volume"), range(3)))
def test_a_row_of_features_is_place_intensity_means_and_differences(shape: str, seed: int) -> None:
    size = SHAPES[shape]
    image = np.random.default_rng(seed).random(size)
    offsets, widths = boxes(len(size), seed=seed)
    found = features(image, (offsets, widths)).reshape(*size, -1)
    for place in [(0,) * len(size), tuple(n - 1 for n in size), tuple(n // 2 for n in size)]:
        row = [(k + 0.5) / n for k, n in zip(place, size, strict=True)]
        row.append(image[place])
        for number in range(FEATURES):
            first, second = (mean_by_loop(image, place, offsets[number, k], widths[number, k]) for k in range(2))
            row.append(first if number < FEATURES // 2 else first - second)
        np.testing.assert_allclose(found[place], row, atol=1e-6)


@pytest.mark.parametrize(("samples", "seed"), grid((3, 40, 10_000), range(3)))
def test_training_voxels_are_shared_by_the_labels_as_equally_as_can_be(samples: int, seed: int) -> None:
    """The largest smallest share: no label could have more without another having less than it."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, 500, p=[0.9, 0.07, 0.02, 0.01])
    chosen = balanced(labels, np.random.default_rng(seed), samples)
    assert len(set(chosen.tolist())) == len(chosen) == min(samples, len(labels))
    counts = np.bincount(labels, minlength=4)
    taken = np.bincount(labels[chosen], minlength=4)
    assert bool((taken <= counts).all())
    limited = taken < counts
    if limited.any():
        assert np.ptp(taken[limited]) <= 1
        assert bool((taken[~limited] <= taken[limited].max() + 1).all())


@pytest.mark.parametrize(("maps", "seed"), grid((1, 2, 5, 27), range(4)))
def test_a_vote_is_scipys_mode(maps: int, seed: int) -> None:
    """Ties go to the smallest value in both: to the background, then to the first label."""
    rng = np.random.default_rng([maps, seed])
    values = rng.integers(0, 4, (maps, 6, 7))
    found = Labels("values", (1, 2, 3), ("a", "b", "c")).vote(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(found, stats.mode(values, axis=0).mode)


@pytest.mark.parametrize(("maps", "seed"), grid((1, 2, 5, 27), range(3)))
def test_a_vote_of_bits_is_a_majority_for_each_organ(maps: int, seed: int) -> None:
    rng = np.random.default_rng([maps, seed])
    values = rng.integers(0, 8, (maps, 6, 7)).astype(np.uint8)
    labels = Labels("bits", (1, 2, 4), ("a", "b", "c"))
    found = labels.vote(torch.from_numpy(values)).numpy()
    expected = np.zeros((6, 7), int)
    for bit in (1, 2, 4):
        expected += bit * (((values & bit) > 0).mean(0) > 0.5)
    np.testing.assert_array_equal(found, expected)
    planes = labels.planes(torch.from_numpy(values[0])).numpy()
    np.testing.assert_array_equal(planes, np.stack([values[0] & bit for bit in (1, 2, 4)]) > 0)
    np.testing.assert_array_equal(labels.map_of(planes), values[0])
