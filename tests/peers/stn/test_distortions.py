"""Distorted digits and what co-localisation computes, against SciPy, torchvision, torch and plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RBFInterpolator
from torch import nn
from torch.testing import assert_close
from torchvision.ops import box_iou

from paperbench.engine.counter_rng import normal
from paperbench.stn import colocalise
from paperbench.stn.distortions import Elastic, Perspective, Rotation, RotationScaleTranslation, TranslationClutter
from paperbench.stn.layers import OneChannelConv2d
from tests.peers.cases import cases, random

SIDE = 28
Array = NDArray[np.float64]


def digits(rng: np.random.Generator, count: int = 3) -> torch.Tensor:
    """Return (N, 28, 28) uint8 with a black border."""
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    images[:, 4:24, 4:24] = rng.integers(0, 256, (count, 20, 20))
    return torch.from_numpy(images)


def draws(kind: str, rng: np.random.Generator, count: int, images: int = 3) -> torch.Tensor:
    """Return (B, draws) in [0, 1): at random, or all at an end."""
    uniform = rng.random((images, count))
    if kind == "lowest":
        uniform[:, :4] = 0.0
    if kind == "highest":
        uniform[:, :4] = 1 - 2.0**-24
    if kind == "middle":
        uniform[:, :4] = 0.5
    return torch.from_numpy(uniform.astype(np.float32))


def looked_up(image: Array, x: NDArray[Any], y: NDArray[Any]) -> Array:
    """Return the image (28, 28) in 0..1 at positions in pixels from its upper left corner."""
    return ndimage.map_coordinates(image / 255, [y - 0.5, x - 0.5], order=1, mode="grid-constant")


def canvas_points(side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return x and y of the pixel centres of a canvas, from its middle, in pixels."""
    line = np.arange(side) + 0.5 - side / 2
    x, y = np.meshgrid(line, line)
    return x, y


@cases(("random", "lowest", "highest", "middle"), 4)
def test_rotated_digits(kind: str, seed: int) -> None:
    """R: by -90 to 90 degrees; a positive angle turns the x axis towards the y axis of the input."""
    rng = random("r" + kind, seed)
    images, uniform = digits(rng), draws(kind, rng, 1)

    found = Rotation()(images, torch.arange(3), uniform)

    x, y = canvas_points(SIDE)
    for image, own, (u,) in zip(images.double().numpy(), found.numpy(), uniform.double().tolist(), strict=True):
        angle = math.radians(180 * (u - 0.5))
        from_x = math.cos(angle) * x + math.sin(angle) * y
        from_y = -math.sin(angle) * x + math.cos(angle) * y
        np.testing.assert_allclose(own[0], looked_up(image, from_x + 14, from_y + 14), atol=2e-5)


@cases(("random", "lowest", "highest", "middle"), 4)
def test_rotated_scaled_and_translated_digits(kind: str, seed: int) -> None:
    """RTS: -45 to 45 degrees, .7 to 1.2, the scaled square anywhere on 42 x 42."""
    rng = random("rts" + kind, seed)
    images, uniform = digits(rng), draws(kind, rng, 4)

    found = RotationScaleTranslation()(images, torch.arange(3), uniform)

    x, y = canvas_points(42)
    for image, own, (a, s, u, v) in zip(images.double().numpy(), found.numpy(), uniform.double().tolist(), strict=True):
        angle, scale = math.radians(90 * (a - 0.5)), 0.7 + 0.5 * s
        room = (42 - scale * SIDE) / 2
        from_middle = x - room * (2 * u - 1), y - room * (2 * v - 1)
        from_x = (math.cos(angle) * from_middle[0] + math.sin(angle) * from_middle[1]) / scale
        from_y = (-math.sin(angle) * from_middle[0] + math.cos(angle) * from_middle[1]) / scale
        np.testing.assert_allclose(own[0], looked_up(image, from_x + 14, from_y + 14), atol=5e-5)


@pytest.mark.parametrize("seed", range(12))
def test_digits_in_perspective(seed: int) -> None:
    """P: the homography by the eight linear equations of its four corners, which are drawn for the extent of the ink."""
    rng = random("p", seed)
    distortion = Perspective()
    images, uniform = digits(rng), draws("random", rng, distortion.draws)

    found = distortion(images, torch.arange(3), uniform)

    extents = []
    for image in images.numpy():
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        extents.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    corners = distortion.corners(uniform, torch.tensor(np.array(extents) / 14 - 1).float()).double().numpy()
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    x, y = (part / 14 for part in canvas_points(SIDE))
    for image, own, quadrilateral in zip(images.double().numpy(), found.numpy(), corners, strict=True):
        rows, right = [], []
        for (u, v), (s, t) in zip(quadrilateral, square, strict=True):
            rows += [[u, v, 1, 0, 0, 0, -u * s, -v * s], [0, 0, 0, u, v, 1, -u * t, -v * t]]
            right += [s, t]
        h = np.append(np.linalg.solve(rows, right), 1.0)
        third = h[6] * x + h[7] * y + 1
        front = third > 0.05
        from_x, from_y = (h[0] * x + h[1] * y + h[2]) / third, (h[3] * x + h[4] * y + h[5]) / third
        expected = looked_up(image, from_x * 14 + 14, from_y * 14 + 14)
        np.testing.assert_allclose(own[0][front], expected[front], atol=2e-3)


@pytest.mark.parametrize("seed", range(10))
def test_elastic_digits(seed: int) -> None:
    """E: a thin plate spline through the moved control points, by SciPy."""
    rng = random("e", seed)
    images, uniform = digits(rng), draws("random", rng, 33)

    found = Elastic()(images, torch.arange(3), uniform)

    line = np.linspace(-1, 1, 4)
    control = np.array([[x, y] for y in line for x in line])
    scale = 0.75 + 0.25 * uniform[:, 0].double().numpy()
    shifts = normal(uniform[:, 1:]).double().numpy().reshape(3, 2, 16).transpose(0, 2, 1) * 1.5 / 14
    x, y = (part / 14 for part in canvas_points(SIDE))
    at = np.stack([x.ravel(), y.ravel()], 1)
    for image, own, size, shift in zip(images.double().numpy(), found.numpy(), scale, shifts, strict=True):
        source = RBFInterpolator(control, (control + shift) / size, kernel="thin_plate_spline", degree=1)(at) * 14 + 14
        expected = looked_up(image, source[:, 0].reshape(28, 28), source[:, 1].reshape(28, 28))
        np.testing.assert_allclose(own[0], expected, atol=3e-4)


@pytest.mark.parametrize(("canvas", "patches"), [(60, 6), (84, 16), (84, 0), (28, 1)])
@cases(("random", "lowest", "highest"), 3)
def test_translated_and_cluttered_digits(kind: str, seed: int, canvas: int, patches: int) -> None:
    """TC: the digit and its patches pasted one after the other, white where they add up to more."""
    rng = random(f"tc{canvas}{patches}" + kind, seed)
    distortion = TranslationClutter(canvas, patches=patches)
    images, uniform = digits(rng, 5), draws(kind, rng, distortion.draws)
    indices = torch.tensor([4, 0, 2])

    found = distortion(images, indices, uniform)

    single = uniform.numpy()  # products in float32, as positions are drawn
    for row, index in enumerate(indices.tolist()):
        expected = np.zeros((canvas, canvas), np.int64)
        u = single[row]

        def whole(value: np.float32, count: int) -> int:
            return min(int(value * np.float32(count)), count - 1)

        left, top = whole(u[0], canvas - 27), whole(u[1], canvas - 27)
        expected[top : top + 28, left : left + 28] += images[index].long().numpy()
        for patch in range(patches):
            of, from_x, from_y, to_x, to_y = u[2 + 5 * patch : 7 + 5 * patch]
            source = images[whole(of, 5)].long().numpy()
            a, b = whole(from_x, 23), whole(from_y, 23)
            c, d = whole(to_x, canvas - 5), whole(to_y, canvas - 5)
            expected[d : d + 6, c : c + 6] += source[b : b + 6, a : a + 6]
        np.testing.assert_allclose(found[row, 0].numpy(), expected.clip(max=255) / 255, atol=1e-6)


# --- layers -----------------------------------------------------------------------------------------------------------


@cases(("digit", "wide", "even-kernel", "one-filter", "as-large-as-the-kernel"), 4)
def test_convolutions_of_one_channel_are_torchs(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    filters, kernel = (1 if kind == "one-filter" else 5), (4 if kind == "even-kernel" else 3)
    height, width = {"wide": (4, 20), "as-large-as-the-kernel": (3, 3)}.get(kind, (9, 9))
    layer = OneChannelConv2d(filters, kernel).double()
    other = nn.Conv2d(1, filters, kernel).double()
    other.load_state_dict(layer.state_dict())
    images = torch.from_numpy(rng.normal(0, 1, (3, 1, height, width)))
    share = torch.from_numpy(rng.normal(0, 1, (3, filters, height - kernel + 1, width - kernel + 1)))

    results = []
    for net in (layer, other):
        own = images.clone().requires_grad_()
        out = net(own)
        results.append((out, *torch.autograd.grad((out * share).sum(), [own, *net.parameters()])))

    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, atol=1e-10, rtol=0)


# --- co-localisation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attraction", [1.0, 2.5])
@cases(("random", "alike", "far", "two", "zero"), 4)
def test_triplet_loss(kind: str, seed: int, attraction: float) -> None:
    """Appendix A.2, every ordered pair."""
    rng = random(kind + str(attraction), seed)
    count = 2 if kind == "two" else 5
    windows, others = (rng.normal(0, {"far": 30.0, "zero": 0.0}.get(kind, 1.0), (count, 4)) for _ in range(2))
    if kind == "alike":
        windows = np.broadcast_to(windows[:1], windows.shape)

    found = colocalise.triplet_loss(
        torch.from_numpy(windows.copy()), torch.from_numpy(others), margin=1.0, attraction=attraction
    )

    total = 0.0
    for n in range(count):
        for m in range(count):
            if n != m:
                between = ((windows[n] - windows[m]) ** 2).sum()
                away = ((windows[n] - others[n]) ** 2).sum()
                total += max(0.0, attraction * between - away + 1.0)
    assert found.item() == pytest.approx(total / (count * (count - 1)), rel=1e-9, abs=1e-9)


@cases(("random", "apart", "same", "empty", "nested"), 4)
def test_overlap_of_windows(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    theta = torch.from_numpy(rng.uniform([0.1, -0.5, -0.5], [0.9, 0.5, 0.5], (6, 3)))
    first = colocalise.window_boxes(theta)
    second = colocalise.window_boxes(torch.from_numpy(rng.uniform([0.1, -0.5, -0.5], [0.9, 0.5, 0.5], (6, 3))))
    if kind == "apart":
        second = second + 10
    elif kind == "same":
        second = first
    elif kind == "empty":
        second = second[:, [0, 1, 0, 1]]
    elif kind == "nested":
        second = colocalise.window_boxes(theta * torch.tensor([0.5, 1, 1]))

    assert_close(colocalise.box_iou(first, second), box_iou(first, second).diagonal(), atol=1e-12, rtol=0)


@cases(("random", "planted", "two"), 5)
def test_search_of_windows(kind: str, seed: int) -> None:
    """The same alternation with every distance computed on its own."""
    rng = random(kind, seed)
    images = 2 if kind == "two" else 5
    encodings = rng.normal(0, 1, (images, 9, 6))
    planted = rng.integers(0, 9, images)
    if kind == "planted":
        encodings[np.arange(images), planted] = rng.normal(0, 3, 6) + 0.01 * rng.normal(0, 1, (images, 6))

    found = colocalise.search_windows(torch.from_numpy(encodings), rounds=4).tolist()

    def distance(a: Array, b: Array) -> float:
        return float(((a - b) ** 2).sum())

    others = [[np.mean([distance(c, o) for o in image]) for c in image] for image in encodings]
    chosen = [int(np.argmax(own)) for own in others]
    for _ in range(4):
        windows = [encodings[n, c] for n, c in enumerate(chosen)]
        chosen = [
            int(
                np.argmin([np.mean([distance(c, w) for w in windows]) - own for c, own in zip(image, far, strict=True)])
            )
            for image, far in zip(encodings, others, strict=True)
        ]
    assert found == chosen
    if kind == "planted":
        assert found == planted.tolist()
