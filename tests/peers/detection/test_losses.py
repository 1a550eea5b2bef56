"""The losses of proposals, regions, SSD and YOLO, with their gradients, against torchvision and the papers' equations."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD

from paperbench.detection import boxes as box_ops
from paperbench.detection.detectors.ssd import ssd_loss
from paperbench.detection.detectors.yolo import cell_targets, decode_cells, yolo_loss
from paperbench.detection.losses import fast_rcnn_loss, loss_of_each_region, objectness_nll, rpn_loss, smooth_l1
from paperbench.detection.masks import mask_loss
from paperbench.detection.model_config import YOLOModel
from tests.peers.cases import cases, random

SIGMAS = (1.0, 3.0, 0.5)


def normal(rng: np.random.Generator, *shape: int, spread: float = 1.0) -> Tensor:
    """Return float64 numbers that take a gradient."""
    return torch.from_numpy(rng.normal(0, spread, shape)).requires_grad_()


def same_with_gradients(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """Assert that both have the same value and the same gradients."""
    assert_close(found, expected, atol=1e-9, rtol=1e-9)
    pairs = (torch.autograd.grad(loss, inputs, allow_unused=True) for loss in (found, expected))
    for own, other, like in zip(*pairs, inputs, strict=True):
        zero = torch.zeros_like(like)
        assert_close(zero if own is None else own, zero if other is None else other, atol=1e-9, rtol=1e-9)


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", SIGMAS)
@cases(("random", "at-the-joint", "huge", "tiny", "zero"), 3)
def test_smooth_l1(kind: str, seed: int, sigma: float) -> None:
    rng = random(kind, seed)
    x = normal(rng, 40, spread={"huge": 1e8, "tiny": 1e-8, "zero": 0.0}.get(kind, 1.0))
    if kind == "at-the-joint":
        x = (torch.tensor([1.0, -1.0, 1.0 - 1e-12, 1.0 + 1e-12]).double() / sigma**2).requires_grad_()

    expected = F.smooth_l1_loss(x, torch.zeros_like(x), beta=1 / sigma**2, reduction="none")

    same_with_gradients(smooth_l1(x, sigma).sum(), expected.sum(), [x])


@pytest.mark.parametrize("outputs", [1, 2])
@cases(("random", "sure", "infinite", "zero"), 4)
def test_objectness(kind: str, seed: int, outputs: int) -> None:
    rng = random(kind, seed)
    logits = normal(rng, 30, outputs, spread={"sure": 200.0, "zero": 0.0}.get(kind, 2.0))
    if kind == "infinite":
        logits = logits.detach().sign() * 1e30
        logits.requires_grad_()
    positive = torch.from_numpy(rng.random(30) < 0.5)

    if outputs == 1:
        expected = F.binary_cross_entropy_with_logits(logits[:, 0], positive.double(), reduction="none")
    else:
        expected = F.cross_entropy(logits, positive.long(), reduction="none")

    same_with_gradients(objectness_nll(logits, positive).sum(), expected.sum(), [logits])


# --- region proposal network ------------------------------------------------------------------------------------------

MINIBATCHES = ("mixed", "no-positives", "no-negatives", "one", "nothing", "far-off")


def minibatch(kind: str, rng: np.random.Generator, *, outputs: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return logits, deltas, targets, positive and valid of three images with 16 places each."""
    spread = 50.0 if kind == "far-off" else 1.0
    logits, deltas = normal(rng, 3, 16, outputs), normal(rng, 3, 16, 4, spread=spread)
    targets = torch.from_numpy(rng.normal(0, 1, (3, 16, 4)))
    positive = torch.from_numpy(rng.random((3, 16)) < {"no-positives": 0.0, "no-negatives": 1.1}.get(kind, 0.4))
    valid = torch.from_numpy(rng.random((3, 16)) < 0.9)
    if kind == "one":
        valid[:] = False
        valid[1, 4] = True
    if kind == "nothing":
        valid[:] = False
    return logits, deltas, targets, positive, valid


@cases(MINIBATCHES, 5)
def test_proposal_loss_is_torchvisions(kind: str, seed: int) -> None:
    """Where nothing was sampled torchvision divides by zero; there the loss is 0."""
    logits, deltas, targets, positive, valid = minibatch(kind, random(kind, seed), outputs=1)

    objectness, box = rpn_loss(
        logits, deltas, targets, positive, valid, normalisation="sampled", sampled=16, locations=torch.ones(3), weight=1.0,
        sigma=3.0,
    )  # fmt: skip

    if kind == "nothing":
        assert objectness == box == 0
        return
    labels = torch.where(valid, positive.double(), -1.0)
    everything: Any = SimpleNamespace(fg_bg_sampler=lambda labels: ([x == 1 for x in labels], [x == 0 for x in labels]))
    expected = RegionProposalNetwork.compute_loss(
        everything,
        logits,
        deltas.flatten(0, 1),
        list(labels),
        list(targets),  # pyright: ignore[reportArgumentType]
    )
    same_with_gradients(objectness, expected[0], [logits, deltas])
    same_with_gradients(box, expected[1], [logits, deltas])


@pytest.mark.parametrize("outputs", [1, 2])
@cases(MINIBATCHES, 4)
def test_equation_1_of_faster_rcnn(kind: str, seed: int, outputs: int) -> None:
    """1 / N_cls of the log loss plus lambda / N_reg of the regression, an image at a time."""
    rng = random(kind + str(outputs), seed)
    logits, deltas, targets, positive, valid = minibatch(kind, rng, outputs=outputs)
    locations = torch.from_numpy(rng.integers(20, 2400, 3)).double()

    objectness, box = rpn_loss(
        logits, deltas, targets, positive, valid, normalisation="paper", sampled=256, locations=locations, weight=10.0,
        sigma=1.0,
    )  # fmt: skip

    expected_objectness = expected_box = 0.0
    for image in range(3):
        for place in torch.nonzero(valid[image])[:, 0].tolist():
            scores = logits[image, place].tolist()
            margin = scores[0] if outputs == 1 else scores[1] - scores[0]
            p = 1 / (1 + math.exp(-margin))
            expected_objectness -= math.log(p if positive[image, place] else 1 - p) / 256 / 3
            if positive[image, place]:
                for x in (deltas[image, place] - targets[image, place]).tolist():
                    robust = 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5
                    expected_box += 10.0 * robust / locations[image].item() / 3
    assert objectness.item() == pytest.approx(expected_objectness, rel=1e-9, abs=1e-12)
    assert box.item() == pytest.approx(expected_box, rel=1e-9, abs=1e-12)


# --- regions ----------------------------------------------------------------------------------------------------------


@cases(("mixed", "background", "objects", "one-class", "one", "sure", "far-off"), 5)
def test_loss_of_regions_is_torchvisions(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    classes, count = (1 if kind == "one-class" else 4), (1 if kind == "one" else 20)
    logits = normal(rng, count, classes + 1, spread=300.0 if kind == "sure" else 1.0)
    deltas = normal(rng, count, classes + 1, 4, spread=30.0 if kind == "far-off" else 1.0)
    low, high = {"background": (0, 1), "objects": (1, classes + 1)}.get(kind, (0, classes + 1))
    labels = torch.from_numpy(rng.integers(low, high, count))
    targets = torch.from_numpy(rng.normal(0, 1, (count, 4)))
    # Invalid regions, which torchvision does not have, must change nothing.
    valid = torch.cat([torch.ones(count, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)])
    a, b, c, d = (torch.cat([part, part[:1].expand(3, *part.shape[1:])]) for part in (logits, deltas, targets, labels))

    found = fast_rcnn_loss(a, b, c, d, valid, sigma=3.0)

    expected = fastrcnn_loss(logits, deltas.flatten(1), [labels[:5], labels[5:]], [targets])
    for own, other in zip(found, expected, strict=True):
        same_with_gradients(own, other, [logits, deltas])


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("seed", range(5))
def test_equation_1_of_fast_rcnn(seed: int, sigma: float) -> None:
    rng = random("fast", seed)
    logits, deltas = normal(rng, 9, 4), normal(rng, 9, 4, 4, spread=2.0)
    labels, targets = torch.from_numpy(rng.integers(0, 4, 9)), torch.from_numpy(rng.normal(0, 1, (9, 4)))
    valid = torch.from_numpy(rng.random(9) < 0.8)

    nll, distance = loss_of_each_region(logits, deltas, targets, labels, valid, sigma=sigma)

    for row in range(9):
        scores, u = np.exp(logits[row].detach().numpy()), int(labels[row])
        expected = -math.log(scores[u] / scores.sum()) if valid[row] else 0.0
        assert nll[row].item() == pytest.approx(expected, rel=1e-9)
        robust = 0.0
        if u >= 1 and valid[row]:
            for x in (deltas[row, u] - targets[row]).tolist():
                robust += 0.5 * (sigma * x) ** 2 if abs(x) < 1 / sigma**2 else abs(x) - 0.5 / sigma**2
        assert distance[row].item() == pytest.approx(robust, rel=1e-9, abs=1e-12)


@cases(("random", "sure", "one", "full", "empty"), 5)
def test_mask_loss_is_torchvisions(kind: str, seed: int) -> None:
    """The mean over the pixels of the positive regions; torchvision is given masks in whole cells, so that both see the same."""
    rng = random(kind, seed)
    count, cells, classes = (1 if kind == "one" else 6), 8, 3
    logits = normal(rng, count, classes + 1, cells, cells, spread=100.0 if kind == "sure" else 2.0)
    labels = torch.from_numpy(rng.integers(1, classes + 1, count))
    masks = torch.from_numpy(rng.random((count, cells, cells)) < {"full": 1.1, "empty": -1.0}.get(kind, 0.5)).double()
    # Its RoIAlign samples half a pixel too far to the lower right: this box has its samples on the pixels.
    frame = torch.tensor([[-0.5, -0.5, cells - 0.5, cells - 0.5]]).double().expand(count, 4)

    expected = maskrcnn_loss(logits, [frame], [masks], [labels], [torch.arange(count)])

    own = logits[torch.arange(count), labels]
    padded = torch.cat([own, own[:1]]), torch.cat([masks, 1 - masks[:1]])
    found = mask_loss(*padded, torch.tensor([True] * count + [False]))
    same_with_gradients(found, expected, [logits])


# --- SSD --------------------------------------------------------------------------------------------------------------


@cases(("mixed", "no-objects", "crowded", "sure", "one-class", "half-empty"), 6)
def test_ssd_loss_is_torchvisions(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    classes, count = (1 if kind == "one-class" else 3), 40
    logits = normal(rng, 2, count, classes + 1, spread=50.0 if kind == "sure" else 1.0)
    deltas = normal(rng, 2, count, 4, spread=2.0)
    low = torch.from_numpy(rng.uniform(0, 60, (count, 2)))
    anchors = torch.cat([low, low + torch.from_numpy(rng.uniform(4, 30, (count, 2)))], dim=1)
    # Where there are fewer background boxes than three for each object, torchvision counts objects twice (`test_plain_ssd_loss`).
    count_of = {"no-objects": 0, "crowded": count // 4}.get(kind, 4)
    targets, matched = [], []
    for image in range(2):
        objects = 5
        corner = torch.from_numpy(rng.uniform(0, 60, (objects, 2)))
        given = torch.cat([corner, corner + torch.from_numpy(rng.uniform(4, 30, (objects, 2)))], dim=1)
        targets.append({"boxes": given, "labels": torch.from_numpy(rng.integers(1, classes + 1, objects))})
        own = torch.from_numpy(np.where(rng.permutation(count) < count_of, rng.integers(0, objects, count), -1))
        matched.append(torch.full_like(own, -1) if kind == "half-empty" and image else own)
    theirs = SimpleNamespace(box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3.0)
    outputs = {"bbox_regression": deltas, "cls_logits": logits}
    expected = SSD.compute_loss(theirs, targets, outputs, [anchors] * 2, matched)  # pyright: ignore[reportArgumentType]

    own = torch.stack([given["boxes"][index.clamp(min=0)] for given, index in zip(targets, matched, strict=True)])
    labels = torch.stack([
        torch.where(index >= 0, given["labels"][index.clamp(min=0)], 0)
        for given, index in zip(targets, matched, strict=True)
    ])  # fmt: skip
    encoded = box_ops.encode(anchors, torch.where(labels[..., None] > 0, own, anchors), (0.1, 0.1, 0.2, 0.2))
    classification, box = ssd_loss(logits, deltas, encoded, labels, negatives=3.0)

    same_with_gradients(classification, expected["classification"], [logits, deltas])
    same_with_gradients(box, expected["bbox_regression"], [logits, deltas])


@pytest.mark.parametrize("negatives", [3.0, 1.5])
@cases(("few-negatives", "no-negatives", "mixed", "no-objects"), 4)
def test_plain_ssd_loss(kind: str, seed: int, negatives: float) -> None:
    """Equation 1 and the mining of section 2.2, a box at a time."""
    rng = random(kind, seed)
    share = {"few-negatives": 0.6, "no-negatives": 1.1, "no-objects": -1.0}.get(kind, 0.1)
    logits, deltas = normal(rng, 2, 20, 4), normal(rng, 2, 20, 4, spread=2.0)
    targets = torch.from_numpy(rng.normal(0, 1, (2, 20, 4)))
    labels = torch.from_numpy(np.where(rng.random((2, 20)) < share, rng.integers(1, 4, (2, 20)), 0))

    found = ssd_loss(logits, deltas, targets, labels, negatives=negatives)

    confidence = localisation = 0.0
    for image in range(2):
        scores = np.exp(logits[image].detach().numpy())
        nll = -np.log(scores / scores.sum(1, keepdims=True))
        objects = [box for box in range(20) if labels[image, box] > 0]
        background = sorted((nll[box, 0] for box in range(20) if labels[image, box] == 0), reverse=True)
        confidence += sum(nll[box, int(labels[image, box])] for box in objects)
        confidence += sum(background[: math.ceil(negatives * len(objects))])
        for box in objects:
            for x in (deltas[image, box] - targets[image, box]).tolist():
                localisation += 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5
    count = max(1, int((labels > 0).sum()))
    assert found[0].item() == pytest.approx(confidence / count, rel=1e-9)
    assert found[1].item() == pytest.approx(localisation / count, rel=1e-9)


# --- YOLO -------------------------------------------------------------------------------------------------------------


Objects = list[tuple[list[float], int]]
"""Corners and label of each object of an image."""


def plain_yolo(
    boxes: np.ndarray,
    confidence: np.ndarray,
    scores: np.ndarray,
    objects: list[Objects],
    grid: int,
    side: float,
) -> tuple[float, float, float]:
    """Equation 3, a cell at a time: coordinates, confidence and classes, with the weights 5 and .5, means over images."""
    place = sure = kinds = 0.0
    for image, given in enumerate(objects):
        of_cell: dict[int, tuple[list[float], int]] = {}
        for box, label in given:
            x, y = (box[0] + box[2]) / 2 / side * grid, (box[1] + box[3]) / 2 / side * grid
            cell = min(max(math.floor(y), 0), grid - 1) * grid + min(max(math.floor(x), 0), grid - 1)
            of_cell.setdefault(cell, (box, label))
        for cell in range(grid * grid):
            row, column = divmod(cell, grid)
            responsible, target = -1, [0.0] * 4
            overlap = [0.0] * boxes.shape[2]
            if cell in of_cell:
                box, label = of_cell[cell]
                centre = [(box[0] + box[2]) / 2 / side * grid - column, (box[1] + box[3]) / 2 / side * grid - row]
                target = [*centre, math.sqrt((box[2] - box[0]) / side), math.sqrt((box[3] - box[1]) / side)]
                for number, (x, y, w, h) in enumerate(boxes[image, cell].tolist()):
                    cx, cy, w, h = (
                        (x + column) * side / grid,
                        (y + row) * side / grid,
                        max(w, 0) ** 2 * side,
                        max(h, 0) ** 2 * side,
                    )
                    width = min(cx + w / 2, box[2]) - max(cx - w / 2, box[0])
                    height = min(cy + h / 2, box[3]) - max(cy - h / 2, box[1])
                    shared = max(width, 0.0) * max(height, 0.0)
                    union = w * h + (box[2] - box[0]) * (box[3] - box[1]) - shared
                    overlap[number] = shared / union if union > 0 else 0.0
                away = [
                    sum((a - b) ** 2 for a, b in zip(own, target, strict=True)) for own in boxes[image, cell].tolist()
                ]
                responsible = int(np.argmax(overlap)) if max(overlap) > 0 else int(np.argmin(away))
                place += 5.0 * away[responsible]
                wanted = [float(k + 1 == label) for k in range(scores.shape[-1])]
                kinds += sum((p - q) ** 2 for p, q in zip(scores[image, cell].tolist(), wanted, strict=True))
            for number, c in enumerate(confidence[image, cell].tolist()):
                sure += (c - overlap[number]) ** 2 if number == responsible else 0.5 * c * c
    images = len(objects)
    return place / images, sure / images, kinds / images


@pytest.mark.parametrize("shape", [(3, 2, 3), (7, 2, 20), (2, 1, 1), (4, 3, 2)], ids=str)
@cases(("random", "none", "same-cell", "border", "beyond", "tiny", "exact", "apart"), 5)
def test_equation_3_of_yolo(kind: str, seed: int, shape: tuple[int, int, int]) -> None:
    grid, count, classes = shape
    side = 16.0 * grid
    rng = random(kind + str(shape), seed)
    objects: list[Objects] = []
    for _ in range(2):
        low = rng.uniform(0, 0.7 * side, (5, 2))
        size = rng.uniform(1e-4, 1e-2, (5, 2)) if kind == "tiny" else rng.uniform(4, 30, (5, 2))
        if kind == "same-cell":
            low = low[:1] + rng.uniform(0, 0.1, (5, 2))
        if kind == "border":  # centres exactly on the borders of cells and of the image
            size = np.ceil(size)
            low = rng.integers(0, grid + 1, (5, 2)) * 16 - size / 2
        if kind == "beyond":
            low = rng.uniform(-60, side + 40, (5, 2))
        given = np.concatenate([low, low + size], axis=1).astype(np.float32).astype(np.float64)
        labels = rng.integers(1, classes + 1, 5)
        objects.append([] if kind == "none" else list(zip(given.tolist(), labels.tolist(), strict=True)))
    boxes = np.concatenate(
        [rng.uniform(0, 1, (2, grid * grid, count, 2)), rng.uniform(-0.1, 0.8, (2, grid * grid, count, 2))], -1
    )
    confidence, scores = rng.normal(0, 1, (2, grid * grid, count)), rng.normal(0, 1, (2, grid * grid, classes))
    if kind == "apart":  # no box overlaps its object
        boxes[..., 2:] = -0.1
    padding = 5
    gt_boxes, gt_labels = torch.zeros(2, padding, 4), torch.zeros(2, padding, dtype=torch.int64)
    for image, given in enumerate(objects):
        for row, (box, label) in enumerate(given):
            gt_boxes[image, row], gt_labels[image, row] = torch.tensor(box), label
    if kind == "exact":
        first = cell_targets(gt_boxes, gt_labels, grid=grid, side=side)
        boxes[:, :, 0] = first.coordinates.numpy()

    targets = cell_targets(gt_boxes, gt_labels, grid=grid, side=side)
    guesses, sure, kinds = (torch.from_numpy(part) for part in (boxes, confidence, scores))
    found = yolo_loss(guesses, sure, kinds, targets, YOLOModel(side=int(side), grid=grid, boxes=count))

    expected = plain_yolo(boxes, confidence, scores, objects, grid, side)
    names = ("loss_box", "loss_confidence", "loss_classification")
    for name, value in zip(names, expected, strict=True):
        assert found[name].item() == pytest.approx(value, rel=2e-5, abs=1e-5), name


@pytest.mark.parametrize("seed", range(6))
def test_cells_of_yolo_are_undone_by_decoding(seed: int) -> None:
    rng = random("cells", seed)
    low = rng.uniform(0, 80, (1, 4, 2))
    boxes = torch.from_numpy(np.concatenate([low, low + rng.uniform(2, 30, (1, 4, 2))], -1)).float()

    targets = cell_targets(boxes, torch.ones(1, 4, dtype=torch.int64), grid=7, side=112)

    decoded = decode_cells(targets.coordinates[:, :, None], grid=7, side=112)[:, :, 0]
    assert_close(decoded[targets.object], targets.corners[targets.object], atol=1e-3, rtol=0)


def test_a_matcher_of_torchvision_agrees_about_the_minibatch_of_a_region() -> None:
    """Fast R-CNN's rule at exactly one half: an overlap of .5 is an object."""
    iou = torch.tensor([[0.5, 0.5 - 1e-7, 0.1, 0.0]])

    assert (Matcher(0.5, 0.5)(iou) >= 0).tolist() == [True, False, False, False]
