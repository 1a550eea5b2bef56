"""Every key of every model changes the net, a loss, a proposal or a detection: an option that is not forwarded changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.detection.batches import Batch
from paperbench.detection.build import build
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.mask_rcnn import MaskRCNN
from paperbench.detection.model_config import HeadConfig
from paperbench.detection.nms import postprocess
from paperbench.detection.rpn import Proposals
from tests.detection.detectors.nets import batch

NO_CHANGE_HERE = {
    "name", "backbone", "weights", "proposals_weights",  # read from files, or a table of nets
    "side", "grid",  # of squares that the images have to fit into
    "head.pool_size",  # changed with the widths that go with it, in the tests of the nets
    "svm.c", "svm.negative_iou", "svm.positive_weight", "svm.bias_scale", "svm.feature_norm", "svm.start_images",
    "svm.refit_every", "ridge.weight", "ridge.iou", "ridge.max_examples",  # of what is fitted after the net: test_linear
    "features_mb", "svd", "crops", "pretrain", "pretrain_crops",
}  # fmt: skip

HEAD = {
    "head.batch_size_per_image": 3, "head.positive_fraction": 0.07, "head.positive_iou": 0.05, "head.negative_iou_low": 0.45,
    "head.pool": "roi-pool", "head.hidden": 20, "head.batch_norm": False, "head.dropout": 0.5,
    "head.target_std": (0.3, 0.3, 0.3, 0.3), "head.sigma": 9.0, "head.score_threshold": 0.4, "head.nms_iou": 0.9,
    "head.detections_per_image": 2,
}  # fmt: skip
RPN = {
    "rpn.channels": 16, "rpn.objectness": "sigmoid", "rpn.positive_iou": 0.35, "rpn.negative_iou": 0.02,
    "rpn.batch_size_per_image": 5, "rpn.positive_fraction": 0.04, "rpn.ignore_cross_boundary": False,
    "rpn.normalisation": "paper", "rpn.loss_weight": 3.0, "rpn.sigma": 0.7, "rpn.pre_nms_topk_train": 4,
    "rpn.pre_nms_topk_test": 4, "rpn.post_nms_topk_train": 3, "rpn.post_nms_topk_test": 3, "rpn.nms_iou": 0.1,
    "rpn.min_size": 30.0,
}  # fmt: skip
BACKBONE = {"frozen_layers": 1, "deformable": 1}
OF_LEVELS = (
    "rpn.channels", "rpn.pre_nms_topk_train", "rpn.pre_nms_topk_test", "rpn.post_nms_topk_train", "rpn.post_nms_topk_test",
    "rpn.nms_iou", "rpn.min_size", "head.pool", "head.hidden", "head.batch_norm", "head.dropout", "head.score_threshold",
)  # fmt: skip
"""Keys that a net on a pyramid takes by functions of its own."""
MINING = {"head.ohem": True}
CHANGES: Mapping[str, dict[str, Any]] = {
    "faster-rcnn": {
        **BACKBONE, **RPN, **HEAD, **MINING, "projection": 16, "shared": False, "proposals_backbone": "small", "stages": 1,
        "anchors.sizes": (20.0, 40.0, 60.0), "anchors.ratios": (0.4, 1.0, 2.5),
    },
    "fpn": {
        **{key: value for key, value in (RPN | HEAD).items() if key in OF_LEVELS},
        **MINING, "deformable": 1, "pyramid.channels": 24, "pyramid.canonical_size": 20.0,
        "anchors.ratios": (0.4, 1.0, 2.5),
    },
    "mask-rcnn": {"mask.channels": 8, "mask.convolutions": 2, "mask.pool_size": 5, "mask.loss_weight": 3.0},
    "rfcn": {"context": 2, "head.score_threshold": 0.4, "head.nms_iou": 0.9, "head.detections_per_image": 2, "head.sigma": 9.0},
    "ssd": {
        "deformable": 1, "finest_stride": 4, "extra_channels": 16, "boxes.sizes": (16.0, 30.0, 56.0),
        "boxes.ratios": ((3.0,), (2.0,)), "positive_iou": 0.2, "negatives_per_positive": 1.0, "loss_weight": 3.0,
        "target_std": (0.3, 0.3, 0.3, 0.3), "score_threshold": 0.4, "nms_iou": 0.95, "detections_per_image": 2,
    },
    "yolo": {
        "deformable": 1, "boxes": 3, "channels": 24, "coord_weight": 2.0, "noobj_weight": 0.1, "score_threshold": 0.9,
        "detections_per_image": 2,
    },
    "fast-rcnn": {
        **BACKBONE, **HEAD, "head.positive_iou": 0.8, "head.pool": "roi-align", "projection": 16, "classifier": "svm",
        "boxes": "none",
    },
    "sppnet": {"pyramid": (2, 1), "features": "pool5", "boxes": "none", "classifier": "softmax"},
    "rcnn": {"crop": 48, "context": 2, "features": "pool5"},
}  # fmt: skip
COMPLETE = ("faster-rcnn",)
"""Models of which every key is in the list above."""


def changed(config: Any, key: str, value: Any) -> Any:
    """A copy of a dataclass with the value at a dotted key."""
    section, _, rest = key.partition(".")
    return replace(config, **{section: changed(getattr(config, section), rest, value) if rest else value})


@lru_cache
def model_of(kind: str) -> Any:
    return compose(kind, ["scale=smoke"]).config.model


def keys_of(config: Any, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for field in fields(config):
        value = getattr(config, field.name)
        found |= keys_of(value, f"{prefix}{field.name}.") if is_dataclass(value) else {f"{prefix}{field.name}"}
    return found


def scene() -> Batch:
    """Two images with their objects, and proposals around these."""
    own = batch()
    stream = torch.Generator().manual_seed(3)
    moved = own.boxes[:, [0, 1] * 8] + 8 * torch.rand(2, 16, 4, generator=stream)
    moved[1, 1::2] = torch.tensor([12.0, 12, 50, 50]) + 8 * torch.rand(8, 4, generator=stream)
    valid = torch.ones(2, 16, dtype=torch.bool)
    return replace(own, proposals=Proposals(moved.clamp(0, 79), torch.ones(2, 16), valid))


def spread(net: Any) -> None:
    """Give layers of small initial weights larger ones, so that scores and boxes differ from each other."""
    stream = torch.Generator().manual_seed(5)
    for name, value in net.named_parameters():
        if (
            any(part in name for part in ("predictor", "rpn.objectness", "rpn.deltas", "outputs", "maps"))
            and value.dim() > 1
        ):
            with torch.no_grad():
                value.copy_(0.3 * torch.randn(value.shape, generator=stream) / value[0].numel() ** 0.5 * 4)


def behaviour(model: Any) -> dict[str, Any]:
    """What a net of this configuration is and does: its parts, losses, proposals and detections on the scene."""
    torch.manual_seed(0)
    net: Any = build(model, classes=["a", "b"], pretrained=False)
    spread(net)
    own = scene()
    found: dict[str, Any] = {
        "parts": [(name, tuple(value.shape), value.requires_grad) for name, value in net.named_parameters()]
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        losses = net.train()(own, torch.Generator().manual_seed(0))
    found |= {name: round(value.item(), 5) for name, value in losses.items()}
    with torch.no_grad():
        if isinstance(net, FasterRCNN) and not isinstance(net.rpn, torch.nn.Identity):
            found["training proposals"] = net.propose(own).boxes.round(decimals=2).tolist()
        if isinstance(net, FastRCNN):
            found["classifier"] = (net.classifier, net.box_source, net.layer)
        detections, proposals = net.eval().detect(own)
    found["detections"] = [part.float().round(decimals=2).tolist() for part in detections if part is not None]
    found["proposals"] = None if proposals is None else proposals.boxes.round(decimals=2).tolist()
    return found


@lru_cache
def as_it_is(kind: str, *mining: str) -> dict[str, Any]:
    return behaviour(changed(model_of(kind), "head.ohem", True) if mining else model_of(kind))


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, own in CHANGES.items() for key in own])
def test_the_key_changes_something(kind: str, key: str) -> None:
    assert behaviour(changed(model_of(kind), key, CHANGES[kind][key])) != as_it_is(kind)


@pytest.mark.parametrize("kind", ["faster-rcnn", "fpn"])
def test_hard_examples_have_a_threshold_of_their_own_and_every_background(kind: str) -> None:
    mining = changed(model_of(kind), "head.ohem", True)
    found = behaviour(changed(mining, "head.ohem_nms_iou", 0.05))
    assert found != as_it_is(kind, "ohem")
    # Regions below the least overlap of plain sampling are examples all the same: the losses decide.
    assert behaviour(changed(mining, "head.negative_iou_low", 0.4)) == as_it_is(kind, "ohem")


@pytest.mark.parametrize("kind", COMPLETE)
def test_no_key_is_forgotten(kind: str) -> None:
    assert keys_of(model_of(kind)) - NO_CHANGE_HERE - {"head.ohem_nms_iou"} == set(CHANGES[kind])


def test_dropout_of_a_backbone_s_own_head() -> None:
    model = replace(model_of("faster-rcnn"), backbone="vgg16", projection=0)
    model = replace(model, head=replace(model.head, hidden=0, pool_size=0, dropout=0.125))
    with torch.device("meta"):
        net = build(model, classes=["a"], pretrained=False)
    rates = {part.p for part in net.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.125}


def test_masks_are_drawn_in_the_boxes_that_were_found() -> None:
    torch.manual_seed(0)
    net = build(model_of("mask-rcnn"), classes=["a", "b"], pretrained=False).eval()
    assert isinstance(net, MaskRCNN)
    spread(net)
    own = scene()
    with torch.no_grad():
        found, _ = net.detect(own)
        expected = net.draw_masks(net.extract(own), found.boxes, found.labels).sigmoid()
    assert found.masks is not None
    assert found.valid.any()
    torch.testing.assert_close(found.masks.flatten(0, 1)[found.valid.flatten()], expected[found.valid.flatten()])


@pytest.mark.parametrize("kind", ["faster-rcnn", "fpn", "rfcn"])
def test_proposals_that_are_not_there_are_never_detections(kind: str) -> None:
    """With one valid proposal an image has at most one detection a class, whatever lies in the padding."""
    torch.manual_seed(0)
    model = changed(changed(model_of(kind), "head.score_threshold", 0.0), "rpn.nms_iou", 0.0)
    net: Any = build(changed(model, "head.nms_iou", 1.0), classes=["a", "b"], pretrained=False).eval()
    spread(net)
    with torch.no_grad():
        detections, proposals = net.detect(scene())
    assert (proposals.valid.sum(1) < proposals.valid.shape[1]).any(), "there is padding"
    assert (detections.valid.sum(1) <= 2 * proposals.valid.sum(1)).all()


def test_a_detection_is_moved_by_the_change_of_its_own_class_in_deviations() -> None:
    """With scores of two classes, a change of (1, 0, 0, 0) for the second and none for the first, in deviations of 0.25."""
    config = HeadConfig(target_std=(0.25, 0.5, 0.5, 0.5), score_threshold=0.1)
    deltas = torch.zeros(1, 1, 3, 4)
    deltas[0, 0, 0], deltas[0, 0, 2, 0] = 1.0, 1.0
    boxes, valid = torch.tensor([[[10.0, 20, 30, 60]]]), torch.ones(1, 1, dtype=torch.bool)
    logits = torch.tensor([[[0.0, 2.0, 1.0]]])
    found = postprocess(logits, deltas, boxes, valid, torch.tensor([[96, 96]]), config)
    own = dict(zip(found.labels[0].tolist(), found.boxes[0].tolist(), strict=True))
    assert own[1] == pytest.approx([10, 20, 30, 60])
    assert own[2] == pytest.approx([15, 20, 35, 60])
