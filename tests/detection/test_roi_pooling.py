from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor

from paperbench.detection.roi_pooling import (
    _pool_chosen,
    _pool_without_waiting,
    as_rois,
    level_of,
    pool_from_levels,
    pool_regions,
    pyramid_pool,
    roi_align,
    roi_align_separable,
    roi_pool,
    warp,
)
from tests.detection.test_boxes import random_boxes


def test_roi_pool_gives_the_published_examples() -> None:
    features = torch.arange(25.0).view(1, 1, 5, 5)
    first = roi_pool(features, torch.tensor([[[1.0, 1, 3, 3]]]), size=2, scale=1.0)
    second = roi_pool(features, torch.tensor([[[0.0, 0, 4, 4]]]), size=3, scale=1.0)
    assert first[0, 0].tolist() == [[12, 13], [17, 18]]
    assert second[0, 0].tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]


@pytest.mark.parametrize("shape", [(20, 20), (9, 31)])
def test_separable_roi_align_equals_torchvisions_values_and_gradients(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 6, *shape, generator=generator, requires_grad=True)
    boxes = random_boxes(24, seed=4, side=120.0).view(2, 12, 4) - 15  # some stick out, some lie outside altogether
    boxes[0, 0] = torch.tensor([30.0, 30, 30, 30])
    rois = torch.cat([torch.arange(2.0).repeat_interleave(12)[:, None], boxes.view(-1, 4)], dim=1)
    expected = torchvision.ops.roi_align(features, rois, 7, 1 / 8, sampling_ratio=2)
    found = roi_align_separable(features, boxes, size=7, scale=1 / 8)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn(found.shape, generator=generator)
    (mine,) = torch.autograd.grad((found * weight).sum(), features)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), features)
    torch.testing.assert_close(mine, theirs, atol=4e-5, rtol=1e-4)


def test_large_maps_take_the_other_way_and_agree() -> None:
    features = torch.randn(1, 2, 50, 60, generator=torch.Generator().manual_seed(0))
    boxes = random_boxes(5, seed=1, side=200.0)[None]
    torch.testing.assert_close(
        roi_align(features, boxes, size=7, scale=1 / 8),
        roi_align_separable(features, boxes, size=7, scale=1 / 8),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("kind", ["roi-pool", "roi-align"])
def test_no_gradient_flows_through_coordinates_and_order_is_image_major(kind: str) -> None:
    features = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]).requires_grad_()
    boxes = torch.tensor([[[0.0, 0, 30, 30]], [[0.0, 0, 30, 30]]], requires_grad=True)
    pooled = pool_regions(features, boxes, kind=kind, size=2, scale=0.25)  # pyright: ignore[reportArgumentType]
    assert pooled.shape == (2, 3, 2, 2)
    assert pooled[0].abs().sum() == 0
    assert (pooled[1] == 1).all()
    pooled.sum().backward()
    assert boxes.grad is None


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "roi-pool": lambda maps, boxes: roi_pool(maps, boxes, size=3, scale=0.25),
    "roi-align": lambda maps, boxes: roi_align(maps, boxes, size=3, scale=0.25),
    "pyramid": lambda maps, boxes: pyramid_pool(maps, boxes, levels=(2, 1), scale=0.25),
    "levels, roi-pool": lambda maps, boxes: pool_from_levels(
        (maps, maps[..., ::2, ::2]), boxes, strides=(4, 8), canonical=112, kind="roi-pool", size=3
    ),
    "levels, roi-align": lambda maps, boxes: pool_from_levels(
        (maps, maps[..., ::2, ::2]), boxes, strides=(4, 8), canonical=112, kind="roi-align", size=3
    ),
    "warped": lambda maps, boxes: warp(maps, boxes, size=5, context=1),
}


@pytest.mark.parametrize("cells", [20, 50])  # on either side of the size for matrix products
@pytest.mark.parametrize("way", WAYS)
def test_several_regions_of_several_images_are_pooled_as_each_image_s_alone(way: str, cells: int) -> None:
    maps = torch.randn(3, 3, cells, cells, generator=torch.Generator().manual_seed(0))
    boxes = random_boxes(12, seed=1, side=70.0).view(3, 4, 4)
    together = WAYS[way](maps, boxes)
    alone = [WAYS[way](maps[image : image + 1], boxes[image : image + 1]) for image in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("kind", ["roi-pool", "roi-align"])
def test_pooling_that_waits_for_no_count_equals_that_of_each_level_s_own_regions(kind: str) -> None:
    """Values and gradients; a region of another level must not even leave a NaN behind."""
    stream = torch.Generator().manual_seed(3)
    strides = (4, 8, 16)
    maps = tuple(torch.randn(2, 3, 96 // s, 128 // s, generator=stream, requires_grad=True) for s in strides)
    boxes = random_boxes(40, seed=4, side=90.0).view(2, 20, 4)
    level = level_of(boxes, strides, 64.0).flatten()
    assert set(level.tolist()) == {0, 1, 2}
    results = []
    for pool in (_pool_chosen, _pool_without_waiting):
        pooled = pool(maps, as_rois(boxes), level, strides, kind, 3)  # type: ignore[arg-type]
        results.append((pooled, *torch.autograd.grad(pooled.square().sum(), maps)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
