"""Properties that the transformations must have, numbers that others published, gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from paperbench.stn.colocalise import box_iou, window_boxes
from paperbench.stn.grids import (
    Affine,
    Affine3d,
    Attention,
    GridGenerator,
    Projective,
    Similarity,
    ThinPlateSpline,
    Window,
)
from paperbench.stn.sampling import pixel_points, sample

FAMILIES = [Affine, Similarity, Attention, Projective, ThinPlateSpline]
INVERTIBLE = [Affine, Similarity, Attention, Projective]


def near_identity(grid: GridGenerator, batch: int = 3, spread: float = 0.15) -> Tensor:
    return grid.identity() + spread * torch.randn(batch, grid.count, generator=torch.Generator().manual_seed(1))


def smooth_images(height: int, width: int) -> Tensor:
    """(1, 2, H, W): low frequencies, so that sampling them twice loses little."""
    x, y = pixel_points(height, width).float().unbind(1)
    return torch.stack([torch.cos(1.5 * x + y), torch.sin(2 * y - x)]).view(1, 2, height, width)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(6, 6), (5, 9)])
def test_identity_parameters_return_the_input(family: type[GridGenerator], size: tuple[int, int]) -> None:
    grid = family(size)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    theta = grid.identity().expand(2, -1)
    assert theta.shape == (2, grid.count)
    for sampler, padding in itertools.product(("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")):
        torch.testing.assert_close(
            sample(images, grid(theta), sampler=sampler, padding=padding), images, atol=2e-5, rtol=0
        )


@pytest.mark.parametrize("family", [*FAMILIES, Window])
def test_the_grid_is_the_image_of_the_pixels(family: type[GridGenerator]) -> None:
    grid = family((4, 7))
    theta = near_identity(grid)
    expected = grid.map_points(theta.double(), pixel_points(4, 7))
    torch.testing.assert_close(grid(theta).reshape(3, 28, 2).double(), expected, atol=1e-5, rtol=1e-5)


def test_affine_grid_as_torch_documents_it() -> None:
    theta = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    expected = torch.tensor([[[1.5, 1.5], [2.5, 5.5]], [[3.5, 6.5], [4.5, 10.5]]])
    torch.testing.assert_close(Affine((2, 2))(theta)[0], expected)


def test_bilinear_sampling_of_published_points() -> None:
    """The points have corners at pixel centres; converted to our convention the values must be the same."""
    points = torch.tensor([[-0.9, -4.1], [0.0, 0.2], [1.0, -1.0], [-0.333, 1e-6], [0.5, 1.0]])
    images = torch.arange(1.0, 11.0).view(1, 1, 2, 5)
    sizes = torch.tensor([5.0, 2.0])
    ours = points * (sizes - 1) / sizes
    found = sample(images, ours.view(1, 1, 5, 2)).flatten()
    torch.testing.assert_close(found, torch.tensor([0.0, 6.0, 5.0, 4.8340, 9.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", INVERTIBLE)
def test_a_transformation_and_its_inverse_cancel(family: type[GridGenerator]) -> None:
    grid = family((5, 5))
    theta = near_identity(grid).double()
    points = pixel_points(5, 5)
    there = grid.map_points(theta, points)
    for number in range(len(theta)):
        back = grid.map_points(grid.inverse(theta)[number : number + 1], there[number])  # type: ignore[operator]
        torch.testing.assert_close(back[0], points)


@pytest.mark.parametrize("family", INVERTIBLE)
def test_warping_there_and_back_restores_the_interior(family: type[GridGenerator]) -> None:
    grid = family((24, 24))
    images = smooth_images(24, 24)
    theta = near_identity(grid, 1, 0.03)
    there = sample(images, grid(theta))
    back = sample(there, grid(grid.inverse(theta)))  # type: ignore[operator]
    torch.testing.assert_close(back[..., 5:-5, 5:-5], images[..., 5:-5, 5:-5], atol=0.02, rtol=0)


def test_the_inverse_of_an_affine_map_is_the_matrix_inverse() -> None:
    theta = torch.tensor([[2.0, 0.5, 0.3, -0.2, 1.5, -0.4]], dtype=torch.float64)
    square = torch.cat([theta.view(2, 3), torch.tensor([[0.0, 0.0, 1.0]]).double()])
    torch.testing.assert_close(Affine((2, 2)).inverse(theta).view(2, 3), torch.linalg.inv(square)[:2])


def test_attention_parameters_describe_the_window() -> None:
    theta = torch.tensor([[0.5, 0.25, -0.5]])
    box = window_boxes(theta)[0]
    torch.testing.assert_close(box, torch.tensor([-0.25, -1.0, 0.75, 0.0]))
    grid = Attention((10, 10))(theta)[0]
    half_pixel = 0.5 / 10
    assert grid[..., 0].min() == pytest.approx(-0.25 + half_pixel)
    assert grid[..., 1].max() == pytest.approx(0.0 - half_pixel)


def test_similarity_keeps_angles_and_window_keeps_its_scale() -> None:
    a = Similarity((3, 3)).coefficients(torch.tensor([[0.6, 0.8, 1.0, 2.0]]))[0]
    assert float(a[:, 0] @ a[:, 1]) == pytest.approx(0)
    assert a[:, 2].tolist() == [1.0, 2.0]
    same = Attention((3, 3))(torch.tensor([[0.25, 0.1, 0.2]]))
    torch.testing.assert_close(Window((3, 3), scale=0.25)(torch.tensor([[0.1, 0.2]])), same)


def test_positions_behind_the_horizon_are_outside() -> None:
    theta = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, -2.0, 0.0]])  # the third coordinate is 1 - 2 x
    seen = sample(torch.ones(1, 1, 8, 8), Projective((8, 8))(theta))[0, 0]
    assert (seen[:, 6:] == 0).all()
    assert (seen[3:5, :4] > 0.9).all()


# --- splines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control_points", [2, 3, 4, 6])
def test_a_spline_sends_every_control_point_to_its_target(control_points: int) -> None:
    grid = ThinPlateSpline((3, 3), control_points=control_points)
    theta = near_identity(grid, 4).double()
    found = grid.map_points(theta, grid.control)
    torch.testing.assert_close(found, theta.view(4, 2, -1).transpose(1, 2), atol=1e-8, rtol=0)


def test_a_spline_through_an_affine_image_of_its_points_is_that_map() -> None:
    grid = ThinPlateSpline((6, 4))
    affine = torch.tensor([[0.8, -0.3, 0.2], [0.4, 1.1, -0.1]], dtype=torch.float64)
    lifted = torch.cat([grid.control, torch.ones(16, 1).double()], dim=1)
    theta = (lifted @ affine.t()).t().reshape(1, -1)
    part, weights = grid.spline(theta)
    assert weights.abs().max() < 1e-10
    torch.testing.assert_close(part[0].t()[:, [1, 2, 0]], affine)
    torch.testing.assert_close(grid(theta.float()), Affine((6, 4))(affine.flatten()[None].float()), atol=1e-5, rtol=0)


def test_kernel_weights_are_orthogonal_to_affine_maps() -> None:
    grid = ThinPlateSpline((3, 3))
    _, weights = grid.spline(near_identity(grid))
    lifted = torch.cat([grid.control, torch.ones(16, 1).double()], dim=1)
    assert (lifted.t() @ weights).abs().max() < 1e-8


def test_a_spline_needs_two_control_points_a_side() -> None:
    with pytest.raises(ValueError, match="control_points is 1"):
        ThinPlateSpline((3, 3), control_points=1)


# --- volumes ----------------------------------------------------------------------------------------------------------


def test_volumes_are_returned_by_the_identity_and_restored_by_the_inverse() -> None:
    grid = Affine3d((4, 6, 5))
    volume = torch.rand(2, 3, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    theta = grid.identity().expand(2, -1)
    torch.testing.assert_close(sample(volume, grid(theta)), volume, atol=1e-5, rtol=0)
    moved = (theta + 0.1 * torch.randn(2, 12, generator=torch.Generator().manual_seed(1))).double()
    both = [matrix.view(2, 3, 4) for matrix in (moved, grid.inverse(moved))]
    last = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]]).double().expand(2, -1, -1)
    product = torch.cat([both[0], last], 1) @ torch.cat([both[1], last], 1)
    torch.testing.assert_close(product, torch.eye(4).double().expand(2, -1, -1))


def test_axes_of_volumes_are_x_y_z() -> None:
    """A shift by one voxel along z moves the first axis of the volume alone."""
    grid = Affine3d((4, 3, 3))
    theta = grid.identity()
    theta[11] = 2 / 4
    volume = torch.arange(36.0).view(1, 1, 4, 3, 3)
    moved = sample(volume, grid(theta[None]))
    torch.testing.assert_close(moved[0, 0, :3], volume[0, 0, 1:])
    assert (moved[0, 0, 3] == 0).all()


def test_bicubic_is_refused_on_volumes() -> None:
    with pytest.raises(ValueError, match="bicubic"):
        sample(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 2, 2, 2, 3), sampler="bicubic")


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES, Window])
@pytest.mark.parametrize("sampler", ["bilinear", "bicubic"])
def test_gradients_of_parameters_and_image(family: type[GridGenerator], sampler: str) -> None:
    grid = family((3, 4)).double()
    # Away from positions between which bilinear sampling has a kink.
    theta = near_identity(grid, 2, 0.05).double().requires_grad_()
    images = torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)

    def warp(images: Tensor, theta: Tensor) -> Tensor:
        return sample(images, grid(theta), sampler=sampler)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(warp, (images, theta), eps=1e-7, atol=1e-5)


def test_gradients_in_three_dimensions() -> None:
    grid = Affine3d((2, 3, 2)).double()
    noise = 0.1 * torch.randn(1, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    theta = (grid.identity().double() + noise).requires_grad_()
    volume = torch.rand(
        1, 1, 3, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda v, t: sample(v, grid(t)), (volume, theta), eps=1e-7, atol=1e-5)


# --- boxes ------------------------------------------------------------------------------------------------------------


def test_iou() -> None:
    first = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    second = torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(box_iou(first, second), torch.tensor([1 / 3, 1.0, 0.0, 0.0]))


def test_what_lies_behind_the_horizon_is_far_outside_the_image() -> None:
    """Not mirrored into it: the third coordinate 1 + 2 x changes its sign at x = -1/2."""
    generator = Projective((9, 9))
    theta = generator.identity()
    theta[6] = 2.0
    x = torch.linspace(-1, 1, 21)
    points = torch.stack([x, torch.zeros(21)], dim=1)
    found = generator.map_points(theta[None], points)[0, :, 0]
    behind = x < -0.5
    assert (found[behind] < -100).all()
    torch.testing.assert_close(found[x > -0.45], (x / (1 + 2 * x))[x > -0.45])


@pytest.mark.parametrize(
    "grid", [*(family((5, 7)) for family in [*FAMILIES, Window]), Affine3d((3, 4, 5))], ids=lambda g: g.name
)
def test_constants_can_be_sent_between_ranks(grid: torch.nn.Module) -> None:
    """NCCL broadcasts contiguous tensors alone."""
    buffers = dict(grid.named_buffers())
    assert buffers
    assert [name for name, value in buffers.items() if not value.is_contiguous()] == []
