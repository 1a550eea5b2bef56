"""Regions that the head is trained on: proposals that are there, and objects."""

from __future__ import annotations

import pytest
import torch

from paperbench.detection.model_config import HeadConfig
from paperbench.detection.roi_head import every_region, sample_regions
from paperbench.detection.rpn import Proposals

OBJECTS = torch.tensor([[[10.0, 10, 50, 60], [0, 0, 0, 0]]])
LABELS = torch.tensor([[2, 0]])
"""One object, and the padding of an image with two."""


def proposals(there: int, of: int = 12) -> Proposals:
    """Boxes far from the object, of which the first few are there."""
    boxes = torch.tensor([70.0, 70, 90, 90]) + torch.arange(of)[None, :, None]
    return Proposals(boxes, torch.ones(1, of), (torch.arange(of) < there)[None])


@pytest.mark.parametrize("there", [0, 1, 5])
@pytest.mark.parametrize("least", [0.0, 0.1])
def test_what_is_not_there_is_no_background(there: int, least: float) -> None:
    config = HeadConfig(batch_size_per_image=16, positive_fraction=0.25, negative_iou_low=least)
    background = there if least == 0 else 0
    for regions in (
        sample_regions(proposals(there), OBJECTS, LABELS, config, generator=torch.Generator().manual_seed(0)),
        every_region(proposals(there), OBJECTS, LABELS, HeadConfig()) if least == 0 else None,
    ):
        if regions is not None:
            drawn = regions.labels[regions.valid]
            assert sorted(drawn.tolist()) == [0] * background + [2]
            assert set(map(tuple, regions.boxes[regions.valid].tolist())) <= {
                tuple(OBJECTS[0, 0].tolist()), *map(tuple, proposals(there).boxes[0, :there].tolist()),
            }  # fmt: skip
