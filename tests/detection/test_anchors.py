from __future__ import annotations

import pytest
import torch

from paperbench.detection.anchors import AnchorGrid, generate_anchors

# What py-faster-rcnn's generate_anchors() returns for its defaults (its comment prints each value plus one).
PY_FASTER_RCNN = [
    [-84, -40, 99, 55],
    [-176, -88, 191, 103],
    [-360, -184, 375, 199],
    [-56, -56, 71, 71],
    [-120, -120, 135, 135],
    [-248, -248, 263, 263],
    [-36, -80, 51, 95],
    [-80, -168, 95, 183],
    [-168, -344, 183, 359],
]


def test_legacy_convention_gives_the_reference_implementations_anchors() -> None:
    found = generate_anchors((128, 256, 512), (0.5, 1, 2), stride=16, convention="py-faster-rcnn")
    assert found.tolist() == PY_FASTER_RCNN


def test_continuous_anchors_keep_area_ratio_and_centre() -> None:
    found = generate_anchors((128, 256, 512), (0.5, 1, 2), stride=16)
    side = found[:, 2:] - found[:, :2]
    torch.testing.assert_close(side.prod(1), torch.tensor([128.0, 256, 512]).square().repeat(3))
    torch.testing.assert_close(side[:, 1] / side[:, 0], torch.tensor([0.5, 1, 2]).repeat_interleave(3))
    torch.testing.assert_close((found[:, :2] + found[:, 2:]) / 2, torch.full((9, 2), 8.0))


def test_grid_order_is_row_column_anchor() -> None:
    grid = AnchorGrid(sizes=(8, 16), ratios=(1,), stride=4)
    found = grid(2, 3).view(2, 3, 2, 4)
    torch.testing.assert_close(found[1, 2, 1], grid.base[1] + torch.tensor([8.0, 4, 8, 4]))
    assert grid.per_location == 2


def test_an_image_of_1000_by_600_has_the_papers_number_of_anchors() -> None:
    grid = AnchorGrid(sizes=(128, 256, 512), ratios=(0.5, 1, 2), stride=16)
    anchors = grid(38, 63)
    assert len(anchors) == pytest.approx(20000, rel=0.1)  # "roughly 20000 anchors in total"
    within = (anchors >= 0).all(1) & (anchors[:, 2] <= 1000) & (anchors[:, 3] <= 600)
    assert int(within.sum()) == pytest.approx(6000, rel=0.35)  # "about 6000 anchors per image for training"


def test_the_grid_moves_with_its_module() -> None:
    grid = AnchorGrid(sizes=(8,), ratios=(1,), stride=4)
    grid(2, 2)
    assert grid.to("meta")(2, 2).device.type == "meta"
