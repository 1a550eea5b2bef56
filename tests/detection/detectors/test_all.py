"""Properties that every detector after Faster R-CNN must have."""

from __future__ import annotations

import pytest
import torch

from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.rfcn import RFCN
from paperbench.detection.detectors.yolo import YOLO
from paperbench.errors import ConfigError
from tests.detection.detectors.nets import KINDS, batch, detector, set_score_threshold


@pytest.fixture(params=KINDS)
def net(request: pytest.FixtureRequest) -> Detector:
    return detector(request.param)


def test_losses_are_finite_and_the_same_for_the_same_generator(net: Detector) -> None:
    net.train()
    first, again = (net(batch(), torch.Generator().manual_seed(0)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.stack(list(first.values())).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_images_without_objects_train_without_harm(net: Detector) -> None:
    losses = net.train()(batch(objects=False), torch.Generator().manual_seed(0))
    assert losses["loss_box"] == 0
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_a_few_steps_on_one_batch_lower_the_loss(net: Detector) -> None:
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    totals = []
    for _ in range(12):
        loss = torch.stack(list(net(batch(), torch.Generator().manual_seed(0)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < 0.7 * totals[0]


def test_detections_are_inside_their_image_sorted_and_named(net: Detector) -> None:
    net.eval()
    set_score_threshold(net, 0.0)
    found, proposals = net.detect(batch())
    assert found.valid.any()
    for image, (height, width) in enumerate([(96, 96), (80, 96)]):
        boxes = found.boxes[image][found.valid[image]]
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        assert (found.scores[image][found.valid[image]].diff() <= 0).all()
        assert set(found.labels[image][found.valid[image]].tolist()) <= {1, 2}
    assert (proposals is None) == (net.side > 0)
    assert (found.masks is not None) == net.masks


def test_nothing_found_is_an_answer(net: Detector) -> None:
    net.eval()
    set_score_threshold(net, 1.0)
    assert not net.detect(batch())[0].valid.any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_convolutions_can_be_deformable(kind: str) -> None:
    net = detector(kind, "model.deformable=1").train()
    losses = net(batch(), torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    offsets = [parameter.grad for name, parameter in net.named_parameters() if name.endswith("offset.weight")]
    assert len(offsets) == 1
    assert offsets[0] is not None
    assert offsets[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "override", "message"),
    [
        ("fpn", "model.projection=64", r"give model.pyramid.channels instead"),
        ("fpn", "model.anchors.sizes=[16,32]", r"maps of stride 4, 8, 16; give one size for each of these 3"),
        ("mask-rcnn", "model.shared=false", r"model.shared=false is for model.name=faster-rcnn"),
        ("rfcn", "model.stages=1", r"model.stages=1 is for model.name=faster-rcnn"),
        ("rfcn", "model.head.hidden=64", r"model.head.hidden=64: regions of R-FCN have no layers of their own"),
        ("rfcn", "model.deformable=9", r"model.deformable=9: the backbone has 6 3x3 convolutions"),
    ],
)
def test_what_a_net_cannot_do_is_refused(kind: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detector(kind, override)


@pytest.mark.parametrize("kind", ["fpn", "mask-rcnn"])
def test_maps_that_are_no_whole_fraction_of_the_image(kind: str) -> None:
    # SqueezeNet pools without padding: 96 pixels give maps of 23, 11 and 5 cells, not of 24, 12 and 6.
    net = detector(
        kind, "model.backbone=squeezenet1_1", "model.anchors.sizes=[8,16,32,64]", "model.pyramid.pooled_levels=1"
    )
    losses = net.train()(batch(), torch.Generator().manual_seed(0))
    assert all(torch.isfinite(loss) for loss in losses.values())
    _, proposals = net.eval().detect(batch())
    assert proposals is not None
    assert proposals.valid.any()


def test_the_hardest_regions_are_drawn_too() -> None:
    net = detector("mask-rcnn", "model.head.ohem=true").train()
    losses = net(batch(), torch.Generator().manual_seed(0))
    assert losses["loss_mask"] > 0


# --- numbers that are none --------------------------------------------------------------------------------------------


def spoil(module: torch.nn.Module, value: float, share: slice, column: int) -> None:
    """Put `value` into a share of the rows of everything that a module returns, rows being (..., N, numbers)."""

    def replaced(
        _: torch.nn.Module, __: object, outputs: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        spoiled = tuple(output.clone() for output in outputs)
        for output in spoiled:
            output[..., share, min(column, output.shape[-1] - 1)] = value
        return spoiled

    module.register_forward_hook(replaced)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize("kind", [kind for kind in ("faster-rcnn", *KINDS) if kind not in ("ssd", "yolo")])
def test_infinite_outputs_are_no_proposals(kind: str, column: int, value: float) -> None:
    net = detector(kind).eval()
    assert isinstance(net, FasterRCNN)
    plain = net.propose(batch())
    spoil(net.rpn, value, slice(None, None, 2), column)
    some = net.propose(batch())
    assert some.valid.any()
    assert torch.isfinite(some.boxes).all()
    assert torch.isfinite(some.scores[some.valid]).all()
    assert some.scores[some.valid].max() <= plain.scores[plain.valid].max()
    spoil(net.rpn, value, slice(None), column)
    found, none = net.detect(batch())
    assert not none.valid.any()
    assert not found.valid.any()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("column", [0, 2])
def test_infinite_outputs_are_no_detections(net: Detector, column: int, value: float) -> None:
    net.eval()
    set_score_threshold(net, 0.0)
    head = net.predictor if isinstance(net, FasterRCNN) else getattr(net, "outputs", None) or net.get_submodule("head")
    if isinstance(net, YOLO):
        head.register_forward_hook(lambda _, __, output: torch.full_like(output, value))
    elif isinstance(net, RFCN):
        head.register_forward_hook(lambda _, __, maps: tuple(torch.full_like(part, value) for part in maps))
    else:
        assert net.detect(batch())[0].valid.any()
        spoil(head, value, slice(None), column)
    found, _ = net.detect(batch())
    assert not found.valid.any()
    assert torch.isfinite(found.boxes).all()
