"""Masks in the frames of their boxes, as targets and drawn in the image, against torchvision, pycocotools and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as runs
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from paperbench.detection.masks import as_bytes, as_runs, as_shares, in_frames, in_image, mask_targets, matched_objects
from tests.peers.cases import cases, random
from tests.peers.detection import plain_pooling
from tests.peers.detection.inputs import boxes, plain_iou

SHAPES = ("disk", "ring", "stripes", "full", "empty", "soft", "half")


def drawn(kind: str, rng: np.random.Generator, height: int, width: int | None = None) -> NDArray[np.float32]:
    """Return a mask (H, W) in 0..1."""
    width = width or height
    y, x = np.mgrid[0:height, 0:width]
    middle = rng.uniform(0.3, 0.7, 2) * (height, width)
    away = np.hypot((y - middle[0]) / height, (x - middle[1]) / width)
    radius = rng.uniform(0.15, 0.45)
    mask = {
        "disk": away < radius,
        "ring": (away < radius) & (away > radius / 2),
        "stripes": (x // max(1, width // 6)) % 2 == int(rng.integers(0, 2)),
        "full": np.ones((height, width)),
        "empty": np.zeros((height, width)),
        "soft": np.clip(1.2 - away / radius, 0, 1),
        "half": (x < width * rng.uniform(0.2, 0.8)),
    }[kind]
    return np.asarray(mask, np.float32)


@cases((*SHAPES, "beyond", "thin"), 4)
def test_masks_in_their_frames(kind: str, seed: int) -> None:
    """RoIAlign of the mask, with as many samples as a cell has pixels."""
    rng = random("frame" + kind, seed)
    image = drawn("disk" if kind in ("beyond", "thin") else kind, rng, 24, 30)
    low = rng.uniform(0, 10, 2)
    box = np.concatenate([low, low + rng.uniform(3, 14, 2)]).astype(np.float32)
    if kind == "beyond":
        box += np.float32(12)
    if kind == "thin":
        box[2] = box[0] + np.float32(0.25)

    found = in_frames((image >= 0.5)[None] if kind != "soft" else image[None], box[None], 7)  # pyright: ignore[reportArgumentType]

    pixels = image if kind == "soft" else image >= 0.5
    expected = plain_pooling.roi_align(
        pixels[None].astype(float), box.astype(float), size=7, scale=1.0, samples=0, aligned=True
    )[0]
    np.testing.assert_allclose(found[0] / 255, expected, atol=0.5 / 255 + 1e-4)


@pytest.mark.parametrize("region", ["object", "inner", "larger", "shifted", "outside"])
@cases(SHAPES, 4)
def test_targets_are_torchvisions(kind: str, seed: int, region: str) -> None:
    """A mask whose frame is the image itself: RoIAlign of the region, and a cell is object from one half on.

    Torchvision's samples lie half a pixel too far to the lower right, which its boxes make up for here; it reads a mask's border
    beyond the image by one pixel, ours is 0 outside the object's box.
    """
    rng = random(kind + region, seed)
    cells, size = 28, 14
    mask = drawn(kind, rng, cells)
    box = {
        "object": [0.0, 0, cells, cells],
        "inner": [*rng.uniform(0, 10, 2), *rng.uniform(18, 28, 2)],
        "larger": [*rng.uniform(-6, 0, 2), *rng.uniform(28, 34, 2)],
        "shifted": [*rng.uniform(-10, 5, 2), *rng.uniform(18, 25, 2)],
        "outside": [*rng.uniform(40, 45, 2), *rng.uniform(50, 60, 2)],
    }[region]
    own = torch.tensor([box]).float()
    gt = torch.tensor([[0.0, 0, cells, cells]])

    found = mask_targets(torch.from_numpy(mask)[None], gt, own, size=size)[0].numpy()

    aligned = project_masks_on_boxes(torch.from_numpy(mask)[None], own - 0.5, torch.zeros(1), size)[0].numpy()
    step = (own[0, 2:] - own[0, :2]).numpy() / size
    x, y = (own[0, axis].item() + (np.arange(size) + 0.5) * step[axis] for axis in (0, 1))
    inside = ((y >= 0) & (y <= cells))[:, None] & ((x >= 0) & (x <= cells))[None]
    doubtful = np.abs(aligned - 0.5) < 0.13  # the two take other numbers of samples
    expected = (aligned >= 0.5) & inside
    assert (found.astype(bool) == expected)[~doubtful].all()
    plain = plain_pooling.roi_align(mask[None].astype(float), own[0].numpy(), size=size, scale=1.0,
                                    samples=math.ceil(2 * cells / size), aligned=True)[0]  # fmt: skip
    sure = np.abs(plain - 0.5) > 1e-5
    assert (found.astype(bool) == ((plain >= 0.5) & inside))[sure].all()


@cases(SHAPES, 4)
def test_targets_in_boxes_of_the_image(kind: str, seed: int) -> None:
    """From masks of the image to the targets of a region, against torchvision on the whole mask.

    Objects of few cells, or with long straight edges near one half of a cell, differ in a cell more or less along them.
    """
    rng = random("image" + kind, seed)
    overlaps = []
    for _ in range(4):
        low = rng.uniform(10, 40, 2)
        side = rng.uniform(30, 80, 2)
        box = np.concatenate([low, low + side]).astype(np.float32)
        image = np.zeros((140, 140), np.float32)
        top, left, bottom, right = int(low[1]), int(low[0]), int(low[1] + side[1]), int(low[0] + side[0])
        image[top:bottom, left:right] = drawn(kind, rng, bottom - top, right - left)
        framed = in_frames((image >= 0.5)[None], box[None])
        region = torch.from_numpy(box + rng.normal(0, 3, 4).astype(np.float32))[None]

        found = mask_targets(torch.from_numpy(framed), torch.from_numpy(box)[None], region, size=28)[0].numpy() > 0

        whole = torch.from_numpy((image >= 0.5).astype(np.float32))[None]
        wanted = project_masks_on_boxes(whole, region - 0.5, torch.zeros(1), 28)[0].numpy() >= 0.5
        union = (found | wanted).sum()
        overlaps.append((found & wanted).sum() / union if union else 1.0)
    assert np.mean(overlaps) > (0.94 if kind in ("ring", "stripes", "half") else 0.97)


@cases((*SHAPES, "beyond", "sliver", "outside"), 4)
def test_masks_in_the_image(kind: str, seed: int) -> None:
    """Bilinear values at the centres of the pixels within the box, as torch's sampler with its border repeated gives them."""
    rng = random("paste" + kind, seed)
    mask = (255 * drawn(kind if kind in SHAPES else "disk", rng, 14)).round().astype(np.uint8)
    height, width = 40, 33
    low = rng.uniform(0, 20, 2)
    box = np.concatenate([low, low + rng.uniform(4, 18, 2)])
    if kind == "beyond":
        box = box + rng.uniform(-15, 15)
    elif kind == "sliver":
        box[2] = box[0] + 0.4
    elif kind == "outside":
        box = box + 60

    found = in_image(mask, box, height, width)

    y, x = np.arange(height) + 0.5, np.arange(width) + 0.5
    grid = np.stack(np.meshgrid(2 * (x - box[0]) / (box[2] - box[0]) - 1, 2 * (y - box[1]) / (box[3] - box[1]) - 1), -1)
    values = F.grid_sample(
        torch.from_numpy(mask / 255)[None, None],
        torch.from_numpy(grid)[None],
        padding_mode="border",
        align_corners=False,
    )[0, 0].numpy()
    inside = ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None]
    sure = np.abs(values - 0.5) > 1e-4
    assert (found == ((values >= 0.5) & inside))[sure].all()


@cases(("disk", "ring", "half", "full", "soft"), 4)
def test_masks_in_the_image_are_nearly_torchvisions(kind: str, seed: int) -> None:
    """Torchvision moves boxes to whole pixels and adds one; large masks are nearly the same."""
    rng = random("torchvision" + kind, seed)
    mask = drawn(kind, rng, 28)
    low = rng.integers(5, 20, 2)
    box = np.concatenate([low, low + rng.integers(60, 100, 2)]).astype(np.float64)

    found = in_image(as_bytes(torch.from_numpy(mask)).numpy(), box, 130, 130)

    theirs = paste_masks_in_image(torch.from_numpy(mask)[None, None], torch.from_numpy(box).float()[None], (130, 130))
    wanted = theirs[0, 0].numpy() >= 0.5
    assert (found & wanted).sum() / max(1, (found | wanted).sum()) > (0.9 if kind == "ring" else 0.94)


@cases(("random", "empty", "full", "checkers", "line", "one-pixel"), 3)
def test_runs_are_cocos(kind: str, seed: int) -> None:
    rng = random("runs" + kind, seed)
    height, width = (1, 1) if kind == "one-pixel" else (int(rng.integers(2, 30)), int(rng.integers(2, 30)))
    mask = rng.random((height, width)) < {"empty": -1.0, "full": 2.0}.get(kind, 0.5)
    if kind == "checkers":
        mask = np.indices((height, width)).sum(0) % 2 == seed % 2
    if kind == "line":
        mask = np.zeros((height, width), bool)
        mask[:, width // 2] = True

    found = as_runs(mask)

    assert runs.decode(found).astype(bool).tolist() == mask.tolist()  # pyright: ignore[reportArgumentType]
    assert runs.area(found) == mask.sum()  # pyright: ignore[reportArgumentType]
    # Column after column, the lengths of runs of 0 and 1 in turn, as COCO's format is documented.
    flat = mask.T.flatten().astype(int)
    lengths, current = [0], 0
    for value in flat:
        if value != current:
            lengths.append(0)
            current = value
        lengths[-1] += 1
    again = runs.frPyObjects({"size": [height, width], "counts": lengths}, height, width)  # pyright: ignore
    assert again["counts"].decode("ascii") == found["counts"]  # pyright: ignore


@pytest.mark.parametrize("seed", range(5))
def test_shares_and_bytes(seed: int) -> None:
    rng = random("bytes", seed)
    shares = torch.from_numpy(rng.uniform(-0.2, 1.2, (3, 5, 5)).astype(np.float32))
    shares[0, 0] = torch.tensor([0.0, 1.0, 0.5, float("nan"), 2.0])

    found = as_bytes(shares)

    expected = [
        [round(255 * min(max(0.0 if x != x else x, 0.0), 1.0)) for x in row] for row in shares.flatten(0, 1).tolist()
    ]
    assert np.abs(found.flatten(0, 1).numpy().astype(int) - np.array(expected)).max() <= 1
    assert (as_shares(found) - shares.nan_to_num(nan=0.0).clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


@cases(("random", "whole", "same", "beyond"), 4)
def test_objects_of_regions(kind: str, seed: int) -> None:
    rng = random("objects" + kind, seed)
    regions, objects = boxes(kind, rng, 8)[None], boxes(kind, rng, 5)[None]
    labels = torch.from_numpy(rng.integers(0, 3, (1, 5)))
    labels[0, 0] = 1

    found = matched_objects(regions, objects, labels)[0]

    overlap = plain_iou(objects[0], regions[0])
    overlap[(labels[0] == 0).numpy()] = -1
    assert found.tolist() == overlap.argmax(0).tolist()
