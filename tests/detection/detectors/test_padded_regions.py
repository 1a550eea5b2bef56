"""Regions that only fill a batch: images have different numbers of them, and those that are missing count nowhere in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from paperbench.config.compose import compose
from paperbench.detection.build import build
from paperbench.detection.detectors import fast_rcnn, spp_net
from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.spp_net import WarpedRegionClassifier
from paperbench.detection.roi_head import Regions, over_valid
from paperbench.detection.rpn import Proposals
from tests.detection.detectors.nets import batch

SHARING = ("faster-rcnn", "unshared", "fpn", "mask-rcnn", "rfcn")
ON_PROPOSALS = ("fast-rcnn", "sppnet", "rcnn", "warped")
COUNTS = (6, 3)
"""Regions of the two images of a batch."""

Result = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]
"""Losses, gradients and running statistics of a step."""


def net(kind: str) -> Detector | WarpedRegionClassifier:
    """A tiny net, all of whose layers that can normalise over a batch do so, without dropout."""
    torch.manual_seed(0)
    name = {"unshared": "faster-rcnn", "warped": "sppnet"}.get(kind, kind)
    own = ["model.backbone=small"]
    if kind != "rfcn":
        own += ["model.head.batch_norm=true", "model.head.dropout=0.0", "model.head.hidden=16"]
    if kind == "unshared":
        own.append("model.shared=false")
    model = build(compose(name, ["scale=smoke", *own]).config.model, classes=["cat", "dog"])
    return WarpedRegionClassifier(model, crops=(24,)) if kind == "warped" else model  # pyright: ignore[reportArgumentType]


def regions(places: int, *, junk: float) -> Regions:
    """`COUNTS` regions of two images in `places` places; the boxes of the others are made of `junk`."""
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(2, max(COUNTS), 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + 10 + torch.rand(2, max(COUNTS), 2, generator=generator) * 30], dim=2)
    boxes[0, 0], boxes[1, 0] = torch.tensor([8.0, 8, 50, 60]), torch.tensor([5.0, 5, 40, 40])
    labels = torch.zeros(2, max(COUNTS), dtype=torch.int64)
    labels[0, 0], labels[1, 0] = 1, 2
    targets = torch.rand(2, max(COUNTS), 4, generator=generator)
    valid = torch.arange(max(COUNTS)) < torch.tensor(COUNTS)[:, None]

    def extended(x: Tensor, fill: float) -> Tensor:
        there = valid.view(*valid.shape, *[1] * (x.ndim - 2))
        filled = torch.where(there, x, torch.full_like(x, fill))
        more = torch.full((2, places - max(COUNTS), *x.shape[2:]), fill).to(x.dtype)
        return torch.cat([filled, more], dim=1)

    far = extended(boxes, junk)
    far[..., 2:][far[..., 2:] == junk] = junk + 20
    return Regions(far, extended(labels, 0), extended(targets, 0), extended(valid, 0).bool())


def step(kind: str, given: Regions, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Train a fresh net of a kind on `given` for one step."""
    model = net(kind).train()
    own = batch()
    if isinstance(model, FasterRCNN):
        monkeypatch.setattr(model, "choose_regions", lambda *_: given)
    else:
        for module in (fast_rcnn, spp_net):
            monkeypatch.setattr(module, "sample_regions", lambda *_, **__: given)
        own = replace(own, proposals=Proposals(given.boxes, given.boxes[..., 0], given.valid))
    losses = model(own, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: part.grad for name, part in model.named_parameters() if part.grad is not None}
    statistics = {name: part for name, part in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    return losses, gradients, statistics


@pytest.mark.parametrize("junk", [0.0, 70.0])
@pytest.mark.parametrize("kind", [*SHARING, *ON_PROPOSALS])
def test_neither_their_number_nor_their_boxes_count(kind: str, junk: float, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (step(kind, regions(places, junk=own), monkeypatch) for places, own in ((6, 30.0), (10, junk)))
    assert few[2], "no layer of this net has running statistics"
    for one, other in zip(few, many, strict=True):
        _same(one, other)


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_statistics_are_those_of_the_regions_that_are_there() -> None:
    """By hand: a head of batch statistics alone."""
    layers = nn.Sequential(nn.BatchNorm1d(5, momentum=1.0)).train()
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.arange(12) % 3 > 0
    found = over_valid(layers, x, valid)
    own = x[valid]
    torch.testing.assert_close(layers[0].running_mean, own.mean(0))
    torch.testing.assert_close(layers[0].running_var, own.var(0))
    torch.testing.assert_close(found[valid], (own - own.mean(0)) / (own.var(0, correction=0) + 1e-5).sqrt())
    assert (found[~valid] == 0).all()


@pytest.mark.parametrize("there", [0, 1])
def test_a_batch_of_one_region_or_none_is_normalised_as_at_test(there: int) -> None:
    layers = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)).train()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    found = over_valid(layers, x, torch.arange(3) < there)
    norm = layers[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert not norm.running_mean.any()
    assert norm.training
    torch.testing.assert_close(found[:there], layers.eval()(x)[:there])
    assert (found[there:] == 0).all()
    found.sum().backward()


def test_layers_that_do_not_normalise_see_all_places() -> None:
    """Nothing has to wait for the device then."""
    seen = []
    layers = nn.Sequential(nn.Linear(4, 5))
    layers.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    over_valid(layers.train(), torch.zeros(3, 4), torch.tensor([True, False, True]))
    assert seen == [3]


def test_images_with_few_proposals_are_padded() -> None:
    """What the properties above are about does happen."""
    own = compose("fast-rcnn", ["scale=smoke"]).config.model
    model = build(own, classes=["cat", "dog"]).train()
    assert isinstance(model, FastRCNN)
    boxes = torch.rand(2, 20, 4) * 20
    boxes[..., 2:] += 40
    there = torch.arange(20) < torch.tensor([20, 2])[:, None]
    drawn = fast_rcnn.sample_regions(
        Proposals(boxes, boxes[..., 0], there), batch().boxes, batch().labels, model.head_config
    )
    assert drawn.valid[1].sum() < drawn.valid[0].sum()
