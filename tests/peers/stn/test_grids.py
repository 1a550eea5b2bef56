"""Grid generators against torch, kornia, SciPy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import RBFInterpolator
from torch import Tensor
from torch.testing import assert_close

from paperbench.stn.distortions import quadrilateral_to_square
from paperbench.stn.grids import (
    Affine,
    Affine3d,
    Attention,
    GridGenerator,
    Projective,
    Similarity,
    ThinPlateSpline,
    Window,
    make_grid,
)
from paperbench.stn.sampling import pixel_points
from tests.peers.cases import cases, random
from tests.peers.packages import peer

kornia = peer("kornia.geometry")

SIZES = ((4, 4), (1, 1), (3, 7), (1, 5), (6, 2))
"""Of the output, odd ones too."""

THETAS = ("near-identity", "random", "large", "zero", "mirrored", "tiny")


def parameters(kind: str, rng: np.random.Generator, identity: Tensor, batch: int = 3) -> Tensor:
    """Return (B, P) float64."""
    noise = torch.from_numpy(rng.normal(0, 1, (batch, len(identity))))
    start = identity.double()
    return {
        "near-identity": start + 0.1 * noise,
        "random": noise,
        "large": 1e4 * noise,
        "zero": torch.zeros_like(noise),
        "mirrored": -start + 0.1 * noise,
        "tiny": 1e-6 * noise,
    }[kind]


def as_matrix(generator: GridGenerator, theta: Tensor) -> Tensor:
    """Return (B, 2, 3), written from the documentation of each family."""
    rows = []
    for values in theta.tolist():
        if isinstance(generator, Affine):
            a, b, x, c, d, y = values
        elif isinstance(generator, Similarity):
            (a, c, x, y), b, d = values, -values[1], values[0]
        elif isinstance(generator, Attention):
            (a, x, y), b, c, d = values, 0.0, 0.0, values[0]
        else:
            (x, y), a, b, c, d = values, 0.5, 0.0, 0.0, 0.5
        rows.append([[a, b, x], [c, d, y]])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("family", [Affine, Similarity, Attention, Window])
@cases(THETAS, 5)
def test_linear_grids_are_torchs(kind: str, seed: int, family: type[GridGenerator]) -> None:
    rng = random(kind + family.__name__, seed)
    size = SIZES[seed % len(SIZES)]
    generator = family(size).double()
    theta = parameters(kind, rng, generator.identity())

    expected = F.affine_grid(as_matrix(generator, theta), [3, 1, *size], align_corners=False)

    assert_close(generator(theta), expected, atol=1e-6 * max(1.0, theta.abs().max().item()), rtol=0)
    points = generator.map_points(theta, pixel_points(*size)).view_as(expected)
    assert_close(points, expected, atol=1e-9 * max(1.0, theta.abs().max().item()), rtol=0)


@cases(("near-identity", "random", "mirrored", "tiny"), 6)
def test_homographies_are_kornias(kind: str, seed: int) -> None:
    """Where the third coordinate is positive; behind the horizon ours lie far outside instead of mirrored inside."""
    rng = random(kind, seed)
    generator = Projective(SIZES[seed % len(SIZES)])
    theta = parameters(kind, rng, generator.identity())
    points = torch.from_numpy(rng.uniform(-1, 1, (20, 2)))
    matrices = torch.cat([theta, torch.ones(3, 1).double()], dim=1).view(3, 3, 3)

    found = generator.map_points(theta, points)

    expected = kornia.linalg.transform_points(matrices, points.expand(3, -1, -1))
    third = (torch.cat([points, torch.ones(20, 1).double()], 1) @ matrices[:, 2].t()).t()
    front = third > Projective.NEAREST
    assert_close(found[front], expected[front], atol=1e-6, rtol=1e-6)
    near = third <= Projective.NEAREST
    numerator = found[near] * Projective.NEAREST
    homogeneous = torch.cat([points, torch.ones(20, 1).double()], 1)
    plane = torch.einsum("bij,nj->bni", matrices[:, :2], homogeneous)
    assert_close(numerator, plane[near], atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", ["affine", "similarity", "attention", "projective"])
@cases(("near-identity", "random", "mirrored"), 5)
def test_inverses(kind: str, seed: int, family: str) -> None:
    """Against the inverse matrix: a family's inverse is of the same family."""
    rng = random(kind + family, seed)
    generator = make_grid(family, (3, 3))
    theta = parameters(kind, rng, generator.identity())
    points = torch.from_numpy(rng.uniform(-0.3, 0.3, (10, 2)))
    if family == "projective":
        theta[:, 6:] *= 0.2
        matrices = torch.cat([theta, torch.ones(3, 1).double()], dim=1).view(3, 3, 3)
    else:
        last = torch.tensor([[[0.0, 0.0, 1.0]]]).double().expand(3, -1, -1)
        matrices = torch.cat([as_matrix(generator, theta), last], dim=1)

    found = generator.inverse(theta)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]

    wanted = np.linalg.inv(matrices.numpy())
    wanted = torch.from_numpy(wanted / wanted[:, 2:, 2:])
    if family == "projective":
        assert_close(found, wanted.flatten(1)[:, :8], atol=1e-6, rtol=1e-6)
    else:
        there = kornia.linalg.transform_points(wanted, points.expand(3, -1, -1))
        assert_close(generator.map_points(found, points), there, atol=1e-6, rtol=1e-6)


@cases(THETAS, 4)
def test_affine_grids_of_volumes_are_torchs(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    size = ((2, 3, 4), (1, 1, 1), (5, 1, 2), (3, 3, 3))[seed]
    generator = Affine3d(size).double()
    theta = parameters(kind, rng, generator.identity())

    expected = F.affine_grid(theta.view(3, 3, 4), [3, 1, *size], align_corners=False)

    assert_close(generator(theta), expected, atol=1e-6 * max(1.0, theta.abs().max().item()), rtol=0)


# --- thin plate splines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points_a_side", [2, 3, 4, 5])
@cases(("near-identity", "random", "mirrored", "zero"), 3)
def test_splines_are_scipys(kind: str, seed: int, points_a_side: int) -> None:
    """Bookstein's spline interpolates its targets with a linear part and the least bending: SciPy's `thin_plate_spline`."""
    rng = random(kind + str(points_a_side), seed)
    generator = ThinPlateSpline((4, 5), control_points=points_a_side)
    theta = parameters(kind, rng, generator.identity())
    line = np.linspace(-1, 1, points_a_side)
    control = np.array([[x, y] for y in line for x in line])
    at = rng.uniform(-1.2, 1.2, (30, 2))

    found = generator.map_points(theta, torch.from_numpy(at))

    for own, values in zip(found.numpy(), theta.numpy(), strict=True):
        targets = values.reshape(2, -1).T
        spline = RBFInterpolator(control, targets, kernel="thin_plate_spline", degree=1)
        np.testing.assert_allclose(own, spline(at), atol=1e-7)
        grid = spline(pixel_points(4, 5).numpy())
        np.testing.assert_allclose(generator(torch.from_numpy(values)[None])[0].reshape(-1, 2).numpy(), grid, atol=3e-5)
        np.testing.assert_allclose(
            generator.map_points(torch.from_numpy(values)[None], torch.from_numpy(control))[0].numpy(),
            targets,
            atol=1e-7,
        )


@pytest.mark.parametrize("points_a_side", [2, 3, 4])
@cases(("near-identity", "random"), 5)
def test_splines_are_evaluated_as_kornia_does(kind: str, seed: int, points_a_side: int) -> None:
    """From the parts of a spline to positions. Kornia solves for another spline, whose kernels sit on the targets."""
    rng = random("kornia" + kind + str(points_a_side), seed)
    generator = ThinPlateSpline((4, 4), control_points=points_a_side)
    theta = parameters(kind, rng, generator.identity())
    affine, weights = generator.spline(theta)
    at = torch.from_numpy(rng.uniform(-1, 1, (30, 2)))

    # Its kernel is r^2 log r, half of Bookstein's.
    expected = kornia.transform.warp_points_tps(
        at.expand(3, -1, -1), generator.control.expand(3, -1, -1), 2 * weights, affine
    )

    assert_close(generator.map_points(theta, at), expected, atol=1e-7, rtol=0)


@cases(("near-identity", "random"), 5)
def test_parts_of_a_spline(kind: str, seed: int) -> None:
    """Kernel weights are orthogonal to 1, x and y; the affine part and the kernel give the positions (Bookstein 1989)."""
    rng = random("parts" + kind, seed)
    generator = ThinPlateSpline((3, 3))
    theta = parameters(kind, rng, generator.identity())

    affine, weights = generator.spline(theta)

    at = rng.uniform(-1, 1, (6, 2))
    control = generator.control.numpy()
    for own, (a, w) in zip(
        generator.map_points(theta, torch.from_numpy(at)), zip(affine, weights, strict=True), strict=True
    ):
        squared = ((at[:, None] - control[None]) ** 2).sum(2)
        kernel = np.where(squared > 0, squared * np.log(np.maximum(squared, 1e-300)), 0)
        np.testing.assert_allclose(own.numpy(), a[0].numpy() + at @ a[1:].numpy() + kernel @ w.numpy(), atol=1e-8)
        np.testing.assert_allclose(w.sum(0).numpy(), 0, atol=1e-8)
        np.testing.assert_allclose(control.T @ w.numpy(), 0, atol=1e-8)


# --- four corners -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["opencv", "kornia"])
@cases(("near", "wide", "square", "turned", "small"), 4)
def test_homographies_from_four_corners(kind: str, seed: int, other: str) -> None:
    rng = random(kind, seed)
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    spread = {"near": 0.1, "wide": 0.35, "square": 0.0, "turned": 0.1, "small": 0.1}[kind]
    corners = np.stack([square + rng.uniform(-spread, spread, (4, 2)) for _ in range(3)])
    if kind == "turned":
        angle = rng.uniform(0, 6)
        corners = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if kind == "small":
        corners *= 1e-2

    found = Projective.matrices(quadrilateral_to_square(torch.from_numpy(corners)))

    if other == "opencv":
        each = [cv2.getPerspectiveTransform(own.astype(np.float32), square.astype(np.float32)) for own in corners]
        expected = torch.from_numpy(np.stack(each))
        assert_close(found, expected, atol=2e-4 * float(expected.abs().max()), rtol=0)
    else:
        given, wanted = torch.from_numpy(corners), torch.from_numpy(square).expand(3, -1, -1)
        expected = kornia.transform.get_perspective_transform(given, wanted)
        assert_close(found, expected / expected[:, 2:, 2:], atol=1e-7 * float(expected.abs().max()), rtol=1e-7)
