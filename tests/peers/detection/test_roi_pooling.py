"""Features of regions, deformable convolutions and the choice of a level, against torchvision and plain loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.ops as peer
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops.poolers import LevelMapper

from paperbench.detection import roi_pooling
from paperbench.detection.deformable import sampled_conv2d
from paperbench.detection.detectors.rfcn import RFCN
from paperbench.detection.model_config import HeadConfig
from paperbench.stn.deformable import deform_conv
from tests.peers.cases import cases, random
from tests.peers.detection import plain_pooling
from tests.peers.detection.inputs import boxes

KINDS = ("random", "whole", "beyond", "thin", "point", "huge", "tiny", "one", "none")
"""Of regions, in pixels of an image of 100."""

MAPS = ((7, 9), (1, 5), (25, 20), (2, 2))


def features(rng: np.random.Generator, height: int, width: int, *, channels: int = 2, images: int = 2) -> Tensor:
    """Return (B, F, H, W) float64."""
    return torch.from_numpy(rng.normal(0, 1, (images, channels, height, width)))


def regions(kind: str, rng: np.random.Generator, images: int = 2) -> Tensor:
    """Return (B, R, 4) float64."""
    return torch.stack([boxes(kind, rng, 5) for _ in range(images)]).double()


@pytest.mark.parametrize("shape", MAPS, ids=str)
@cases(KINDS, 2)
def test_products_are_torchvisions_roi_align(kind: str, seed: int, shape: tuple[int, int]) -> None:
    rng = random(kind + str(shape), seed)
    maps, own = features(rng, *shape).float().requires_grad_(), regions(kind, rng).float()
    size, scale = int(rng.integers(1, 8)), max(shape) / 100

    found = roi_pooling.roi_align_separable(maps, own, size=size, scale=scale)

    expected = peer.roi_align(maps, roi_pooling.as_rois(own), size, scale, sampling_ratio=2, aligned=False)
    assert_close(found, expected, atol=2e-4 if kind == "beyond" else 2e-5, rtol=0)
    if len(found):
        weight = torch.from_numpy(rng.normal(0, 1, found.shape)).float()
        gradients = [torch.autograd.grad((part * weight).sum(), maps)[0] for part in (found, expected)]
        assert_close(*gradients, atol=1e-3, rtol=0)


@cases(KINDS, 4)
def test_roi_align(kind: str, seed: int) -> None:
    """One sample at a time, both ways that the program computes it."""
    rng = random(kind, seed)
    maps, own = features(rng, 6, 8), regions(kind, rng)
    size = int(rng.integers(1, 5))

    found = roi_pooling.roi_align(maps.float(), own.float(), size=size, scale=0.08)

    expected = [
        plain_pooling.roi_align(image.numpy(), box, size=size, scale=0.08, samples=2, aligned=False)
        for image, given in zip(maps, own.numpy(), strict=True)
        for box in given
    ]
    assert_close(found.double().numpy(), np.array(expected).reshape(found.shape), atol=2e-4, rtol=0)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("seed", range(4))
def test_roi_align_of_short_types(kind: str, seed: int) -> None:
    """Coordinates stay in float32: the result is that of the rounded features, not of other places."""
    rng = random(kind, seed)
    short = features(rng, 12, 16).to(getattr(torch, kind))
    own = regions("random", rng).float()

    found = roi_pooling.roi_align(short, own, size=3, scale=0.16)

    expected = peer.roi_align(short.float(), roi_pooling.as_rois(own), 3, 0.16, sampling_ratio=2, aligned=False)
    assert_close(found.float(), expected, atol=4e-2 if kind == "bfloat16" else 6e-3, rtol=0)


@cases([kind for kind in KINDS if kind != "huge"], 4)
def test_roi_pool(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    maps, own = features(rng, 6, 8), regions(kind, rng)
    size = int(rng.integers(1, 5))

    found = roi_pooling.pool_regions(maps.float(), own.float(), kind="roi-pool", size=size, scale=0.0625)

    expected = [
        plain_pooling.roi_pool(image.float().double().numpy(), box, size=size, scale=0.0625)
        for image, given in zip(maps, own.numpy(), strict=True)
        for box in given
    ]
    assert_close(found.double().numpy(), np.array(expected).reshape(found.shape), atol=0, rtol=0)


@cases(("random", "whole", "beyond", "one"), 3)
def test_spatial_pyramid_pooling(kind: str, seed: int) -> None:
    """Section 2.2 of SPP: each level a grid of maxima, one behind the other."""
    rng = random(kind, seed)
    maps, own = features(rng, 6, 8), regions(kind, rng)

    found = roi_pooling.pyramid_pool(maps.float(), own.float(), levels=(1, 2, 4), scale=0.0625)

    expected = [
        np.concatenate([
            plain_pooling.roi_pool(image.float().double().numpy(), box, size=level, scale=0.0625).flatten()
            for level in (1, 2, 4)
        ])
        for image, given in zip(maps, own.numpy(), strict=True)
        for box in given
    ]  # fmt: skip
    assert_close(found.double().numpy(), np.array(expected), atol=0, rtol=0)


@cases(("random", "whole", "beyond", "thin", "point", "tiny", "one"), 4)
def test_votes_of_rfcn(kind: str, seed: int) -> None:
    """Equation 1 of R-FCN: scores and boxes of a region from maps of their own for each cell."""
    rng = random(kind, seed)
    cells, classes = int(rng.integers(1, 4)), 2
    scores = features(rng, 6, 7, channels=cells**2 * (classes + 1)).float()
    deltas = features(rng, 6, 7, channels=cells**2 * 4).float()
    own = regions(kind, rng)
    net = SimpleNamespace(
        head=lambda x: x,
        predictor=lambda x: (scores, deltas),
        anchors=SimpleNamespace(stride=16),
        head_config=HeadConfig(pool_size=cells, pool="roi-pool"),
    )
    net._pooled = lambda maps, rois: RFCN._pooled(net, maps, rois)  # pyright: ignore[reportArgumentType]

    found = RFCN.classify(net, scores, own.float())  # pyright: ignore[reportArgumentType]

    for place, box in enumerate(own.flatten(0, 1).numpy()):
        image = place // own.shape[1]
        vote = plain_pooling.vote(scores[image].double().numpy(), box, size=cells, scale=1 / 16)
        assert_close(found[0][place].double().numpy(), vote, atol=1e-5, rtol=0)
        vote = plain_pooling.vote(deltas[image].double().numpy(), box, size=cells, scale=1 / 16)
        for label in range(classes + 1):
            assert_close(found[1][place, label].double().numpy(), vote, atol=1e-5, rtol=0)


# --- levels -----------------------------------------------------------------------------------------------------------


@cases(("random", "exact", "tiny", "huge", "thin", "point"), 5)
def test_levels_are_torchvisions(kind: str, seed: int) -> None:
    """Equation 1 of FPN; `exact` are sides at which the level changes."""
    rng = random(kind, seed)
    own = boxes("random" if kind == "exact" else kind, rng, 40)
    if kind == "exact":
        side = torch.from_numpy(224 * 2.0 ** rng.integers(-4, 3, 40)).float()
        own[:, 2:] = own[:, :2].round() + side[:, None]
        own[:, :2] = own[:, :2].round()
    elif kind == "random":
        own = own * float(rng.uniform(1, 20))

    found = roi_pooling.level_of(own, (4, 8, 16, 32), 224)

    assert torch.equal(found, LevelMapper(2, 5)([own]))


@pytest.mark.parametrize("pool", ["roi-align", "roi-pool"])
@cases(("random", "beyond", "large-maps", "one-level", "none"), 3)
def test_regions_of_a_pyramid_are_torchvisions(kind: str, seed: int, pool: roi_pooling.Pooling) -> None:
    rng = random(kind + pool, seed)
    finest = 44 if kind == "large-maps" else 25
    strides = (4,) if kind == "one-level" else (4, 8, 16)
    maps = tuple(features(rng, -(-finest * 4 // stride), -(-finest * 4 // stride)).float() for stride in strides)
    own = regions(kind if kind in ("beyond", "none") else "random", rng).float()

    found = roi_pooling.pool_from_levels(maps, own, strides=strides, canonical=40, kind=pool, size=3)

    levels = LevelMapper(2, 1 + len(strides), canonical_scale=40)(list(own))
    rois = roi_pooling.as_rois(own)
    operator = peer.roi_pool if pool == "roi-pool" else (lambda *a: peer.roi_align(*a, sampling_ratio=2))
    for place, level in enumerate(levels.tolist()):
        alone = operator(maps[level], rois[place : place + 1], 3, 1 / strides[level])
        assert_close(found[place], alone[0], atol=2e-4, rtol=0)


# --- warped regions ---------------------------------------------------------------------------------------------------


@cases(("random", "beyond", "thin", "one"), 4)
def test_warped_regions(kind: str, seed: int) -> None:
    """Appendix A of R-CNN: `context` pixels around the box at the size of the warp; outside the image the mean colour."""
    rng = random(kind, seed)
    images, own = features(rng, 20, 30, channels=3, images=1), regions(kind, rng, images=1)[:, :2] * 0.25
    size, context = 8, 2

    found = roi_pooling.warp(images, own, size=size, context=context)

    for place, (x1, y1, x2, y2) in enumerate(own[0].tolist()):
        more_x, more_y = ((high - low) * context / (size - 2 * context) for low, high in ((x1, x2), (y1, y2)))
        grown = np.array([x1 - more_x, y1 - more_y, x2 + more_x, y2 + more_y])
        expected = plain_pooling.roi_align(images[0].numpy(), grown, size=size, scale=1.0, samples=2, aligned=True)
        assert_close(found[place].double().numpy(), expected, atol=1e-3, rtol=0)


# --- deformable convolutions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@cases(("small", "whole", "zero", "far", "dilated", "wide-kernel"), 4)
def test_deformable_convolutions_are_torchvisions(kind: str, seed: int, stride: int) -> None:
    rng = random(kind + str(stride), seed)
    kernel, dilation = (5 if kind == "wide-kernel" else 3), (2 if kind == "dilated" else 1)
    padding = dilation * (kernel // 2)
    spread = {"zero": 0.0, "far": 20.0}.get(kind, 1.0)
    x = features(rng, 7, 9, channels=3).requires_grad_()
    offset = torch.from_numpy(rng.normal(0, spread, (2, 2 * kernel**2, -(-7 // stride), -(-9 // stride))))
    if kind == "whole":
        offset = offset.round()
    offset.requires_grad_()
    weight = torch.from_numpy(rng.normal(0, 1, (4, 3, kernel, kernel))).requires_grad_()
    bias = torch.from_numpy(rng.normal(0, 1, 4)).requires_grad_()
    pairs: dict[str, Any] = {
        "stride": (stride, stride),
        "padding": (padding, padding),
        "dilation": (dilation, dilation),
    }

    expected = peer.deform_conv2d(x, offset, weight, bias, **pairs)
    found = [sampled_conv2d(x, offset, weight, bias, **pairs)]
    if stride == dilation == 1:
        found.append(deform_conv(x, offset, weight, bias))

    share = torch.from_numpy(rng.normal(0, 1, expected.shape))
    inputs = (
        [x, weight, bias] if kind in ("whole", "zero") else [x, weight, bias, offset]
    )  # at a pixel there is no derivative
    wanted = torch.autograd.grad((expected * share).sum(), inputs)
    for own in found:
        assert_close(own, expected, atol=1e-9, rtol=0)
        assert_close(torch.autograd.grad((own * share).sum(), inputs, retain_graph=True), wanted, atol=1e-8, rtol=0)
