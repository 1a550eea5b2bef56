from __future__ import annotations

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.detection.build import build
from paperbench.detection.detectors.yolo import YOLO, cell_targets, decode_cells, yolo_loss
from paperbench.detection.model_config import YOLOModel
from paperbench.errors import ConfigError

GRID, SIDE = 4, 80
CONFIG = YOLOModel(grid=GRID, side=SIDE)


def truth() -> tuple[torch.Tensor, torch.Tensor]:
    """Centres in cells (row 0, column 1), the same again, and (row 3, column 3)."""
    boxes = torch.tensor([[[20.0, 5, 40, 15], [21, 6, 39, 14], [60, 60, 80, 80], [0, 0, 0, 0]]])
    return boxes, torch.tensor([[2, 1, 1, 0]])


def perfect() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs that say what `truth` is: in every cell the first of two boxes, the second far away."""
    targets = cell_targets(*truth(), grid=GRID, side=SIDE)
    boxes = torch.zeros(1, GRID * GRID, 2, 4)
    boxes[:, :, 0] = targets.coordinates
    boxes[:, :, 1] = torch.tensor([9.0, 9, 0.1, 0.1])
    confidence = torch.zeros(1, GRID * GRID, 2)
    confidence[..., 0] = targets.object.float()
    scores = torch.nn.functional.one_hot(targets.label, 3)[..., 1:].float()
    return boxes, confidence, scores


def test_a_cell_is_responsible_for_the_first_object_whose_centre_it_holds() -> None:
    targets = cell_targets(*truth(), grid=GRID, side=SIDE)
    assert targets.object.nonzero()[:, 1].tolist() == [1, 15]
    assert targets.label[0, [1, 15]].tolist() == [2, 1]
    torch.testing.assert_close(
        targets.coordinates[0, [1, 15]], torch.tensor([[0.5, 0.5, 0.5, 0.125**0.5], [0.5, 0.5, 0.5, 0.5]])
    )


def test_what_is_encoded_is_decoded() -> None:
    targets = cell_targets(*truth(), grid=GRID, side=SIDE)
    decoded = decode_cells(targets.coordinates[:, :, None], grid=GRID, side=SIDE)[0, [1, 15], 0]
    torch.testing.assert_close(decoded, truth()[0][0, [0, 2]])


def test_saying_what_is_true_costs_nothing() -> None:
    losses = yolo_loss(*perfect(), cell_targets(*truth(), grid=GRID, side=SIDE), CONFIG)
    for name, value in losses.items():
        assert value.item() == pytest.approx(0, abs=1e-8), name


def test_the_parts_of_equation_3() -> None:
    targets = cell_targets(*truth(), grid=GRID, side=SIDE)
    boxes, confidence, scores = perfect()
    confidence[0, 0, 0] = 0.4  # an empty cell
    confidence[0, 1, 1] = 0.2  # the box of a full cell that is not responsible
    scores[0, 15, 0] = 0.7  # the class of a full cell
    scores[0, 0, 0] = 0.7  # the class of an empty cell: nobody asks
    boxes[0, 15, 0, 0] += 0.01
    losses = yolo_loss(boxes, confidence, scores, targets, CONFIG)
    assert losses["loss_classification"].item() == pytest.approx(0.09)
    assert losses["loss_box"].item() == pytest.approx(5 * 0.01**2, rel=1e-3)
    # A shift of 0.2 of 20 pixels: the overlap that its confidence is to be is 19.8 / 20.2.
    missed = (1 - 19.8 / 20.2) ** 2
    assert losses["loss_confidence"].item() == pytest.approx(0.5 * (0.16 + 0.04) + missed, rel=1e-3)


def test_the_box_that_overlaps_most_is_responsible_else_the_closest() -> None:
    targets = cell_targets(*truth(), grid=GRID, side=SIDE)
    boxes, confidence, scores = perfect()
    boxes[0, 15, 1] = targets.coordinates[0, 15]  # the second is right here, the first is elsewhere
    boxes[0, 15, 0] = torch.tensor([-3.0, 0.5, 0.2, 0.2])
    confidence[0, 15] = torch.tensor([0.0, 1.0])
    # And here neither overlaps: the first is closer.
    boxes[0, 1, 0] = torch.tensor([-1.0, 0.5, 0.01, 0.01])
    boxes[0, 1, 1] = torch.tensor([-2.0, 0.5, 0.01, 0.01])
    confidence[0, 1] = 0
    losses = yolo_loss(boxes, confidence, scores, targets, CONFIG)
    expected = (boxes[0, 1, 0] - targets.coordinates[0, 1]).square().sum()
    assert losses["loss_box"].item() == pytest.approx(5 * expected.item(), rel=1e-5)
    assert losses["loss_confidence"].item() == pytest.approx(0, abs=1e-6)


def test_the_papers_model_has_98_boxes_and_1470_outputs() -> None:
    with torch.device("meta"):
        net = build(YOLOModel(), classes=["cat"] * 20, pretrained=False)
    assert isinstance(net, YOLO)
    assert isinstance(net.head, torch.nn.Sequential)
    assert net.head[-1].out_features == 7 * 7 * 30
    assert net.config.grid**2 * net.config.boxes == 98


def test_a_side_that_the_grid_does_not_divide_is_refused() -> None:
    model = compose("yolo", ["scale=smoke", "model.side=100"]).config.model
    with pytest.raises(ConfigError, match=r"model.side=100: with model.grid=6 .* can be 48, 96, 192, 384"):
        build(model, classes=["cat"])


def test_a_head_that_shares_its_weights_gives_the_same_outputs_in_number() -> None:
    shared = compose("yolo", ["scale=smoke", "model.head=convolutional"]).config.model
    net = build(shared, classes=["cat"])
    assert isinstance(net, YOLO)
    assert net.head(torch.zeros(2, 32, 6, 6)).shape == (2, 6 * 6 * (2 * 5 + 1))
