"""Anchors and default boxes, against torchvision's generators and against the published recipes written plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.testing import assert_close
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from paperbench.detection.anchors import AnchorGrid, DefaultBoxes, PyramidAnchors, generate_anchors
from tests.peers.cases import cases, random

KINDS = ("published", "random", "small", "tall", "many", "one")


def settings(kind: str, rng: np.random.Generator) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Return sizes, ratios and stride."""
    if kind == "published":
        return (128.0, 256.0, 512.0), (0.5, 1.0, 2.0), 16
    if kind == "one":
        return (float(rng.uniform(8, 300)),), (float(rng.uniform(0.2, 5)),), int(rng.integers(1, 64))
    count = 12 if kind == "many" else 3
    sizes = rng.uniform(1, 6, count) if kind == "small" else rng.uniform(8, 600, count)
    ratios = rng.uniform(5, 30, 4) if kind == "tall" else np.exp(rng.uniform(-1.5, 1.5, 4))
    return tuple(sizes.tolist()), tuple(ratios.tolist()), int(2 ** rng.integers(0, 7))


def their_grid(generator: AnchorGenerator, shapes: list[tuple[int, int]], stride: int) -> torch.Tensor:
    """Return the anchors of one image whose maps of these shapes have the same stride."""
    height, width = shapes[0][0] * stride, shapes[0][1] * stride
    images = ImageList(torch.zeros(1, 1, height, width), [(height, width)])
    return generator(images, [torch.zeros(1, 1, *shape) for shape in shapes])[0]


@cases(KINDS, 6)
def test_rounded_anchors_are_torchvisions(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    sizes, ratios, stride = settings(kind, rng)
    shape = tuple(rng.integers(1, 6, 2).tolist())

    grid = AnchorGrid(sizes=sizes, ratios=ratios, stride=stride, convention="torchvision")

    expected = their_grid(AnchorGenerator((sizes,), (ratios,)), [shape], stride)
    assert_close(grid(*shape), expected, atol=0, rtol=0)
    assert grid.per_location == len(expected) // math.prod(shape)


@cases(KINDS, 6)
def test_continuous_anchors(kind: str, seed: int) -> None:
    """Section 3.1.1: the area is the square of the size, the ratio height over width, the centre that of the cell."""
    rng = random(kind, seed)
    sizes, ratios, stride = settings(kind, rng)
    height, width = rng.integers(1, 5, 2).tolist()

    found = AnchorGrid(sizes=sizes, ratios=ratios, stride=stride)(height, width).double().numpy()

    expected = []
    for row in range(height):
        for column in range(width):
            for ratio in ratios:
                for size in sizes:
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    w = math.sqrt(size * size / ratio)
                    expected.append([x - w / 2, y - w * ratio / 2, x + w / 2, y + w * ratio / 2])
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=2e-4)


def published_base_anchors(scales: list[float], ratios: list[float], base: int) -> NDArray[np.float64]:
    """The recipe of py-faster-rcnn: a base box of whole pixels, reshaped to each ratio, then grown to each scale."""

    def around(width: float, height: float, x: float, y: float) -> list[float]:
        return [x - (width - 1) / 2, y - (height - 1) / 2, x + (width - 1) / 2, y + (height - 1) / 2]

    def measure(box: list[float]) -> tuple[float, float, float, float]:
        width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
        return width, height, box[0] + (width - 1) / 2, box[1] + (height - 1) / 2

    result = []
    for ratio in ratios:
        width, height, x, y = measure([0, 0, base - 1, base - 1])
        new_width = float(np.round(math.sqrt(width * height / ratio)))
        shaped = around(new_width, float(np.round(new_width * ratio)), x, y)
        for scale in scales:
            width, height, x, y = measure(shaped)
            result.append(around(width * scale, height * scale, x, y))
    return np.array(result)


@cases(("published", "random", "odd"), 8)
def test_anchors_of_the_reference_implementation(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    base = {"published": 16, "random": 16, "odd": 15}[kind]
    scales, ratios = [8.0, 16.0, 32.0], [0.5, 1.0, 2.0]
    if kind != "published":
        scales, ratios = rng.integers(1, 40, 4).astype(float).tolist(), np.exp(rng.uniform(-1.5, 1.5, 5)).tolist()

    found = generate_anchors([base * scale for scale in scales], ratios, stride=base, convention="py-faster-rcnn")

    assert_close(found.double().numpy(), published_base_anchors(scales, ratios, base), atol=1e-4, rtol=1e-6)


def test_the_printed_anchors_of_the_reference_implementation() -> None:
    """The nine boxes that the comment in its source prints, less the one that MATLAB counts from."""
    printed = [
        [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200],
        [-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264],
        [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
    ]  # fmt: skip

    found = generate_anchors((128, 256, 512), (0.5, 1, 2), stride=16, convention="py-faster-rcnn")

    assert (found + 1).tolist() == printed


@pytest.mark.parametrize("seed", range(8))
def test_anchors_of_a_pyramid(seed: int) -> None:
    """Section 4.1 of FPN: one size a level."""
    rng = random("pyramid", seed)
    strides = [4, 8, 16, 32][: int(rng.integers(1, 5))]
    sizes, ratios = rng.uniform(8, 300, len(strides)).tolist(), np.exp(rng.uniform(-1, 1, 3)).tolist()
    shapes = [(int(h), int(w)) for h, w in rng.integers(1, 5, (len(strides), 2))]

    found = PyramidAnchors(sizes=sizes, ratios=ratios, strides=strides)(shapes)

    for level, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        alone = AnchorGrid(sizes=(size,), ratios=ratios, stride=stride)(*shapes[level])
        rounded = their_grid(AnchorGenerator(((size,),), (tuple(ratios),)), [shapes[level]], stride)
        assert_close(found[level], alone, atol=0, rtol=0)
        # torchvision rounds the corners and centres its anchors on the corner of the cell.
        assert_close(found[level] - stride / 2, rounded, atol=0.5001, rtol=0)


@cases(("published", "random", "wide", "flat"), 8)
def test_default_boxes_are_torchvisions(kind: str, seed: int) -> None:
    """Torchvision clips widths and heights; the paper's boxes, and ours, are then cut off at the border of the image."""
    rng = random(kind, seed)
    side = 300 if kind == "published" else int(rng.integers(40, 200))
    if kind == "published":
        sizes, ratios = (
            (30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0),
            ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,)),
        )
        maps = [(count, count) for count in (6, 5, 4, 3, 2, 1)]
    else:
        sizes = tuple(np.sort(rng.uniform(5, side * (2 if kind == "wide" else 0.9), 4)).tolist())
        ratios = ((2.0,), tuple(rng.uniform(1.1, 4, 2).tolist()), ())
        maps = [(1 if kind == "flat" else int(h), int(w)) for h, w in rng.integers(1, 7, (3, 2))]

    found = DefaultBoxes(side=side, sizes=sizes, ratios=ratios)(maps, torch.device("cpu"))

    generator = DefaultBoxGenerator([list(own) for own in ratios], scales=[size / side for size in sizes], clip=False)  # pyright: ignore
    images = ImageList(torch.zeros(1, 1, side, side), [(side, side)])
    expected = generator(images, [torch.zeros(1, 1, *shape) for shape in maps])[0].clamp(0, side)
    assert_close(found, expected, atol=1e-4, rtol=1e-5)
