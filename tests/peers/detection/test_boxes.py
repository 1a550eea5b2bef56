"""Overlaps, the parametrisation of boxes and cutting at the border, against torchvision and plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision.ops as peer
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder

from paperbench.detection import boxes as box_ops
from tests.peers.cases import cases, random
from tests.peers.detection.inputs import KINDS, SOLID, boxes, plain_iou

STDS = ((1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2), (0.5, 0.25, 2.0, 1.0))


@cases(KINDS, 5)
def test_overlap(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    a, b = boxes(kind, rng), boxes(kind, rng, 7)
    if kind == "same":
        b = a[:7]
    expected = plain_iou(a, b)

    assert_close(box_ops.exact_iou(a, b).numpy(), expected, atol=1e-12, rtol=0)
    assert_close(box_ops.iou(a, b).double().numpy(), expected, atol=2e-2 if kind == "far" else 2e-6, rtol=0)
    # torchvision divides 0 by 0 where two boxes have no area.
    assert_close(box_ops.exact_iou(a, b), peer.box_iou(a.double(), b.double()).nan_to_num(0), atol=1e-12, rtol=0)


@cases(KINDS, 3)
def test_overlap_of_batches(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    a, b = (torch.stack([boxes(kind, rng, count) for _ in range(3)]) for count in (6, 4))

    expected = torch.stack([peer.box_iou(x.double(), y.double()).nan_to_num(0) for x, y in zip(a, b, strict=True)])

    assert_close(box_ops.exact_iou(a, b), expected, atol=1e-12, rtol=0)


@cases(KINDS, 2)
def test_area(kind: str, seed: int) -> None:
    some = boxes(kind, random(kind, seed))

    assert_close(box_ops.area(some), peer.box_area(some))


@pytest.mark.parametrize("std", STDS, ids=["plain", "head", "odd"])
@cases(SOLID, 4)
def test_encoding(kind: str, seed: int, std: box_ops.BoxStd) -> None:
    rng = random(kind, seed)
    reference, some = boxes(kind, rng).double(), boxes(kind, rng).double()

    expected = BoxCoder(tuple(1 / s for s in std)).encode_single(some, reference)  # pyright: ignore[reportArgumentType]

    assert_close(box_ops.encode(reference, some, std), expected, atol=1e-9, rtol=1e-9)
    if kind != "thin":  # changes beyond the bound do not come back
        largest = float(some.abs().max()) if len(some) else 1.0
        assert_close(box_ops.decode(reference, expected, std), some, atol=1e-9 * largest, rtol=0)


@cases(SOLID, 4)
def test_targets_of_rcnn(kind: str, seed: int) -> None:
    """Equations 6 to 9 of R-CNN, appendix C: P is the proposal, G the object."""
    rng = random(kind, seed)
    p, g = boxes(kind, rng), boxes(kind, rng)
    found = box_ops.encode(p.double(), g.double())
    for row, (p1, p2) in enumerate(zip(p.double().tolist(), g.double().tolist(), strict=True)):
        pw, ph, gw, gh = p1[2] - p1[0], p1[3] - p1[1], p2[2] - p2[0], p2[3] - p2[1]
        px, py, gx, gy = p1[0] + pw / 2, p1[1] + ph / 2, p2[0] + gw / 2, p2[1] + gh / 2
        expected = [(gx - px) / pw, (gy - py) / ph, math.log(gw / pw), math.log(gh / ph)]
        np.testing.assert_allclose(found[row].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", ["usual", "large", "zero", "half"])
@cases(("random", "whole", "beyond", "thin", "none"), 4)
def test_decoding(kind: str, seed: int, size: str) -> None:
    """Changes of the scale beyond 1000 / 16 are cut off on both sides."""
    rng = random(kind + size, seed)
    reference = boxes(kind, rng)
    spread = {"usual": 0.5, "large": 6.0, "zero": 0.0, "half": 0.5}[size]
    deltas = torch.from_numpy(rng.normal(0, spread, (len(reference), 4)).astype(np.float32))
    if size == "half":
        deltas = deltas.half().float()
    for std in STDS:
        coder = BoxCoder(tuple(1 / s for s in std))  # pyright: ignore[reportArgumentType]
        expected = coder.decode_single(deltas, reference)
        assert_close(box_ops.decode(reference, deltas, std), expected, atol=2e-3, rtol=2e-6)


@cases((*KINDS, "infinite"), 3)
def test_cutting_at_the_border(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    batch = torch.stack([boxes("random" if kind == "infinite" else kind, rng) for _ in range(3)])
    if kind == "infinite":
        batch = torch.where(torch.from_numpy(rng.random(batch.shape) < 0.3), torch.inf, batch)
        batch[..., :2] *= torch.from_numpy(rng.choice([-1.0, 1.0], batch[..., :2].shape)).float()
    sizes = torch.from_numpy(rng.integers(1, 120, (3, 2)))

    expected = [
        peer.clip_boxes_to_image(one, (int(size[0]), int(size[1]))) for one, size in zip(batch, sizes, strict=True)
    ]

    assert_close(box_ops.clip(batch, sizes), torch.stack(expected), atol=0, rtol=0)


@cases(("random", "whole", "beyond", "nested", "huge", "none"), 4)
def test_inside_the_border(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    some, sizes = boxes(kind, rng, 20), torch.tensor([[100, 90], [70, 80], [1, 1]])
    margin = float(rng.choice([0.0, 10.0]))

    found = box_ops.inside(some, sizes, margin)

    for image, (height, width) in enumerate(sizes.tolist()):
        for box, (x1, y1, x2, y2) in enumerate(some.tolist()):
            expected = x1 >= -margin and y1 >= -margin and x2 <= width + margin and y2 <= height + margin
            assert found[image, box].item() == expected
