from __future__ import annotations

import copy

import pytest
import torch
import torchvision

from paperbench.detection.deformable import DeformableConv
from paperbench.detection.detectors.rfcn import RFCN, PositionSensitiveMaps, dilated
from paperbench.errors import ConfigError
from tests.detection.detectors.nets import detector


def test_each_cell_of_a_region_votes_in_maps_of_its_own() -> None:
    net = detector("rfcn").eval()
    assert isinstance(net, RFCN)
    cells, classes = 3, 2
    # Every map is constant, and the constant is its number: a region's score is the mean of its nine maps' numbers.
    maps = net.predictor
    assert isinstance(maps, PositionSensitiveMaps)
    weights = maps.scores
    torch.nn.init.zeros_(weights.weight)
    assert weights.bias is not None
    weights.bias.data = torch.arange(cells * cells * (classes + 1), dtype=torch.float32)
    features = torch.randn(1, 128, 12, 12)
    logits, deltas = net.classify(features, torch.tensor([[[0.0, 0, 90, 90], [10, 20, 60, 70]]]))
    expected = torch.arange(27.0).view(classes + 1, 9).mean(1)
    torch.testing.assert_close(logits, expected.expand(2, -1))
    assert deltas.shape == (2, classes + 1, 4)
    assert (deltas == deltas[:, :1]).all()  # one box for all classes


def test_a_part_of_the_object_only_answers_in_its_own_cell() -> None:
    net = detector("rfcn", "model.context=0").eval()
    assert isinstance(net, RFCN)
    maps = net.predictor
    assert isinstance(maps, PositionSensitiveMaps)
    torch.nn.init.zeros_(maps.scores.weight)
    assert maps.scores.bias is not None
    torch.nn.init.zeros_(maps.scores.bias)
    maps.scores.weight.data[9] = 1.0  # class 1, upper left cell: sees where the features are
    features = torch.zeros(1, 128, 12, 12)
    features[:, 0, :4, :4] = 9.0
    upper_left, lower_right = torch.tensor([[0.0, 0, 96, 96]]), torch.tensor([[-64.0, -64, 32, 32]])
    beside = torch.tensor([[40.0, 40, 88, 88]])
    logits, _ = net.classify(features, torch.stack([upper_left, lower_right, beside], dim=1))
    assert logits[0, 1] == 1.0  # one of nine cells is full of nines
    assert logits[1, 1] == logits[2, 1] == 0.0


def test_a_dilated_stage_has_the_strided_ones_values_and_those_between() -> None:
    stage = torchvision.models.resnet50(norm_layer=torchvision.ops.FrozenBatchNorm2d).layer4.eval()
    features = torch.randn(1, 1024, 10, 8)
    with torch.no_grad():
        coarse, fine = stage(features), dilated(copy.deepcopy(stage))(features)
    assert fine.shape == (1, 2048, 10, 8)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse)


def test_resnet_brings_its_own_stage() -> None:
    net = detector("rfcn", "model.backbone=resnet50", "model.context=0", "model.projection=64", "model.deformable=3")
    assert isinstance(net, RFCN)
    scores = net.predictor.scores
    assert isinstance(scores, torch.nn.Conv2d)
    assert scores.in_channels == 64
    assert sum(isinstance(module, DeformableConv) for module in net.head.modules()) == 3
    assert not any(isinstance(module, DeformableConv) for module in net.backbone.modules())
    with pytest.raises(ConfigError, match=r"model.context=1: resnet50 has a stage of its own"):
        detector("rfcn", "model.backbone=resnet50")


def test_proposals_are_made_before_the_layers_of_the_score_maps() -> None:
    net = detector("rfcn").eval()
    assert isinstance(net, RFCN)
    features = torch.randn(1, 128, 12, 12)
    before = net.score_anchors(features)[0]
    for parameter in net.head.parameters():
        torch.nn.init.ones_(parameter)
    torch.testing.assert_close(net.score_anchors(features)[0], before)


@pytest.mark.parametrize("pool", ["roi-pool", "roi-align"])
def test_either_pooling_has_a_gradient_for_every_layer(pool: str) -> None:
    net = detector("rfcn", f"model.head.pool={pool}")
    assert isinstance(net, RFCN)
    logits, deltas = net.classify(torch.randn(1, 128, 12, 12), torch.tensor([[[0.0, 0, 90, 90], [10, 20, 60, 70]]]))
    (logits.square().sum() + deltas.square().sum()).backward()
    for part in (net.head, net.predictor):
        assert all(parameter.grad is not None for parameter in part.parameters())
