from __future__ import annotations

import pytest
import torch

from paperbench.detection.successors.mask_head import MaskHead, mask_loss, mask_targets, matched_objects


def test_targets_are_the_part_of_the_object_in_the_region() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, :, :4] = 255
    box = torch.tensor([[10.0, 20, 50, 60]])
    half = torch.tensor([[1.0, 1, 0, 0]]).expand(4, -1)

    def of(region: list[float]) -> torch.Tensor:
        return mask_targets(mask, box, torch.tensor([region]), size=4)[0]

    assert of([10, 20, 50, 60]).equal(half)
    assert of([10, 20, 30, 60]).equal(torch.ones(4, 4))
    assert of([30, 20, 50, 60]).equal(torch.zeros(4, 4))
    # A region twice as wide and high as the object's box: what lies outside the box is not the object.
    outside = torch.zeros(4, 4)
    outside[:2, 0] = 1
    assert of([10, 20, 90, 100]).equal(outside)


def test_the_loss_counts_positive_regions_alone() -> None:
    logits = torch.zeros(3, 2, 2)
    targets = torch.ones(3, 2, 2)
    logits[2] = 100
    assert mask_loss(logits, targets, torch.tensor([True, False, False])).item() == pytest.approx(0.6931, abs=1e-4)
    assert mask_loss(logits, targets, torch.tensor([True, False, True])).item() == pytest.approx(0.3466, abs=1e-4)
    assert mask_loss(logits, targets, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_each_region_gets_the_mask_of_its_own_class() -> None:
    torch.manual_seed(0)
    head = MaskHead(in_channels=3, channels=4, convolutions=1, classes=2)
    pooled = torch.randn(2, 3, 5, 5)
    every = head.masks(head.layers(pooled))
    assert head(pooled, torch.tensor([2, 1])).shape == (2, 10, 10)
    torch.testing.assert_close(head(pooled, torch.tensor([2, 1])), torch.stack([every[0, 1], every[1, 0]]))


def test_padding_is_nobodys_object() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
    truth = torch.tensor([[[19.0, 19, 30, 30], [0, 0, 9, 9], [0, 0, 0, 0]]])
    assert matched_objects(boxes, truth, torch.tensor([[1, 1, 0]])).tolist() == [[1, 0]]
