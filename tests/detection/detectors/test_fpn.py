from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from paperbench.detection.anchors import PyramidAnchors
from paperbench.detection.backbones import BACKBONES
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.fpn import best_of_levels
from paperbench.detection.feature_pyramid import BottomUp, PyramidNeck
from paperbench.detection.roi_pooling import level_of, pool_from_levels
from paperbench.detection.rpn import Proposals
from paperbench.errors import ConfigError
from tests.detection.detectors.nets import batch, detector

STRIDES = (4, 8, 16, 32)


def test_a_region_of_224_pixels_belongs_to_stride_16_and_half_of_it_to_8() -> None:
    sides = torch.tensor([20.0, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], dim=-1)
    assert level_of(boxes, STRIDES, 224).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert level_of(boxes, (8, 16), 224).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("cells", [16, 64])
def test_pooling_equals_torchvisions(cells: int) -> None:
    # 64 x 64 cells are beyond the size for matrix products, so both ways of pooling are taken.
    torch.manual_seed(0)
    maps = tuple(torch.randn(2, 3, cells >> level, cells >> level) for level in range(3))
    corners = torch.rand(2, 9, 2) * cells * 2
    boxes = torch.cat([corners, corners + 4 + torch.rand(2, 9, 2) * cells * 3], dim=-1)
    canonical = 2 * cells
    theirs = MultiScaleRoIAlign(["0", "1", "2"], 5, 2, canonical_scale=canonical, canonical_level=4)
    size = (cells * 4, cells * 4)
    expected = theirs(OrderedDict(zip("012", maps, strict=True)), list(boxes), [size, size])
    found = pool_from_levels(maps, boxes, strides=STRIDES[:3], canonical=canonical, kind="roi-align", size=5)
    assert len(set(level_of(boxes, STRIDES[:3], canonical).flatten().tolist())) == 3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_whole_bins_are_pooled_from_the_level_too() -> None:
    maps = (torch.zeros(1, 1, 40, 40), torch.ones(1, 1, 20, 20))
    boxes = torch.tensor([[[0.0, 0, 20, 20], [0, 0, 150, 150]]])
    found = pool_from_levels(maps, boxes, strides=(4, 8), canonical=200, kind="roi-pool", size=2)
    assert found.flatten(1).unique(dim=1).tolist() == [[0.0], [1.0]]


def test_each_level_has_one_size_of_anchors() -> None:
    anchors = PyramidAnchors(sizes=(8, 32), ratios=(0.5, 1.0, 2.0), strides=(4, 8))([(3, 2), (2, 1)])
    assert [len(level) for level in anchors] == [3 * 2 * 3, 2 * 1 * 3]
    for level, size in zip(anchors, (8, 32), strict=True):
        areas = (level[:, 2:] - level[:, :2]).prod(1)
        torch.testing.assert_close(areas, torch.full_like(areas, size**2))


def test_the_best_of_all_levels_and_none_that_is_not_there() -> None:
    def level(*scores: float) -> Proposals:
        values = torch.tensor([scores])
        return Proposals(values[..., None].expand(-1, -1, 4), values, values > 0)

    best = best_of_levels([level(0.9, -1.0), level(0.5, 0.7)], 3)
    assert best.boxes[0, :, 0].tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert best.valid.all()
    assert best_of_levels([level(0.9, -1.0), level(0.5)], 3).valid.tolist() == [[True, True, False]]
    suppressed = level(0.9, 0.8)._replace(valid=torch.tensor([[True, False]]))  # which keep their scores
    best = best_of_levels([suppressed, level(0.5)], 2)
    assert best.boxes[0, :, 0].tolist() == pytest.approx([0.9, 0.5])
    assert best.valid.all()


def test_maps_have_the_strides_they_say() -> None:
    backbone = BACKBONES["small"](None)
    bottom_up = BottomUp(backbone, finest=4)
    maps = PyramidNeck(bottom_up.channels, channels=8, deeper=1, pooled=1)(bottom_up(torch.zeros(1, 3, 64, 96)))
    assert [tuple(one.shape[1:]) for one in maps] == [(8, 16, 24), (8, 8, 12), (8, 4, 6), (8, 2, 3)]


def test_a_stride_that_the_backbone_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.pyramid.finest_stride=2: small has maps of stride 4, 8"):
        BottomUp(BACKBONES["small"](None), finest=2)


def test_the_proposals_of_all_levels_are_as_many_as_the_configuration_says() -> None:
    net = detector("fpn", "model.rpn.post_nms_topk_train=9", "model.rpn.post_nms_topk_test=6")
    assert isinstance(net, FasterRCNN)
    with torch.no_grad():
        assert net.train().propose(batch()).boxes.shape == (2, 9, 4)
        assert net.eval().detect(batch())[1].boxes.shape == (2, 6, 4)
