"""Samplers and their derivatives, against SciPy, the paper's equations and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.testing import assert_close

from paperbench.stn.sampling import Padding, sample
from tests.peers.cases import cases, random

MODES: dict[Padding, str] = {"zeros": "grid-constant", "border": "nearest", "reflection": "reflect"}
"""The same outside in SciPy's words."""

POSITIONS = ("inside", "pixels", "edges", "beyond", "far", "one-pixel", "line", "between")
"""`pixels`: exactly on centres; `between`: halfway; `edges`: on the outline of the image."""

Array = NDArray[np.float64]


def case(kind: str, rng: np.random.Generator, channels: int = 2) -> tuple[Array, Array]:
    """Return images (2, C, h, w) and pixel positions (2, 3, 5, 2), x before y; the centre of the first pixel is 0."""
    height, width = {"one-pixel": (1, 1), "line": (1, 7)}.get(kind, (5, 6))
    images = rng.normal(0, 1, (2, channels, height, width))
    span = np.array([width, height])
    at = rng.uniform(0, 1, (2, 3, 5, 2)) * span - 0.5
    if kind == "pixels":
        at = np.floor(rng.uniform(0, 1, at.shape) * span)
    elif kind == "between":
        at = np.floor(rng.uniform(0, 1, at.shape) * span) + 0.5
    elif kind == "edges":
        at = np.where(rng.random(at.shape) < 0.5, -0.5, span - 0.5)
    elif kind == "beyond":
        at = rng.uniform(-1, 2, at.shape) * span
    elif kind == "far":
        at = rng.uniform(-50, 50, at.shape) * span
    return images, at


def normalised(at: Array, images: Array) -> Tensor:
    """Return positions with -1 and 1 at the outer edges of the image."""
    span = np.array([images.shape[-1], images.shape[-2]])
    return torch.from_numpy((2 * at + 1) / span - 1)


@pytest.mark.parametrize("padding", list(MODES))
@cases(POSITIONS, 6)
def test_bilinear_is_scipys(kind: str, seed: int, padding: Padding) -> None:
    images, at = case(kind, random(kind + padding, seed))

    found = sample(torch.from_numpy(images), normalised(at, images), padding=padding)

    for image, places, own in zip(images, at, found.numpy(), strict=True):
        for channel, values in zip(image, own, strict=True):
            expected = ndimage.map_coordinates(channel, [places[..., 1], places[..., 0]], order=1, mode=MODES[padding])
            np.testing.assert_allclose(values, expected, atol=1e-8)


@cases(("inside", "beyond", "between"), 5)
def test_trilinear_is_scipys(kind: str, seed: int) -> None:
    rng = random("volume" + kind, seed)
    volume = rng.normal(0, 1, (1, 2, 3, 4, 5))
    span = np.array([5, 4, 3])
    at = rng.uniform(-1 if kind == "beyond" else 0, 2 if kind == "beyond" else 1, (1, 2, 3, 4, 3)) * span - 0.5
    if kind == "between":
        at = np.round(at) + 0.5

    found = sample(torch.from_numpy(volume), torch.from_numpy((2 * at + 1) / span - 1))

    for channel, values in zip(volume[0], found[0].numpy(), strict=True):
        where = [at[0, ..., axis] for axis in (2, 1, 0)]
        expected = ndimage.map_coordinates(channel, where, order=1, mode="grid-constant")
        np.testing.assert_allclose(values, expected, atol=1e-8)


def plain_bilinear(image: Array, x: float, y: float) -> float:
    """Equation 5: every pixel with max(0, 1 - |x - m|) max(0, 1 - |y - n|)."""
    height, width = image.shape
    return sum(
        image[n, m] * max(0.0, 1 - abs(x - m)) * max(0.0, 1 - abs(y - n)) for n in range(height) for m in range(width)
    )


@cases(POSITIONS, 4)
def test_equation_5(kind: str, seed: int) -> None:
    images, at = case(kind, random("5" + kind, seed), channels=1)

    found = sample(torch.from_numpy(images), normalised(at, images)).numpy()

    for number in range(2):
        for row, column in np.ndindex(3, 5):
            expected = plain_bilinear(images[number, 0], *at[number, row, column])
            assert found[number, 0, row, column] == pytest.approx(expected, abs=1e-8)


@cases(("inside", "beyond", "far", "one-pixel", "line"), 5)
def test_equation_4(kind: str, seed: int) -> None:
    """The pixel whose centre is nearest; black where none is."""
    images, at = case(kind, random("4" + kind, seed), channels=1)

    found = sample(torch.from_numpy(images), normalised(at, images), sampler="nearest").numpy()

    height, width = images.shape[-2:]
    for number in range(2):
        for row, column in np.ndindex(3, 5):
            m, n = np.floor(at[number, row, column] + 0.5).astype(int)
            expected = images[number, 0, n, m] if 0 <= m < width and 0 <= n < height else 0.0
            assert found[number, 0, row, column] == expected


@cases(("inside", "beyond", "between", "line"), 5)
def test_gradients_of_equations_6_and_7(kind: str, seed: int) -> None:
    """Of the image: the weights of equation 5; of the position: minus the pixels left of it, plus those right of it."""
    if kind == "between":
        kind_of_case, offset = "pixels", 0.5
    else:
        kind_of_case, offset = kind, 0.0
    images, at = case(kind_of_case, random("6" + kind, seed), channels=1)
    at = at + offset
    tensor, grid = torch.from_numpy(images).requires_grad_(), normalised(at, images).requires_grad_()
    share = np.random.default_rng(seed).normal(0, 1, (2, 1, 3, 5))

    (sample(tensor, grid) * torch.from_numpy(share)).sum().backward()

    height, width = images.shape[-2:]
    of_image, of_grid = np.zeros(images.shape), np.zeros(at.shape)
    for number in range(2):
        for row, column in np.ndindex(3, 5):
            x, y = at[number, row, column]
            for n, m in np.ndindex(height, width):
                across, down = max(0.0, 1 - abs(x - m)), max(0.0, 1 - abs(y - n))
                own = share[number, 0, row, column]
                of_image[number, 0, n, m] += own * across * down
                value = own * images[number, 0, n, m]
                of_grid[number, row, column, 0] += value * down * (0 if abs(m - x) >= 1 else 1 if m >= x else -1)
                of_grid[number, row, column, 1] += value * across * (0 if abs(n - y) >= 1 else 1 if n >= y else -1)
    assert tensor.grad is not None
    assert grid.grad is not None
    np.testing.assert_allclose(tensor.grad.numpy(), of_image, atol=1e-8)
    np.testing.assert_allclose(grid.grad.numpy(), of_grid * np.array([width, height]) / 2, atol=1e-8)


def plain_bicubic(image: Array, x: float, y: float, padding: Padding) -> float:
    """Keys' cubic convolution with a = -3/4, over the sixteen pixels around a position."""
    height, width = image.shape

    def weight(distance: float, a: float = -0.75) -> float:
        d = abs(distance)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    def pixel(n: int, m: int) -> float:
        if padding == "border":
            return float(image[min(max(n, 0), height - 1), min(max(m, 0), width - 1)])
        if padding == "reflection":
            n, m = (k % (2 * size) for k, size in ((n, height), (m, width)))
            n, m = (k if k < size else 2 * size - 1 - k for k, size in ((n, height), (m, width)))
            return float(image[n, m])
        return float(image[n, m]) if 0 <= n < height and 0 <= m < width else 0.0

    left, top = int(np.floor(x)), int(np.floor(y))
    around = range(-1, 3)
    return sum(weight(x - left - j) * weight(y - top - i) * pixel(top + i, left + j) for i in around for j in around)


@pytest.mark.parametrize("padding", list(MODES))
@cases(("inside", "pixels", "edges", "beyond", "line"), 3)
def test_bicubic(kind: str, seed: int, padding: Padding) -> None:
    images, at = case(kind, random("bicubic" + kind + padding, seed), channels=1)
    at = at + 1e-9  # positions on whole pixels are not rounded to either side

    found = sample(torch.from_numpy(images), normalised(at, images), sampler="bicubic", padding=padding).numpy()

    for number in range(2):
        for row, column in np.ndindex(3, 5):
            x, y = at[number, row, column].tolist()
            expected = plain_bicubic(images[number, 0], x, y, padding)
            assert found[number, 0, row, column] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sampler", ["bilinear", "bicubic"])
@cases(("inside", "beyond"), 4)
def test_gradients_by_finite_differences(kind: str, seed: int, sampler: str) -> None:
    images, at = case(kind, random("differences" + kind + sampler, seed), channels=1)
    tensor, grid = torch.from_numpy(images).requires_grad_(), normalised(at, images)
    # Away from the places where the derivative jumps.
    near = np.abs((at + 0.5) * 2 - np.round((at + 0.5) * 2)).min() < 1e-4
    if near:
        grid = grid + 1e-3
    grid.requires_grad_()

    assert torch.autograd.gradcheck(lambda a, b: sample(a, b, sampler=sampler), (tensor, grid), eps=1e-7, atol=1e-4)  # pyright: ignore


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("seed", range(5))
def test_short_types_lose_no_places(kind: str, seed: int) -> None:
    """The values of the rounded image at the places themselves, rounded once."""
    images, at = case("inside", random(kind, seed))
    short = torch.from_numpy(images).to(getattr(torch, kind))
    grid = normalised(at, images).float()

    expected = sample(short.double(), grid.double())

    assert_close(sample(short, grid), expected.to(short.dtype))
