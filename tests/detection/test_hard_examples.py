from __future__ import annotations

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.detection.build import build_faster_rcnn
from paperbench.detection.detector import FasterRCNN
from paperbench.detection.hard_examples import hardest
from paperbench.detection.losses import fast_rcnn_loss, loss_of_each_region
from tests.detection.test_detector import batch


@pytest.fixture
def mining() -> FasterRCNN:
    torch.manual_seed(0)
    config = compose("faster-rcnn", ["scale=smoke", "model.head.mining=true"]).config
    return build_faster_rcnn(config.model, classes=["cat", "dog"]).train()


def test_the_largest_losses_are_taken_and_twins_count_once() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60], [80, 80, 90, 90], [0, 0, 0, 0]]])
    losses = torch.tensor([[2.0, 3, 1, 0.5, 9]])
    valid = torch.tensor([[True, True, True, True, False]])
    found = hardest(boxes, losses, valid, count=2, nms_iou=0.7)
    assert found.chosen.tolist() == [[1, 2]]  # 0 is the twin of 1, which costs more; the last is not there
    assert found.valid.all()
    everything = hardest(boxes, losses, valid, count=5, nms_iou=1.0)
    assert everything.chosen[everything.valid].tolist() == [1, 0, 2, 3]


def test_losses_of_single_regions_add_up_to_the_loss_of_the_minibatch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, deltas, targets = (torch.randn(shape, generator=generator) for shape in ((6, 3), (6, 3, 4), (6, 4)))
    labels, valid = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([True, True, True, True, True, False])
    nll, distance = loss_of_each_region(logits, deltas, targets, labels, valid, sigma=1.0)
    classification, box = fast_rcnn_loss(logits, deltas, targets, labels, valid, sigma=1.0)
    assert nll[5] == distance[5] == 0
    assert distance[0] == distance[3] == 0  # background has no box
    torch.testing.assert_close(nll.sum() / 5, classification)
    torch.testing.assert_close(distance.sum() / 5, box)


def test_the_regions_that_are_trained_on_cost_more_than_random_ones(mining: FasterRCNN) -> None:
    images = batch()
    hard = mining(images, torch.Generator().manual_seed(0))
    mining.mining = False
    drawn = [mining(images, torch.Generator().manual_seed(seed)) for seed in range(5)]
    cost = [float((losses["loss_classification"] + losses["loss_box"]).detach()) for losses in drawn]
    assert float((hard["loss_classification"] + hard["loss_box"]).detach()) > sum(cost) / len(cost)


def test_the_pass_that_only_looks_leaves_statistics_alone_and_every_weight_its_gradient(mining: FasterRCNN) -> None:
    images = batch()
    with torch.autocast("cpu", torch.bfloat16):
        features = mining.extract(images)
        before = {name: value.clone() for name, value in mining.head.named_buffers()}
        logits, deltas, anchors = mining.score_anchors(features)
        regions = mining.hard_regions(images, features, mining.regions_of_interest(images, (logits, deltas), anchors))
        assert all(torch.equal(value, before[name]) for name, value in mining.head.named_buffers())
        assert mining.training
        losses = mining.region_losses(images, features, regions)
    # Weights cast without a gradient must not come out of autocast's cache.
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    for name, parameter in [*mining.head.named_parameters(), *mining.predictor.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
