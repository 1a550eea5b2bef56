from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.boxes import exact_iou
from paperbench.detection.matching import POSITIVE, match
from paperbench.detection.model_config import RpnConfig
from paperbench.detection.rpn import RPNHead, RPNLoss, objectness_score, propose


def test_the_head_on_vgg16_has_the_papers_number_of_weights() -> None:
    head = RPNHead(in_channels=512, channels=512, anchors=9)
    weights = {name: value.numel() for name, value in head.named_parameters() if name.endswith("weight")}
    assert weights["objectness.weight"] + weights["deltas.weight"] == 27_648  # 512 x (4 + 2) x 9
    assert sum(weights.values()) == 2_386_944  # "2.4 x 10^6" with the 3x3 convolution


def test_outputs_are_in_the_order_of_the_anchor_grid() -> None:
    head = RPNHead(in_channels=4, channels=4, anchors=3, softmax=False)
    with torch.no_grad():
        for layer in (head.conv, head.objectness, head.deltas):
            layer.weight.zero_()
        head.objectness.bias.copy_(torch.arange(3.0))  # pyright: ignore[reportOptionalMemberAccess]
        head.deltas.bias.copy_(torch.arange(12.0))  # pyright: ignore[reportOptionalMemberAccess]
    logits, deltas = head(torch.randn(2, 4, 5, 6))
    assert logits.shape == (2, 5 * 6 * 3, 1)
    assert objectness_score(logits)[0, :6].tolist() == [0, 1, 2, 0, 1, 2]
    assert deltas[1, 4].tolist() == [4, 5, 6, 7]


def test_the_score_of_a_softmax_is_its_log_odds() -> None:
    logits = torch.tensor([[[0.5, 2.0]]])
    assert torch.allclose(objectness_score(logits).sigmoid(), logits.softmax(-1)[..., 1])


def test_loss_falls_to_nothing_for_perfect_outputs_and_counts_only_anchors_inside() -> None:
    grid = AnchorGrid(sizes=(16,), ratios=(1,), stride=16)
    anchors = grid(4, 4)
    boxes, labels = anchors[5].view(1, 1, 4), torch.ones(1, 1, dtype=torch.int64)
    logits = torch.full((1, 16, 1), -30.0)
    logits[0, 5] = 30.0
    loss = RPNLoss(RpnConfig(positive_iou=0.7, batch_size_per_image=16))
    common = {"sizes": torch.tensor([[64, 64]]), "gt_boxes": boxes, "gt_labels": labels, "stride": (16,)}
    objectness, box = loss(logits, torch.zeros(1, 16, 4), anchors, **common)
    assert objectness < 1e-6
    assert box == 0
    wrong, _ = loss(-logits, torch.zeros(1, 16, 4), anchors, **common)
    assert wrong > 20
    # The image is one cell smaller: the anchors of its last column and row cross the border and are never sampled.
    common["sizes"] = torch.tensor([[56, 56]])
    outside = logits.clone()
    outside.view(4, 4)[3, :] = 30.0
    outside.view(4, 4)[:, 3] = 30.0
    assert loss(outside, torch.zeros(1, 16, 4), anchors, **common)[0] < 1e-6


@pytest.mark.parametrize(("height", "cells"), [(48, 3), (49, 4), (63, 4), (64, 4)])
def test_a_cell_that_the_image_reaches_into_counts_whole(height: int, cells: int) -> None:
    """N_reg of equation 1 is the size of the map, whose last row an image of no multiple of the stride fills in part."""
    anchors = AnchorGrid(sizes=(16,), ratios=(1.0,), stride=16)(4, 4)
    loss = RPNLoss(
        RpnConfig(batch_size_per_image=16, normalisation="paper", loss_weight=1.0, ignore_cross_boundary=False)
    )
    _, box = loss(
        torch.zeros(1, 16, 2), torch.ones(1, 16, 4), anchors, sizes=torch.tensor([[height, 64]]),
        gt_boxes=anchors[None, 5:6].clone(), gt_labels=torch.tensor([[1]]), stride=(16,),
    )  # fmt: skip
    distance = 4 * (1 - 0.5 / 9)  # of four offsets by 1, with sigma 3
    assert box.item() == pytest.approx(distance / (cells * 4))


def test_proposals_are_ranked_clipped_filtered_and_suppressed() -> None:
    anchors = torch.tensor([[0.0, 0, 20, 20], [1, 1, 21, 21], [40, 40, 80, 80], [10, 10, 13, 40]])
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.8]])
    found = propose(
        scores,
        torch.zeros(1, 4, 4),
        anchors,
        torch.tensor([[60, 60]]),
        torch.ones(1),
        RpnConfig(pre_nms_topk_test=4, post_nms_topk_test=3, nms_iou=0.7, min_size=4.0),
        training=False,
    )
    assert found.valid.tolist() == [[True, True, False]]
    assert found.boxes[0, :2].tolist() == [[1, 1, 21, 21], [40, 40, 60, 60]]
    assert torch.allclose(found.scores[0, :2], torch.tensor([0.9, 0.5]))


def test_the_smallest_side_is_a_number_of_each_image() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10]]).expand(2, 4) + torch.tensor([[0.0], [30.0]])
    found = propose(
        torch.rand(2, 2),
        torch.zeros(2, 2, 4),
        anchors,
        torch.tensor([[60, 60], [60, 60]]),
        torch.tensor([1.0, 2.0]),
        RpnConfig(pre_nms_topk_train=2, post_nms_topk_train=2, min_size=8.0),
        training=True,
    )
    assert found.valid.any(1).tolist() == [True, False]


# --- rule (i): all the best anchors -----------------------------------------------------------------------------------


def exact_anchors(sizes: Sequence[float], ratios: Sequence[float], stride: int, cells: int) -> np.ndarray:
    """The anchors of a square map in float64, in the order of `AnchorGrid`: (A, 4)."""
    boxes = []
    for row in range(cells):
        for column in range(cells):
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            for ratio in ratios:
                for size in sizes:
                    half = size / 2 / math.sqrt(ratio), size / 2 * math.sqrt(ratio)
                    boxes.append((x - half[0], y - half[1], x + half[0], y + half[1]))
    return np.array(boxes)


@pytest.mark.parametrize(
    ("sizes", "stride", "side"), [((22, 40, 70), 8, 160), ((64, 128, 240), 16, 534), ((128, 256, 512), 16, 1000)]
)
def test_every_best_anchor_is_positive(sizes: tuple[int, ...], stride: int, side: int) -> None:
    """Small objects have many: every anchor of an area that holds them overlaps them alike."""
    ratios, cells = (0.5, 1.0, 2.0), side // stride
    exact, rng = exact_anchors(sizes, ratios, stride, cells), np.random.default_rng(0)
    anchors = AnchorGrid(sizes=sizes, ratios=ratios, stride=stride)(cells, cells)
    np.testing.assert_allclose(anchors, exact, atol=1e-3)
    several = 0
    for _ in range(40):
        half = sizes[0] * rng.uniform(0.1, 0.6, 2)
        centre = rng.uniform(half, side - half)
        box = np.concatenate([centre - half, centre + half]).astype(np.float32)
        corners = np.minimum(exact[:, 2:], box[2:]) - np.maximum(exact[:, :2], box[:2])
        both = corners.clip(0).prod(1)
        sides = box[2:].astype(float) - box[:2]
        overlap = both / (sides.prod() + (exact[:, 2:] - exact[:, :2]).prod(1) - both)
        best = overlap >= overlap.max() * (1 - 1e-11)
        several += best.sum() > 1
        found = match(
            exact_iou(torch.from_numpy(box).view(1, 1, 4), anchors[None]),
            torch.ones(1, 1, dtype=torch.bool),
            positive=2.0,  # rule (i) alone
            negative=0.3,
            best_for_each=True,
        )
        np.testing.assert_array_equal(found.labels[0] == POSITIVE, best)
    assert several > 10


# --- numbers that are none --------------------------------------------------------------------------------------------

NO_NUMBERS = [float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("part", ["score", "x", "width"])
def test_what_is_not_finite_is_no_proposal(part: str, value: float) -> None:
    anchors = torch.tensor([[0.0, 0, 20, 20], [30, 30, 50, 50], [60, 60, 90, 90]])
    scores, deltas = torch.tensor([[0.1, 0.9, 0.5]]), torch.zeros(1, 3, 4)
    if part == "score":
        scores[0, 1] = value
    else:
        deltas[0, 1, 0 if part == "x" else 2] = value
    for count in (3, 2):
        found = propose(
            scores,
            deltas,
            anchors,
            torch.tensor([[100, 100]]),
            torch.ones(1),
            RpnConfig(pre_nms_topk_test=count, post_nms_topk_test=count, min_size=0.0),
            training=False,
        )
        assert found.boxes[found.valid].tolist() == [[60, 60, 90, 90], [0, 0, 20, 20]]
        assert torch.isfinite(found.boxes).all()


def test_as_many_are_ranked_and_as_many_are_left_as_the_configuration_says() -> None:
    """Eight boxes in one place have the best scores, then come others in places of their own."""
    places = torch.cat([torch.zeros(8), torch.arange(1.0, 13)])
    anchors = torch.stack([places * 30, places * 0, places * 30 + 20, places * 0 + 20], 1)
    scores, sizes = torch.arange(20.0, 0, -1)[None], torch.tensor([[40, 600]])
    for training in (True, False):
        config = RpnConfig(
            pre_nms_topk_train=12, post_nms_topk_train=4, pre_nms_topk_test=16, post_nms_topk_test=7, min_size=0, nms_iou=0.5
        )  # fmt: skip
        found = propose(scores, torch.zeros(1, 20, 4), anchors, sizes, torch.ones(1), config, training=training)
        # The ranked ones lie in 1 + 12 - 8 places, and 1 + 16 - 8.
        assert (found.valid.shape[1], int(found.valid.sum())) == ((4, 4) if training else (7, 7))
        wide = RpnConfig(pre_nms_topk_train=12, pre_nms_topk_test=16, min_size=0, nms_iou=0.5)
        found = propose(scores, torch.zeros(1, 20, 4), anchors, sizes, torch.ones(1), wide, training=training)
        assert int(found.valid.sum()) == (5 if training else 9)
