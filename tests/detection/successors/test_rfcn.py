from __future__ import annotations

import torch

from paperbench.detection.successors.rfcn import RFCN, PositionSensitiveMaps
from tests.detection.successors.nets import detector


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
    net = detector("rfcn").eval()
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
    logits, _ = net.classify(features, torch.stack([upper_left, lower_right], dim=1))
    assert logits[0, 1] == 1.0  # one of nine cells is full of nines
    assert logits[1, 1] == 0.0
