from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from paperbench.config.compose import compose
from paperbench.detection.anchors import DefaultBoxes
from paperbench.detection.build import build
from paperbench.detection.detectors.ssd import SSD, ssd_loss
from paperbench.detection.matching import hardest_negatives
from paperbench.detection.model_config import SSDModel
from paperbench.errors import ConfigError
from tests.detection.detectors.nets import batch


def test_ssd300_has_as_many_boxes_as_the_paper_says() -> None:
    with torch.device("meta"):
        net = build(SSDModel(), classes=["cat"] * 20, pretrained=False)
        maps = net.backbone(torch.zeros(1, 3, net.side, net.side))
    assert isinstance(net, SSD)
    assert len(net.boxes([(one.shape[-2], one.shape[-1]) for one in maps], torch.device("cpu"))) == 8732


def test_default_boxes_equal_torchvisions() -> None:
    side, sizes, ratios = 300, (30.0, 60.0, 111.0), ((2,), (2, 3))
    ours = DefaultBoxes(side=side, sizes=sizes, ratios=ratios)([(4, 4), (2, 2)], torch.device("cpu"))
    generator = DefaultBoxGenerator([list(own) for own in ratios], scales=[size / side for size in sizes], clip=False)
    images = ImageList(torch.zeros(1, 3, side, side), [(side, side)])
    theirs = generator(images, [torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)])[0]
    torch.testing.assert_close(ours, theirs.clamp(0, side), atol=1e-3, rtol=0)


def test_the_hardest_negatives_are_counted_three_for_each_positive() -> None:
    nll = torch.tensor([[9.0, 1, 5, 2, 3, 4], [9, 1, 5, 2, 3, 4]])
    positive = torch.tensor([[True, False, False, False, False, False], [False] * 6])
    expected = torch.tensor([[False, False, True, False, True, True], [False] * 6])
    assert hardest_negatives(nll, positive, 3.0).equal(expected)


def test_the_loss_is_equation_1() -> None:
    logits = torch.tensor([[[0.0, 2.0], [0.0, 1.0], [0.0, -1.0], [0.0, -2.0]]])
    labels = torch.tensor([[1, 0, 0, 0]])
    deltas = torch.zeros(1, 4, 4)
    targets = torch.zeros(1, 4, 4)
    targets[0, 0] = torch.tensor([0.5, 2.0, 0.0, 0.0])
    targets[0, 1] = 7.0  # of a background box: not counted
    classification, box = ssd_loss(logits, deltas, targets, labels, negatives=2.0)
    nll = torch.nn.functional.softplus(torch.tensor([-2.0, 1.0, -1.0]))  # the object, and the two hardest of three
    assert classification.item() == pytest.approx(nll.sum().item())
    assert box.item() == pytest.approx(0.5 * 0.25 + 1.5)


def test_sizes_and_ratios_must_fit() -> None:
    with pytest.raises(ConfigError, match=r"2 maps .* take 3 sizes"):
        build(compose("ssd", ["scale=smoke", "model.boxes.sizes=[16,32]"]).config.model, classes=["cat"])
    one_map = ["model.finest_stride=4", "model.boxes.ratios=[[2.0]]", "model.boxes.sizes=[16,32]"]
    with pytest.raises(ConfigError, match=r"1 entries for the 2 maps that small has from model.finest_stride=4"):
        build(compose("ssd", ["scale=smoke", *one_map]).config.model, classes=["cat"])


def test_an_object_that_no_box_overlaps_enough_still_has_one() -> None:
    net = build(compose("ssd", ["scale=smoke", "model.positive_iou=1.0"]).config.model, classes=["cat", "dog"])
    assert net.train()(batch())["loss_box"] > 0
