"""The same scenes, stored at several sizes, give the same answers in the pixels of their own images.

Images are blocks of equal pixels and are resized by taking one of each block, so that what a net sees is the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from paperbench.config.compose import compose
from paperbench.data import image_store
from paperbench.data.detection import DetectionSet
from paperbench.data.image_store import ImageStore
from paperbench.detection.batches import BatchMaker, ProposalBatchMaker
from paperbench.detection.build import build
from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.evaluation import ablations, recall
from paperbench.detection.evaluation.inference import detect_all
from paperbench.detection.evaluation.scoring import measure
from paperbench.detection.proposals import source
from paperbench.detection.rcnn_config import ProposalConfig
from paperbench.detection.training.alternating import propose_all
from paperbench.detection.training.features import RegionFeatures
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from tests.data.sets import record

CPU = torch.device("cpu")
HEIGHT, WIDTH = 48, 64
BOXES = (((4, 4, 40, 40), (20, 8, 60, 30)), ((0, 0, 30, 30),), ((10, 20, 60, 44), (2, 2, 20, 20)))
MIXED, TWICE = (1, 3, 2), (2, 2, 2)
NETS = ("faster-rcnn", "fpn", "mask-rcnn", "rfcn", "ssd", "yolo", "one-stage", "unshared")
ON_PROPOSALS = ("fast-rcnn", "sppnet", "rcnn")

RUN: Any = SimpleNamespace(
    ranks=Ranks(),
    device=CPU,
    precision="float32",
    seed=0,
    reporter=SilentReporter(),
    stop=False,
    autocast=lambda: torch.autocast("cpu", enabled=False),
    raise_if_stopped=lambda: None,
)


def by_blocks(image: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(image[None].float(), (height, width), mode="nearest")[0].to(torch.uint8)


@pytest.fixture(autouse=True)
def _resize_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_store, "resize", by_blocks)


def scenes(factors: Sequence[int]) -> DetectionSet:
    """The scenes, image k stored `factors[k]` times as large."""

    def decode(index: int) -> NDArray[np.uint8]:
        image = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        return image.repeat(factors[index], axis=0).repeat(factors[index], axis=1)

    records = [
        record(k, HEIGHT * factor, WIDTH * factor, (np.array(boxes) * factor).tolist())
        for k, (factor, boxes) in enumerate(zip(factors, BOXES, strict=True))
    ]
    return DetectionSet(name="memory", split="test", classes=("a", "b"), records=records, decode=decode, dropped={})


def proposals(factors: Sequence[int]) -> list[NDArray[np.float32]]:
    """A dozen boxes of each image and its objects."""
    rng = np.random.default_rng(7)
    found = []
    for factor, objects in zip(factors, BOXES, strict=True):
        corners = rng.uniform(0, [WIDTH - 24, HEIGHT - 24], (12, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(12, 24, (12, 2))], axis=1)
        found.append((np.concatenate([boxes, np.array(objects)]) * factor).astype(np.float32))
    return found


def net_of(kind: str, *, min_size: float = 0.0) -> Any:
    experiment = "faster-rcnn" if kind in ("one-stage", "unshared") else kind
    more = {"one-stage": ["model.stages=1"], "unshared": ["model.shared=false"]}.get(kind, [])
    model = compose(experiment, ["scale=smoke", *more]).config.model
    torch.manual_seed(0)
    net = build(model, classes=["a", "b"], pretrained=False).eval()
    for name in ("head_config", "config"):
        if hasattr(getattr(net, name, None), "score_threshold"):
            setattr(net, name, replace(getattr(net, name), score_threshold=0.0))
    if isinstance(net, FasterRCNN):
        net.rpn_config = replace(net.rpn_config, min_size=min_size)
        # The smaller the initial weights, the more alike all scores: a few that differ are worth more.
        torch.nn.init.normal_(net.predictor.scores.weight, std=0.5)
    return net


def store_of(dataset: DetectionSet) -> ImageStore:
    return ImageStore(dataset, short_side=HEIGHT, max_side=WIDTH, device=CPU, cache_mb=16)


def maker(net: Detector, dataset: DetectionSet, given: Sequence[NDArray[np.float32]] | None = None) -> BatchMaker:
    settings: dict[str, Any] = {
        "flip": 0.5, "seed": 0, "multiple": net.multiple, "square": net.square, "training": False,
    }  # fmt: skip
    if given is None:
        return BatchMaker(dataset, store_of(dataset), **settings)
    return ProposalBatchMaker(dataset, store_of(dataset), given, **settings)


def assert_same(found: Sequence[Any], stored: Sequence[Any], factors: Sequence[int]) -> None:
    """Boxes of each image, in its own pixels, are the same but for the factor."""
    assert sum(map(len, found)) > 0
    for one, other, factor in zip(found, stored, factors, strict=True):
        np.testing.assert_allclose(np.asarray(other) / factor, np.asarray(one), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [*NETS, *ON_PROPOSALS])
def test_detections_and_proposals(kind: str) -> None:
    net, plain = net_of(kind), scenes((1, 1, 1))
    results = []
    for dataset, factors in ((plain, (1, 1, 1)), (scenes(MIXED), MIXED)):
        given = proposals(factors) if isinstance(net, FastRCNN) else None
        results.append(detect_all(net, maker(net, dataset, given), 3, batch_size=2, run=RUN))
    one, other = results
    assert_same([own.boxes for own in one.detections], [own.boxes for own in other.detections], MIXED)
    for own, theirs in zip(one.detections, other.detections, strict=True):
        np.testing.assert_allclose(theirs.scores, own.scores, atol=1e-5)
        assert theirs.labels.tolist() == own.labels.tolist()
    assert (one.proposals is None) == (other.proposals is None)
    if one.proposals is not None and other.proposals is not None:
        assert_same(one.proposals, other.proposals, MIXED)
    scored = [measure(data, result.detections, result.proposals).metrics for data, result in
              ((plain, one), (scenes(MIXED), other))]  # fmt: skip
    compared = [name for name in scored[0] if name.startswith(("voc", "proposals/")) or name.endswith("AP50")]
    assert compared
    assert {n: scored[1][n] for n in compared} == pytest.approx({n: scored[0][n] for n in compared}, abs=1e-3)


@pytest.mark.parametrize("kind", ["faster-rcnn", "fpn", "rfcn", "one-stage", "unshared"])
def test_the_least_size_is_in_pixels_of_the_stored_image(kind: str) -> None:
    """Images twice as large with a bound twice as large are the same images with the same bound."""
    one, other = (
        detect_all(net, maker(net, dataset), 3, batch_size=2, run=RUN)
        for net, dataset in ((net_of(kind, min_size=9), scenes((1, 1, 1))), (net_of(kind, min_size=18), scenes(TWICE)))
    )
    assert_same([own.boxes for own in one.detections], [own.boxes for own in other.detections], TWICE)
    if one.proposals is not None and other.proposals is not None:
        assert_same(one.proposals, other.proposals, TWICE)
        sides = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in other.proposals])
        assert sides.min() >= 18 - 1e-3
        assert sides.min() < 30  # some are near it: the bound is at work


@pytest.mark.parametrize(("bounds", "factors"), [((0.0, 0.0), MIXED), ((6.0, 12.0), TWICE)])
def test_ablations(bounds: tuple[float, float], factors: Sequence[int]) -> None:
    options = ablations.Options(share=0.05, seed=0)
    rows: list[list[Any]] = []
    for bound, own in zip(bounds, ((1, 1, 1), factors), strict=True):
        net = net_of("faster-rcnn", min_size=bound)
        batch = maker(net, scenes(own), proposals(own))(np.arange(3), np.zeros(3, int))
        rows.append(ablations.detect_rows(net, batch, options))
    for (one, count), (other, theirs) in zip(*rows, strict=True):
        assert count.tolist() == theirs.tolist()
        assert_same([found.boxes for found in one], [found.boxes for found in other], factors)


@pytest.mark.parametrize(("bounds", "factors"), [((0.0, 0.0), MIXED), ((6.0, 12.0), TWICE)])
def test_proposals_of_another_run(
    monkeypatch: pytest.MonkeyPatch, bounds: tuple[float, float], factors: Sequence[int]
) -> None:
    config = compose("faster-rcnn", ["scale=smoke", f"data.short_side={HEIGHT}", f"data.max_side={WIDTH}"]).config
    found = []
    for bound, own in zip(bounds, ((1, 1, 1), factors), strict=True):
        net = net_of("faster-rcnn", min_size=bound)
        monkeypatch.setattr(source, "network", lambda run, device, net=net: (config, net))
        found.append(source.of_network(scenes(own), ProposalConfig(method="rpn", run="x"), CPU, "float32"))
    one, other = found
    assert_same(one, other, factors)
    one, other = (
        recall.evaluate(scenes(own).records, boxes).metrics()
        for own, boxes in zip(((1, 1, 1), factors), found, strict=True)
    )
    assert one == pytest.approx(other)


@pytest.mark.parametrize(("bounds", "factors"), [((0.0, 0.0), MIXED), ((6.0, 12.0), TWICE)])
def test_proposals_of_alternating_training(bounds: tuple[float, float], factors: Sequence[int]) -> None:
    found = []
    for bound, own in zip(bounds, ((1, 1, 1), factors), strict=True):
        net = net_of("faster-rcnn", min_size=bound)
        found.append(propose_all(net, maker(net, scenes(own)), batch_size=2, run=RUN))
    one, other = found
    assert_same(one, other, factors)


@pytest.mark.parametrize("kind", ON_PROPOSALS)
def test_features_for_svms(kind: str) -> None:
    net = net_of(kind)
    for image in range(3):
        one, other = (
            RegionFeatures(net, maker(net, scenes(own)), RUN)(image, proposals(own)[image], "pool5")
            for own in ((1, 1, 1), MIXED)
        )
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)
