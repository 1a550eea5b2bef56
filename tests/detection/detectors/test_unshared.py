from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.detection.build import build
from paperbench.detection.detectors import faster_rcnn
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.unshared import UnsharedFasterRCNN
from paperbench.detection.tasks import train as task
from paperbench.detection.training.alternating import detector_features, proposal_features
from paperbench.detection.training.joint import parameter_groups
from paperbench.errors import ConfigError
from tests.detection.detectors.test_faster_rcnn import batch


def built(*overrides: str) -> FasterRCNN:
    torch.manual_seed(0)
    model = build(compose("faster-rcnn", ["scale=smoke", *overrides]).config.model, classes=["cat", "dog"])
    assert isinstance(model, FasterRCNN)
    return model


def test_two_nets_with_the_same_weights_find_what_one_finds() -> None:
    shared, apart = built().eval(), built("model.shared=false").eval()
    assert isinstance(apart, UnsharedFasterRCNN)
    images = batch()
    expected, found = shared.detect(images), apart.detect(images)
    for part, other in zip(expected[0][:4], found[0][:4], strict=True):
        assert torch.equal(part, other)
    assert torch.equal(expected[1].boxes, found[1].boxes)


def test_proposals_and_regions_move_weights_of_their_own() -> None:
    model = built("model.shared=false").train()
    images = batch()
    losses = model.proposal_losses(images, model.score_anchors(proposal_features(model, images)), None)
    torch.stack(list(losses.values())).sum().backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved
    assert all(name.startswith(("backbone.proposals.", "rpn.")) for name in moved)
    assert detector_features(model, images).proposals is None
    slow = parameter_groups(model, backbone_lr_scale=0.1)[1]["params"]
    assert {name.split(".")[1] for name, _ in slow} == {"regions", "proposals"}


def test_the_proposals_can_have_another_backbone() -> None:
    sizes = ["model.projection=16", "model.head.hidden=32"]
    pair = ["model.backbone=squeezenet1_1", "model.shared=false", "model.proposals_backbone=zf"]
    model = built(*pair, *sizes).eval()
    names = {name for name, _ in model.named_parameters()}
    assert {"neck.proposals.0.weight", "neck.regions.0.weight"} <= names
    features = model.extract(batch())
    assert features.proposals.shape[1] == features.regions.shape[1] == 16
    assert model.detect(batch())[1].boxes.shape[0] == 2


def test_each_backbone_has_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    real = faster_rcnn.make_backbone

    def noted(model: Any, *, pretrained: bool) -> Any:
        seen.append((model.backbone, model.weights, model.frozen_layers, pretrained))
        return real(replace(model, weights=None), pretrained=pretrained)

    monkeypatch.setattr(faster_rcnn, "make_backbone", noted)
    config = compose("faster-rcnn", ["scale=smoke", "model.shared=false", "model.frozen_layers=1"]).config.model
    pair = {"backbone": "squeezenet1_1", "weights": "one", "proposals_backbone": "zf", "proposals_weights": "other"}
    model = replace(config, projection=16, **pair)
    build(model, classes=["cat"], pretrained=False)
    assert seen == [("squeezenet1_1", "one", 1, False), ("zf", "other", None, False)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.shared=false", "model.proposals_backbone=zf"], "a cell every 16 pixels, model.backbone=small every 8"),
        (["model.proposals_backbone=zf"], "only model.name=faster-rcnn with model.shared=false"),
        (
            ["model.shared=false", "model.proposals_backbone=zf", "model.proposals_weights=nowhere.pth"],
            "model.weights=nowhere.pth: no such file",
        ),
    ],
)
def test_pairs_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task.plan(compose("faster-rcnn", ["scale=smoke", *overrides]).config)
