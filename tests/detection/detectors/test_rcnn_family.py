"""The three detectors: losses, gradients where they belong, detections, and configurations that cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from paperbench.config.compose import compose
from paperbench.detection.batches import Batch
from paperbench.detection.build import build, build_for
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.detectors.rcnn import RCNN
from paperbench.detection.detectors.spp_net import SPPNet, WarpedRegionClassifier
from paperbench.detection.evaluation.variants import check_variants, variant
from paperbench.detection.rpn import Proposals
from paperbench.detection.training.multi_stage import FrozenDetector
from paperbench.errors import ConfigError

NETS = {"fast-rcnn": FastRCNN, "sppnet": SPPNet, "rcnn": RCNN}


def config(name: str, *overrides: str) -> Any:
    return compose(name, ["scale=smoke", *overrides]).config


def net(name: str, *overrides: str) -> FastRCNN:
    torch.manual_seed(0)
    model = build_for(config(name, *overrides), classes=["cat", "dog"])
    assert isinstance(model, FastRCNN)
    return model


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    boxes = torch.tensor([[[8.0, 8, 50, 60], [20, 30, 80, 90]], [[5, 5, 40, 40], [0, 0, 0, 0]]])
    proposals = torch.cat([boxes + 2, torch.rand(2, 8, 4, generator=generator) * 30], dim=1)
    proposals[:, 2:, 2:] += 40
    valid = torch.ones(2, 10, dtype=torch.bool)
    valid[1, 6:] = False
    return Batch(
        images=torch.randint(0, 256, (2, 3, 96, 96), generator=generator, dtype=torch.uint8),
        sizes=torch.tensor([[96, 96], [96, 96]]),
        scales=torch.ones(2),
        boxes=boxes,
        labels=torch.tensor([[1, 2], [2, 0]]),
        indices=torch.arange(2),
        proposals=Proposals(proposals * valid[..., None], valid.float(), valid),
    )


def trained(model: nn.Module) -> set[str]:
    """First names of the parameters that a step reaches."""
    losses = model(batch(), torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    return {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", NETS)
def test_every_net_learns_what_its_paper_says(name: str) -> None:
    model = net(name).train()
    assert type(model) is NETS[name]
    model.learns = ("classification", "box") if name == "fast-rcnn" else ("classification",)
    expected = {"head", "predictor"} if name == "sppnet" else {"backbone", "head", "predictor"}
    assert trained(model) == expected
    assert {f"loss_{part}" for part in model.learns} == model(batch(), None).keys()


@pytest.mark.parametrize("name", NETS)
def test_detections_do_not_depend_on_the_company(name: str) -> None:
    model = net(name).eval()
    model.head_config.score_threshold = 0.2
    model.classifier, model.box_source = "softmax", "predictor"
    together, proposals = model.detect(batch())
    assert proposals is not None
    assert together.valid.any()
    whole = batch()
    given = whole.proposals
    assert given is not None
    for place in range(2):
        parts = {key: part[place : place + 1] for key, part in vars(whole).items() if isinstance(part, torch.Tensor)}
        alone, _ = model.detect(Batch(**parts, proposals=Proposals(*(part[place : place + 1] for part in given))))
        count = int(alone.valid.sum())
        assert count == int(together.valid[place].sum())
        torch.testing.assert_close(alone.boxes[0, :count], together.boxes[place, :count], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["fast-rcnn", "sppnet"])
@pytest.mark.parametrize("kind", ["roi-pool", "roi-align"])
def test_what_is_pooled_is_from_where_the_region_lies(name: str, kind: str) -> None:
    """On maps that say where each of their cells lies in the image."""
    model = net(name, f"model.head.pool={kind}")
    at = (torch.arange(24.0) + 0.5) * model.stride
    low, side = torch.tensor([40.0, 90.0]), torch.tensor([50.0, 30.0])
    box = torch.cat([low, low + side]).view(1, 1, 4)
    for plane, start, length in ((at.expand(24, 24), 40, 50), (at[:, None].expand(24, 24), 90, 30)):
        found = model.pool(plane[None, None], box)
        assert start - model.stride <= found.min() < found.max() <= start + length + model.stride
        assert found.max() - found.min() > length / 2


def test_crops_at_a_time_change_nothing() -> None:
    model = net("rcnn").eval()
    assert isinstance(model, RCNN)
    model.classifier, model.box_source, model.head_config.score_threshold = "softmax", "predictor", 0.0
    all_at_once, _ = model.detect(batch())
    model.config.crops = 3
    torch.testing.assert_close(model.detect(batch())[0].scores, all_at_once.scores, rtol=1e-4, atol=1e-5)


def test_an_image_without_proposals_has_no_detections() -> None:
    whole = batch()
    assert whole.proposals is not None
    nothing = whole.proposals._replace(valid=torch.zeros_like(whole.proposals.valid))
    for name in NETS:
        model = net(name).eval()
        assert not model.detect(replace(whole, proposals=nothing))[0].valid.any()


def test_the_layer_of_boxes_alone_learns_in_its_stage() -> None:
    model = net("fast-rcnn", "model.boxes=stage-wise")
    model.learns = ("box",)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("predictor.deltas."))
    stage = FrozenDetector(model).train()
    assert not model.training
    assert trained(stage) == {"model"}
    assert model.predictor.deltas.weight.grad is not None


def test_warped_regions_train_the_convolutions_that_are_fixed_later() -> None:
    model = net("sppnet")
    stage = WarpedRegionClassifier(model, crops=(16, 32)).train()
    model.backbone.requires_grad_(True)
    assert trained(stage) == {"backbone", "scores"}
    assert stage.backbone is model.backbone
    assert {name.split(".")[0] for name in stage.state_dict()} == {"backbone", "scores"}


def test_a_fixed_backbone_keeps_its_batch_statistics() -> None:
    model = net("sppnet").train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training


def test_variants_are_the_same_net_used_otherwise() -> None:
    own = config("fast-rcnn", "evaluation.variants=[no-boxes,svd,svm]", "model.svd=[4,4]")
    check_variants(own)
    torch.manual_seed(0)
    model = build_for(own, classes=["cat", "dog"]).eval()
    assert isinstance(model, FastRCNN)
    model.head_config.score_threshold = 0.0
    plain = model.detect(batch())[0]
    with variant(model, "no-boxes", own):
        given = batch().proposals
        assert given is not None
        still = model.detect(batch())[0]
        for box in still.boxes[0][still.valid[0]]:
            assert (given.boxes[0] - box).abs().amax(1).min() < 1e-3
    with variant(model, "svd", own):
        assert isinstance(model.head[1], nn.Sequential)
    assert model.svm is not None
    model.svm.bias.fill_(-3.0)
    with variant(model, "svm", own):
        assert not model.detect(batch())[0].valid.any()
    torch.testing.assert_close(model.detect(batch())[0].scores, plain.scores)


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("fast-rcnn", ["evaluation.variants=[svd]"], "svd needs model.svd"),
        ("fast-rcnn", ["evaluation.variants=[softmax]"], "softmax is what the model does anyway"),
        ("fast-rcnn", ["evaluation.variants=[no-boxes]", "model.boxes=none"], "no-boxes is what"),
        ("fast-rcnn", ["model.svd=[64]"], "has 32 singular values"),
        ("rcnn", ["evaluation.variants=[softmax]", "model.fine_tune=false"], "softmax is not trained"),
    ],
)
def test_variants_that_cannot_be(name: str, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_variants(config(name, *overrides))


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("fast-rcnn", ["model.head.ohem=true"], "model.head.ohem"),
        ("fast-rcnn", ["model.backbone=zf", "model.projection=8", "model.head.hidden=0"], "model.projection=8"),
        ("sppnet", ["model.backbone=resnet50", "model.head.hidden=0"], "cannot take a pyramid"),
        ("rcnn", ["model.fine_tune=false", "model.classifier=softmax"], "softmax: is not trained"),
        ("rcnn", ["model.fine_tune=false", "model.boxes=multi-task"], "multi-task: is not trained"),
        ("rcnn", ["model.crop=6", "model.context=3"], "leaves nothing of a region of 6"),
        ("rcnn", ["model.backbone=resnet50", "model.head.hidden=0", "model.features=fc6"], "has no such layer"),
    ],
)
def test_settings_that_do_not_go_together(name: str, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said), torch.device("meta"):
        build(config(name, *overrides).model, classes=["cat"], pretrained=False)


@pytest.mark.parametrize("backbone", ["alexnet", "zf", "vgg16", "resnet50", "squeezenet1_1"])
@pytest.mark.parametrize("name", NETS)
def test_every_backbone_fits(name: str, backbone: str) -> None:
    new = ["model.head.hidden=8"] if (name, backbone) == ("sppnet", "resnet50") else ["model.head.hidden=0"]
    own = config(name, f"model.backbone={backbone}", *new, "model.head.batch_norm=false")
    with torch.device("meta"):
        model = build(own.model, classes=["cat"], pretrained=False).eval()
        assert isinstance(model, FastRCNN)
        pooled = torch.zeros(3, model.channels, model.head_config.pool_size, model.head_config.pool_size)
        if isinstance(model, SPPNet):
            pooled = torch.zeros(3, model.channels * sum(level**2 for level in model.pyramid))
        scores, deltas = model.judge(pooled)
        assert scores.shape == (3, 1)
        assert deltas.shape == (3, 2, 4)
