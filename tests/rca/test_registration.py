"""Splines, coordinates and the promises about order and batching."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import BSpline

from paperbench.rca.atlas import local_contrast, near_organs
from paperbench.rca.propagation import propagate_labels
from paperbench.rca.registration import (
    Level,
    Schedule,
    Transforms,
    bases,
    bspline_matrix,
    centre_of_mass,
    displacement,
    lattices,
    reduced,
    register,
    strided_views,
)
from paperbench.rca.similarity import LocalTarget, Target, gaussian_matrix
from tests.rca.made import make_image

FAST = Schedule(affine=((4, 8),), bspline=((2, 5, 6),), stiffness=0.03, stride=2)


def registered(references: torch.Tensor, image: torch.Tensor, schedule: Schedule, scale: torch.Tensor) -> Transforms:
    """Registered from aligned centres of mass."""
    shift = centre_of_mass(image) - scale * centre_of_mass(references)
    return register(references, torch.ones_like(references), image, schedule, scale=scale, shift=shift)


def tensor(number: int, shape: tuple[int, ...] = (32, 36)) -> torch.Tensor:
    image = make_image(number, shape=shape).intensities
    return torch.from_numpy(image / image.max()).double()[None, None]


def test_the_matrix_is_scipys_uniform_cubic_spline() -> None:
    matrix = bspline_matrix(7, 20, like=torch.zeros(1, dtype=torch.float64)).numpy()
    place = (np.arange(20) + 0.5) / 20 * 4
    knots = np.arange(-3, 8)
    for control in range(7):
        basis = BSpline(knots, np.eye(7)[control], 3)
        np.testing.assert_allclose(matrix[:, control], basis(place), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 1)


@pytest.mark.parametrize("shape", [(9, 11), (8, 9, 10)])
def test_a_displacement_is_the_product_over_all_axes(shape: tuple[int, ...]) -> None:
    points = torch.randn(
        2, len(shape), *[5] * len(shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    matrices = bases(points, shape)
    letters = "xyz"[: len(shape)]
    formula = f"bc{letters}," + ",".join(f"{letter.upper()}{letter}" for letter in letters) + f"->bc{letters.upper()}"
    torch.testing.assert_close(displacement(points, matrices), torch.einsum(formula, points, *matrices))


def test_centres_of_mass_have_the_last_axis_first() -> None:
    image = torch.zeros(1, 1, 4, 8)
    image[0, 0, 0, 7] = 2.0
    torch.testing.assert_close(centre_of_mass(image), torch.tensor([[0.875, -0.75]]))


def test_reducing_keeps_the_mean_and_a_least_size() -> None:
    image = torch.rand(1, 1, 64, 30)
    assert reduced(image, 4).shape[2:] == (16, 8)
    assert reduced(image, 100).shape[2:] == (8, 8)
    assert reduced(image[..., :28], 4).mean().item() == pytest.approx(image[..., :28].mean().item(), abs=1e-2)


@pytest.mark.parametrize(("offset", "shape"), [((3, -2), (32, 36)), ((2, -1, 1), (24, 24, 24))])
def test_a_moved_image_is_found_again(offset: tuple[int, ...], shape: tuple[int, ...]) -> None:
    whole = make_image(0, shape=shape)
    assert whole.truth is not None
    image = torch.from_numpy(whole.intensities / whole.intensities.max()).double()[None, None]
    axes = tuple(range(len(shape)))
    reference = torch.roll(image, offset, dims=[2 + axis for axis in axes])
    found = registered(reference, image, Schedule(((4, 25), (2, 15)), (), 0.0), torch.ones(1, len(shape)).double())
    labels = torch.from_numpy(whole.truth)[None]
    drawn = propagate_labels(labels, found.grid(0, shape))[0].numpy()
    wanted = np.roll(whole.truth, offset, axis=axes)
    agree = 2 * ((drawn == wanted) & (wanted > 0)).sum() / ((drawn > 0).sum() + (wanted > 0).sum())
    before = 2 * ((whole.truth == wanted) & (wanted > 0)).sum() / (2 * (wanted > 0).sum())
    assert agree > 0.9 > before


@pytest.mark.parametrize(("shape", "stride"), [((9, 12), 2), ((9, 12), 1), ((7, 8, 9), 3)])
def test_strided_views_views_show_every_voxel_once_with_its_own_place_and_value(
    shape: tuple[int, ...], stride: int
) -> None:
    dims = len(shape)
    stream = torch.Generator().manual_seed(0)
    fixed, weights = (torch.rand(1, 1, *shape, dtype=torch.float64, generator=stream) for _ in range(2))
    base = F.affine_grid(torch.eye(dims, dims + 1, dtype=torch.float64)[None], [1, 1, *shape], align_corners=False)
    points = torch.randn(1, dims, *[5] * dims, dtype=torch.float64, generator=stream)
    matrices = bases(points, shape)
    whole = base + displacement(points, matrices).movedim(1, -1)
    times = torch.zeros(shape)
    views = strided_views(base, matrices, Level(fixed, weights, fixed), Schedule((), (), 0.0, stride=stride))
    for places, (start, rows, target) in zip(lattices(dims, stride), views, strict=True):
        times[places] += 1
        torch.testing.assert_close(start + displacement(points, rows).movedim(1, -1), whole[:, *places])
        same = Target(fixed[:, :, *places], weights[:, :, *places])
        assert isinstance(target, Target)
        torch.testing.assert_close(target(fixed[:, :, *places]), torch.zeros(1).double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(target.product, same.product)
    assert (times == 1).all()


def test_a_window_is_as_wide_on_the_strided_views_voxels_as_on_all() -> None:
    fixed = torch.rand(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    base = F.affine_grid(torch.eye(2, 3, dtype=torch.float64)[None], [1, 1, 16, 16], align_corners=False)
    points = torch.zeros(1, 2, 5, 5, dtype=torch.float64)
    schedule = Schedule((), (), 0.0, stride=2, window=3.0)
    for _, _, target in strided_views(
        base, bases(points, (16, 16)), Level(fixed, torch.ones_like(fixed), fixed), schedule
    ):
        assert isinstance(target, LocalTarget)
        torch.testing.assert_close(target.windows[0], gaussian_matrix(8, 1.5, like=fixed))


def test_local_correlation_lays_over_what_shading_hides() -> None:
    """A strong gradient of brightness rules the correlation of whole images; around every voxel it is constant."""
    whole = make_image(0, shape=(48, 48))
    image = torch.from_numpy(whole.intensities / whole.intensities.max()).double()[None, None]
    shading = torch.linspace(0, 6, 48, dtype=torch.float64)
    reference = torch.roll(image, (2, -2), dims=(2, 3)) + shading
    levels = Schedule((), ((1, 5, 60),), 0.0003)
    start = torch.eye(2, 3, dtype=torch.float64)[None]
    errors = []
    for window in (0.0, 3.0):
        found = register(
            reference, torch.ones_like(reference), image, replace(levels, window=window),
            scale=torch.ones(1, 2).double(), shift=torch.zeros(1, 2).double(),
        )  # fmt: skip
        moved = found.grid(0, (48, 48)) - F.affine_grid(start, [1, 1, 48, 48], align_corners=False)[0]
        wanted = torch.tensor([2.0, -2.0], dtype=torch.float64) * (2 / 48)
        errors.append(float((moved[8:40, 8:40] - wanted).norm(dim=-1).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_every_organ_weighs_the_same_at_any_size() -> None:
    planes = np.zeros((3, 60, 50), bool)
    planes[0, 5:35, 5:25] = True
    planes[1, 45:48, 40:43] = True
    found = near_organs(planes, 0.02)
    assert found.mean() == pytest.approx(1)
    large, small = found[:42, :32].sum(), found[42:, 32:].sum()
    assert small == pytest.approx(large, rel=0.25)
    np.testing.assert_array_equal(near_organs(planes[2:], 0.02), 1)


def test_local_contrast_ignores_scale_and_shading_and_keeps_even_regions_even() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((60, 50))
    image[20:40, 10:30] = 0.5
    image += rng.normal(0, 0.002, image.shape)
    found = local_contrast(image, 0.1)
    shaded = local_contrast(image + np.linspace(0, 0.4, 60)[:, None], 0.1)
    assert np.corrcoef(found.ravel(), shaded.ravel())[0, 1] > 0.97
    assert np.abs(found[:10]).max() < 0.2 < 0.5 < np.abs(found).max()
    np.testing.assert_allclose(local_contrast(np.full((9, 9, 9), 0.3), 0.1), 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 36), (24, 24, 26)])
def test_transforms_depend_on_neither_order_nor_batching(shape: tuple[int, ...]) -> None:
    references = torch.cat([tensor(k, shape) for k in range(4)])
    image, scale = tensor(9, shape), torch.ones(4, len(shape), dtype=torch.float64)
    together = registered(references, image, FAST, scale)
    turned = registered(references.flip(0), image, FAST, scale)
    for k in range(4):
        alone = registered(references[k : k + 1], image, FAST, scale[:1])
        for other, index in ((alone, 0), (turned, 3 - k)):
            torch.testing.assert_close(together.grid(k, shape), other.grid(index, shape), rtol=0, atol=1e-9)


def test_the_affine_part_starts_from_physical_sizes() -> None:
    image = tensor(0, (32, 32))
    still = Schedule(affine=((2, 1),), bspline=(), stiffness=0.0)
    found = registered(image, image, still, torch.tensor([[1.3, 0.8]], dtype=torch.float64))
    diagonal = found.theta[0, [0, 1], [0, 1]]
    torch.testing.assert_close(diagonal, torch.tensor([1.3, 0.8], dtype=torch.float64), atol=0.05, rtol=0)


def test_a_constant_reference_leaves_the_transform_finite() -> None:
    found = registered(torch.zeros(1, 1, 32, 32).double(), tensor(0, (32, 32)), FAST, torch.ones(1, 2).double())
    assert torch.isfinite(found.grid(0, (32, 32))).all()
