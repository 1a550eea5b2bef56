"""The arithmetic of registration against SciPy: sampling, splines, pyramids, centres, correlations, propagated labels.

Coordinates of the program run from -1 to 1 over an image, the last axis first; SciPy counts voxels, the first axis first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline, NdBSpline

from paperbench.rca.atlas import FLAT, FLOOR, local_contrast, near_organs
from paperbench.rca.labels import Labels
from paperbench.rca.propagation import label_boundaries, propagate_labels, subvoxel_grid
from paperbench.rca.registration import (
    Transforms,
    bases,
    bspline_matrix,
    centre_of_mass,
    displacement,
    reduced,
    roughness,
    sample,
    warped,
)
from paperbench.rca.similarity import NOISE, LocalTarget, Target, gaussian_matrix
from tests.peers.cases import grid
from tests.peers.rca.masks import pair

Array = NDArray[np.float64]

SHAPES = {"square": (9, 9), "wide": (6, 13), "tall": (14, 5), "line": (1, 12), "cube": (6, 7, 8), "slab": (3, 10, 6)}
MAPS = ("identity", "shift", "rotation", "small", "large", "mirror", "shear", "outside", "random")


def affine(kind: str, dims: int, rng: np.random.Generator) -> Array:
    """Return an affine map (d, d + 1) of coordinates, the last axis first."""
    theta = np.eye(dims, dims + 1)
    angle = rng.uniform(-math.pi, math.pi)
    match kind:
        case "shift":
            theta[:, dims] = rng.uniform(-0.5, 0.5, dims)
        case "rotation":
            theta[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        case "small":
            theta[:, :dims] *= 0.1
        case "large":
            theta[:, :dims] *= 7.3
        case "mirror":
            theta[0, 0] = -1.0
        case "shear":
            theta[0, 1] = rng.uniform(-1, 1)
        case "outside":
            theta[:, dims] = 5.0
        case "random":
            theta += rng.normal(0, 0.4, theta.shape)
    return theta


def centres(shape: Sequence[int]) -> Array:
    """Return the coordinates (..., d) of the voxels of an array, the last axis first."""
    lines = [(2 * np.arange(length) + 1) / length - 1 for length in shape]
    return np.stack(np.meshgrid(*lines, indexing="ij")[::-1], axis=-1)


def voxels(coordinates: Array, shape: Sequence[int]) -> Array:
    """Return coordinates (..., d) as voxels of an array of `shape`, (d, ...), the first axis first."""
    return np.stack([((coordinates[..., len(shape) - 1 - k] + 1) * n - 1) / 2 for k, n in enumerate(shape)])


def image(kind: str, shape: Sequence[int], rng: np.random.Generator) -> Array:
    values = rng.random(tuple(shape))
    return {"fractions": values, "thousands": 4000 * values - 1000, "constant": np.full(tuple(shape), 3.5)}[kind]


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "kind", "values"), grid(SHAPES, MAPS, ("fractions", "thousands")))
def test_warping_is_scipys_linear_interpolation(shape: str, kind: str, values: str) -> None:
    size = SHAPES[shape]
    rng = np.random.default_rng([len(size), MAPS.index(kind), list(SHAPES).index(shape)])
    moving, theta = image(values, size, rng), affine(kind, len(size), rng)
    like = torch.zeros(1, 1, *(int(n) for n in rng.integers(3, 9, len(size))), dtype=torch.float64)
    found = warped(torch.from_numpy(moving)[None, None], torch.from_numpy(theta)[None], like)
    own = centres(like.shape[2:])
    places = own @ theta[:, : len(size)].T + theta[:, len(size)]
    expected = ndimage.map_coordinates(moving, voxels(places, size), order=1, mode="grid-constant", cval=0.0)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=1e-10, atol=1e-10 * max(1, np.abs(moving).max()))


@pytest.mark.parametrize(("shape", "seed"), grid(SHAPES, range(3)))
def test_the_gradient_of_sampling_is_the_slope(shape: str, seed: int) -> None:
    """Between voxel centres: at them the slope jumps."""
    size = SHAPES[shape]
    rng = np.random.default_rng([seed, list(SHAPES).index(shape)])
    moving = torch.from_numpy(rng.random(size))[None, None]
    start = torch.from_numpy(rng.uniform(-0.9, 0.9, (1, *[1] * (len(size) - 1), 40, len(size)))).requires_grad_()
    sample(moving, start).sum().backward()
    step, slope = 1e-7, np.zeros((40, len(size)))
    for axis in range(len(size)):
        ends = []
        for sign in (1, -1):
            moved = start.detach().reshape(40, len(size)).numpy().copy()
            moved[:, axis] += sign * step
            ends.append(
                ndimage.map_coordinates(moving[0, 0].numpy(), voxels(moved, size), order=1, mode="grid-constant")
            )
        slope[:, axis] = (ends[0] - ends[1]) / (2 * step)
    assert start.grad is not None
    np.testing.assert_allclose(start.grad.reshape(40, len(size)).numpy(), slope, atol=1e-5)


# --- transforms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("controls", "size"), grid((4, 5, 7, 16), (1, 2, 8, 31)))
def test_the_spline_matrix_is_scipys(controls: int, size: int) -> None:
    matrix = bspline_matrix(controls, size, like=torch.zeros(1, dtype=torch.float64)).numpy()
    knots = np.arange(-3, controls + 1, dtype=float)
    places = (np.arange(size) + 0.5) / size * (controls - 3)
    expected = BSpline.design_matrix(places, knots, 3).toarray()
    np.testing.assert_allclose(matrix, expected, atol=1e-12)


@pytest.mark.parametrize(("shape", "controls", "seed"), grid(("square", "wide", "cube", "slab"), (4, 6), range(2)))
def test_a_displacement_is_scipys_tensor_product_spline(shape: str, controls: int, seed: int) -> None:
    size = SHAPES[shape]
    rng = np.random.default_rng([seed, controls])
    points = rng.normal(size=(2, len(size), *[controls] * len(size)))
    tensor = torch.from_numpy(points)
    found = displacement(tensor, bases(tensor, size)).numpy()
    knots = np.arange(-3, controls + 1, dtype=float)
    lines = [(np.arange(n) + 0.5) / n * (controls - 3) for n in size]
    places = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    for batch in range(2):
        spline = NdBSpline((knots,) * len(size), np.moveaxis(points[batch], 0, -1), 3)
        np.testing.assert_allclose(found[batch], np.moveaxis(spline(places), -1, 0), atol=1e-10)


@pytest.mark.parametrize(("shape", "kind", "fields"), grid(("wide", "tall", "cube"), MAPS, (0, 1, 2)))
def test_a_transform_is_the_affine_map_and_the_sum_of_its_splines(shape: str, kind: str, fields: int) -> None:
    size = SHAPES[shape]
    dims = len(size)
    rng = np.random.default_rng([fields, MAPS.index(kind), dims])
    theta = np.stack([affine(kind, dims, rng), affine("random", dims, rng)])
    points = [rng.normal(0, 0.1, (2, dims, *[4 + 2 * level] * dims)) for level in range(fields)]
    transforms = Transforms(torch.from_numpy(theta), tuple(torch.from_numpy(field) for field in points))
    for number in range(2):
        found = transforms.grid(number, size).numpy()
        expected = centres(size) @ theta[number, :, :dims].T + theta[number, :, dims]
        for field in points:
            controls = field.shape[-1]
            knots = np.arange(-3, controls + 1, dtype=float)
            lines = [(np.arange(n) + 0.5) / n * (controls - 3) for n in size]
            spline = NdBSpline((knots,) * dims, np.moveaxis(field[number], 0, -1), 3)
            expected = expected + spline(np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1))
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize(("dims", "controls", "seed"), grid((2, 3), (4, 5), range(2)))
def test_roughness_is_a_sum_over_neighbours(dims: int, controls: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(2, dims, *[controls] * dims)) * 10.0**seed
    expected = np.zeros(2)
    for place in np.ndindex(*points.shape[2:]):
        for axis in range(dims):
            after = tuple(k + (number == axis) for number, k in enumerate(place))
            if after[axis] < controls:
                expected += ((points[(..., *after)] - points[(..., *place)]) ** 2).sum(1)
    np.testing.assert_allclose(roughness(torch.from_numpy(points)).numpy(), expected, rtol=1e-10)


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "factor"),
    grid(((32, 32), (24, 48), (17, 23), (9, 40), (8, 8), (16, 24, 8), (11, 13, 19)), (1, 2, 3, 4, 9)),
)
def test_a_reduced_image_holds_means_over_blocks(shape: tuple[int, ...], factor: int) -> None:
    values = np.random.default_rng(factor).random(shape)
    found = reduced(torch.from_numpy(values)[None, None], factor)[0, 0].numpy()
    for place in np.ndindex(*found.shape):
        block = tuple(
            slice(math.floor(k * n / m), math.ceil((k + 1) * n / m))
            for k, n, m in zip(place, shape, found.shape, strict=True)
        )
        assert found[place] == pytest.approx(values[block].mean(), rel=1e-10)
    assert found.shape == tuple(min(n, max(8, math.ceil(n / factor))) for n in shape)


@pytest.mark.parametrize(("shape", "values", "seed"), grid(SHAPES, ("fractions", "thousands", "one voxel"), range(2)))
def test_centres_of_mass_are_scipys(shape: str, values: str, seed: int) -> None:
    size = SHAPES[shape]
    rng = np.random.default_rng([seed, list(SHAPES).index(shape)])
    mass = rng.random(size) * (1e4 if values == "thousands" else 1.0)
    if values == "one voxel":
        mass = np.zeros(size)
        mass.flat[rng.integers(mass.size)] = 0.01
    found = centre_of_mass(torch.from_numpy(mass)[None, None])[0].numpy()
    expected = [(2 * place + 1) / n - 1 for place, n in zip(ndimage.center_of_mass(mass), size, strict=True)]
    np.testing.assert_allclose(found, expected[::-1], atol=1e-7)


def weighted_correlation(a: Array, b: Array, weights: Array) -> float:
    covariance = np.cov(a.ravel(), b.ravel(), aweights=weights.ravel(), ddof=0)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


@pytest.mark.parametrize(("shape", "weights", "seed"), grid(SHAPES, ("equal", "random", "few", "huge"), range(3)))
def test_the_correlation_of_whole_images_is_numpys_weighted_one(shape: str, weights: str, seed: int) -> None:
    size = SHAPES[shape]
    rng = np.random.default_rng([seed, list(SHAPES).index(shape)])
    fixed, moving = rng.random((2, *size))
    own = {
        "equal": np.ones(size),
        "random": rng.random(size),
        "few": (rng.random(size) < 0.4) + 1e-3,
        "huge": 1e6 * rng.random(size),
    }[weights]
    target = Target(torch.from_numpy(fixed)[None, None], torch.from_numpy(own)[None, None])
    found = float(target(torch.from_numpy(moving)[None, None]))
    assert found == pytest.approx(1 - weighted_correlation(fixed, moving, own), abs=1e-6)


@pytest.mark.parametrize(("gain", "offset"), grid((1e-3, 1.0, 50.0), (-20.0, 0.0, 3.0)))
def test_the_correlation_of_whole_images_ignores_gain_and_offset(gain: float, offset: float) -> None:
    fixed = torch.rand(1, 1, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = Target(fixed, torch.ones_like(fixed))
    assert float(target(gain * fixed + offset)) == pytest.approx(0.0, abs=1e-2 if gain < 1 else 1e-5)
    assert float(target(-gain * fixed + offset)) == pytest.approx(2.0, abs=1e-2 if gain < 1 else 1e-5)


@pytest.mark.parametrize("which", ["fixed", "moving", "both"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_constant_image_correlates_with_nothing(which: str, dims: int) -> None:
    rng = np.random.default_rng(dims)
    noise, flat = torch.from_numpy(rng.random((1, 1, *[6] * dims))), torch.full((1, 1, *[6] * dims), 0.3).double()
    fixed, moving = flat if which != "moving" else noise, flat if which != "fixed" else noise
    assert float(Target(fixed, torch.ones_like(fixed))(moving)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("shape", "window", "seed"), grid(("wide", "line", "slab"), (0.7, 2.0, 50.0), range(3)))
def test_the_local_correlation_is_a_loop_over_voxels(shape: str, window: float, seed: int) -> None:
    size = SHAPES[shape]
    rng = np.random.default_rng([seed, list(SHAPES).index(shape)])
    fixed, moving, weights = rng.random((3, *size))
    target = LocalTarget(torch.from_numpy(fixed)[None, None], torch.from_numpy(weights)[None, None], window=window)
    found = float(target(torch.from_numpy(moving)[None, None]))
    places = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"))
    total = 0.0
    for place in np.ndindex(*size):
        away = sum((axis - k) ** 2 for axis, k in zip(places, place, strict=True))
        near = np.exp(-0.5 * away / window**2)
        near /= near.sum()
        means = [(near * x).sum() for x in (fixed, moving)]
        variances = [(near * (x - m) ** 2).sum() + NOISE for x, m in zip((fixed, moving), means, strict=True)]
        covariance = (near * (fixed - means[0]) * (moving - means[1])).sum()
        total += weights[place] / weights.sum() * covariance / math.sqrt(variances[0] * variances[1])
    assert found == pytest.approx(1 - total, abs=1e-9)


@pytest.mark.parametrize(("size", "deviation"), grid((1, 2, 9, 40), (0.3, 1.0, 6.0)))
def test_a_gaussian_window_is_scipys_with_its_part_outside_left_out(size: int, deviation: float) -> None:
    matrix = gaussian_matrix(size, deviation, like=torch.zeros(1, dtype=torch.float64)).numpy()
    unit = np.eye(size)
    radius = size
    spread = ndimage.gaussian_filter1d(unit, deviation, axis=1, mode="constant", radius=radius)
    np.testing.assert_allclose(matrix, spread / spread.sum(1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize(("shape", "share", "seed"), grid(("wide", "square", "slab"), (0.13, 0.4), range(3)))
def test_local_contrast_is_a_loop_over_windows(shape: str, share: float, seed: int) -> None:
    size = SHAPES[shape]
    values = np.random.default_rng(seed).random(size)
    halves = [max(3, 2 * round(share * n / 2) + 1) // 2 for n in size]
    padded = np.pad(values, [(half, half) for half in halves], mode="edge")
    found = local_contrast(values, share)
    for place in np.ndindex(*size):
        block = padded[tuple(slice(k, k + 2 * half + 1) for k, half in zip(place, halves, strict=True))]
        assert found[place] == pytest.approx((values[place] - block.mean()) / (block.std() + FLAT), abs=1e-6)


@pytest.mark.parametrize(("kind", "reach"), grid(("balls", "boxes", "voxels", "border"), (0.05, 0.2)))
def test_weights_near_organs_fall_with_the_distance_as_a_gaussian(kind: str, reach: float) -> None:
    planes = np.stack(pair(kind, 2, 3))
    shape = planes.shape[1:]
    expected = np.zeros(shape)
    for plane in planes:
        places = np.argwhere(plane) / np.array(shape)
        gaussian = np.array(
            [
                math.exp(-0.5 * (np.linalg.norm(places - np.array(place) / np.array(shape), axis=1).min() / reach) ** 2)
                for place in np.ndindex(*shape)
            ]
        ).reshape(shape)
        expected += gaussian / gaussian.mean() / len(planes)
    found = near_organs(planes, reach)
    np.testing.assert_allclose(found, FLOOR + (1 - FLOOR) * expected, rtol=1e-9)
    assert found.mean() == pytest.approx(1.0)


# --- labels -----------------------------------------------------------------------------------------------------------


def label_map(shape: Sequence[int], rng: np.random.Generator, *, bits: bool = False) -> NDArray[np.int64]:
    coarse = rng.integers(0, 8 if bits else 4, tuple(-(-n // 3) for n in shape))
    for axis in range(len(shape)):
        coarse = coarse.repeat(3, axis)
    return coarse[tuple(slice(n) for n in shape)]


@pytest.mark.parametrize(("shape", "kind", "seed"), grid(SHAPES, MAPS, range(2)))
def test_propagated_labels_are_scipys_nearest_neighbours(shape: str, kind: str, seed: int) -> None:
    size = SHAPES[shape]
    dims = len(size)
    rng = np.random.default_rng([seed, MAPS.index(kind), list(SHAPES).index(shape)])
    maps = np.stack([label_map(size, rng) for _ in range(2)])
    theta = affine(kind, dims, rng) + rng.normal(0, 1e-4, (dims, dims + 1))  # no place halfway between two voxels
    places = centres(rng.integers(3, 9, dims)) @ theta[:, :dims].T + theta[:, dims]
    found = propagate_labels(torch.from_numpy(maps), torch.from_numpy(places)).numpy()
    for own, labels in zip(found, maps, strict=True):
        expected = ndimage.map_coordinates(labels, voxels(places, size), order=0, mode="grid-constant", cval=0)
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize(("shape", "samples", "seed"), grid(("square", "wide", "cube"), (2, 3), range(2)))
def test_a_vote_of_several_points_is_a_loop_over_them(shape: str, samples: int, seed: int) -> None:
    size = SHAPES[shape]
    dims = len(size)
    rng = np.random.default_rng([seed, samples, list(SHAPES).index(shape)])
    labels = label_map(size, rng)
    theta = affine("random", dims, rng) * 0.6
    extent = tuple(int(n) for n in rng.integers(4, 8 if dims == 2 else 6, dims))
    places = centres(extent) @ theta[:, :dims].T + theta[:, dims]
    known = Labels("values", (1, 2, 3), ("a", "b", "c"))
    found = propagate_labels(torch.from_numpy(labels)[None], torch.from_numpy(places), labels=known, samples=samples)[
        0
    ].numpy()
    alone = propagate_labels(torch.from_numpy(labels)[None], torch.from_numpy(places))[0].numpy()
    line = (np.arange(samples) + 0.5) / samples - 0.5
    for place in np.ndindex(*extent):
        around = tuple(slice(max(k - 1, 0), k + 2) for k in place)
        if len(np.unique(alone[around])) == 1:
            assert found[place] == alone[place]
            continue
        # The map is affine, so that the points lie where it takes them.
        votes = []
        for offset in np.stack(np.meshgrid(*[line] * dims, indexing="ij"), axis=-1).reshape(-1, dims):
            own = [(2 * (k + o) + 1) / n - 1 for k, o, n in zip(place, offset, extent, strict=True)][::-1]
            voxel = voxels(theta[:, :dims] @ np.array(own) + theta[:, dims], size)
            nearest = np.floor(voxel + 0.5).astype(int)
            inside = all(0 <= k < n for k, n in zip(nearest, size, strict=True))
            votes.append(int(labels[tuple(nearest)]) if inside else 0)
        tally = [votes.count(label) for label in range(4)]
        assert found[place] == tally.index(max(tally))


@pytest.mark.parametrize(("dims", "seed"), grid((2, 3), range(5)))
def test_boundaries_are_where_a_neighbourhood_holds_two_labels(dims: int, seed: int) -> None:
    rng = np.random.default_rng([dims, seed])
    labels = label_map((9, 7, 8)[:dims], rng)
    filters = [f(labels, size=3, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter)]
    found = label_boundaries(torch.from_numpy(labels)[None])[0].numpy()
    np.testing.assert_array_equal(found, filters[0] != filters[1])


@pytest.mark.parametrize(("samples", "seed"), grid((1, 2, 5), range(3)))
def test_points_inside_a_voxel_are_those_of_a_finer_image(samples: int, seed: int) -> None:
    """Under an affine map: then slopes between voxel centres are exact, at the border too."""
    rng = np.random.default_rng(seed)
    theta, shape = affine("random", 2, rng), (5, 6)
    coarse = centres(shape) @ theta[:, :2].T + theta[:, 2]
    fine = centres([n * samples for n in shape]) @ theta[:, :2].T + theta[:, 2]
    voxel = torch.from_numpy(np.argwhere(np.ones(shape)))
    found = subvoxel_grid(torch.from_numpy(coarse), voxel, samples).numpy()
    blocks = fine.reshape(shape[0], samples, shape[1], samples, 2).transpose(0, 2, 1, 3, 4)
    np.testing.assert_allclose(found, blocks.reshape(len(voxel), samples**2, 2), atol=1e-12)
