"""The first training step of each detector against the same step written plainly: losses, gradients, weights after it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops as peer
from torch import Tensor, nn
from torch.testing import assert_close

from paperbench.config.schema import OptimConfig
from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.batches import Batch
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.mask_rcnn import MaskRCNN
from paperbench.detection.detectors.ssd import SSD
from paperbench.detection.detectors.yolo import YOLO
from paperbench.detection.model_config import HeadConfig, RpnConfig
from paperbench.detection.roi_head import BoxPredictor, two_layer_head
from paperbench.detection.rpn import RPNHead
from paperbench.detection.training.joint import parameter_groups
from paperbench.engine.optim import build_optimizer
from tests.detection.detectors.nets import batch, detector
from tests.peers.detection import plain_detector as plain
from tests.peers.detection.inputs import plain_iou

EVERYTHING = 100_000
RATE, DECAY, BACKBONE = 0.01, 0.0005, 0.3
STD = (0.1, 0.1, 0.2, 0.2)


def step(net: nn.Module, losses: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return gradients and weights after the program's own step, by name."""
    config = OptimConfig(name="sgd", lr=RATE, momentum=0.9, weight_decay=DECAY)
    optimizer = build_optimizer(config, parameter_groups(net, backbone_lr_scale=BACKBONE))
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    optimizer.step()
    return gradients, {name: p.detach().clone() for name, p in net.named_parameters() if p.grad is not None}


def compare(
    net: nn.Module, losses: dict[str, Tensor], expected: dict[str, Tensor], parameters: dict[str, Tensor]
) -> None:
    """Assert that losses agree to 1e-6, gradients and stepped weights to rounding; `parameters` are the leaves of `expected`."""
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=2e-6, abs=1e-6), name
        assert math.isfinite(value.item())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    total = torch.stack(list(expected.values())).sum()
    wanted = dict(
        zip(parameters, torch.autograd.grad(total, list(parameters.values()), retain_graph=True), strict=True)
    )
    gradients, after = step(net, losses)
    assert set(gradients) == set(wanted)
    rates = {name: RATE * (BACKBONE if name.startswith("backbone.") else 1.0) for name in parameters}
    stepped = plain.sgd(before, wanted, rates, DECAY)
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max()) + 1e-6
        assert_close(gradients[name], gradient, atol=2e-5 * scale, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        assert_close(
            after[name], stepped[name], atol=2e-6 + 1e-6 * RATE * scale, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


# --- Faster R-CNN -----------------------------------------------------------------------------------------------------

CHANNELS, HIDDEN, CLASSES = 6, 10, 2
SIZES, RATIOS = (16.0, 32.0), (0.5, 1.0, 2.0)


def faster_rcnn(variant: str) -> FasterRCNN:
    """Return a small net of convolutions without normalisation, all of whose anchors and regions are trained on."""
    backbone = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, stride=4, padding=1), nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 4, stride=4)
    )
    anchors = AnchorGrid(sizes=SIZES, ratios=RATIOS, stride=16)
    net = FasterRCNN(
        backbone=backbone,
        head=two_layer_head(in_channels=CHANNELS, pool_size=3, hidden=HIDDEN, batch_norm=False, dropout=0.0),
        predictor=BoxPredictor(in_channels=HIDDEN, classes=CLASSES),
        rpn=RPNHead(
            in_channels=CHANNELS, channels=CHANNELS, anchors=anchors.per_location, softmax=variant != "sigmoid"
        ),
        anchors=anchors,
        rpn_config=RpnConfig(
            batch_size_per_image=EVERYTHING,
            positive_fraction=1.0,
            ignore_cross_boundary=variant != "cross-boundary",
            normalisation="sampled" if variant == "sampled" else "paper",
            pre_nms_topk_train=80,
            post_nms_topk_train=12,
            min_size=4.0,
        ),
        head_config=HeadConfig(
            batch_size_per_image=EVERYTHING,
            positive_fraction=1.0,
            pool="roi-align" if variant == "roi-align" else "roi-pool",
            pool_size=3,
        ),
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith(("rpn", "predictor")):
                parameter.normal_(std=0.1)
    return net.train()


def scene(seed: int, kind: str) -> Batch:
    """Return two images of 64 x 80 and 48 x 80 pixels with three objects and one."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(2, 3, 2, generator=generator) * torch.tensor([40.0, 20.0])
    boxes = torch.cat([low, low + 8 + 16 * torch.rand(2, 3, 2, generator=generator)], dim=2)
    labels = torch.randint(1, CLASSES + 1, (2, 3), generator=generator)
    labels[1, 1:] = 0
    if kind == "an-empty-image":
        labels[1] = 0
    if kind == "no-objects":
        labels[:] = 0
    boxes[labels == 0] = 0
    return Batch(
        images=torch.randint(0, 256, (2, 3, 64, 80), generator=generator, dtype=torch.uint8),
        sizes=torch.tensor([[64, 80], [48, 80]]),
        scales=torch.tensor([1.0, 0.5]),
        boxes=boxes,
        labels=labels,
        indices=torch.arange(2),
    )


def pooled_plainly(features: Tensor, regions: Tensor, kind: str) -> Tensor:
    """Return (R, F, 3, 3) of one image: RoIPool by slices, or torchvision's RoIAlign."""
    if kind == "roi-align":
        return peer.roi_align(features[None], [regions], 3, 1 / 16, 2)
    cells = []
    for region in regions.tolist():
        x1, y1, x2, y2 = (math.floor(corner / 16 + 0.5) for corner in region)
        width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        for row in range(3):
            for column in range(3):
                top, bottom = y1 + math.floor(row * height / 3), y1 + math.ceil((row + 1) * height / 3)
                left, right = x1 + math.floor(column * width / 3), x1 + math.ceil((column + 1) * width / 3)
                cell = features[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
                cells.append(cell.amax((1, 2)) if cell.numel() else features[:, 0, 0] * 0)
    return torch.stack(cells).view(len(regions), 3, 3, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["objects", "an-empty-image", "no-objects"])
@pytest.mark.parametrize("variant", ["paper", "sampled", "sigmoid", "cross-boundary", "roi-align"])
@pytest.mark.parametrize("seed", range(2))
def test_faster_rcnn(seed: int, variant: str, kind: str) -> None:
    torch.manual_seed(seed)
    net, given = faster_rcnn(variant), scene(seed, kind)
    p = {name: value.detach().clone().requires_grad_() for name, value in net.named_parameters()}
    losses = net(given)

    x = plain.pixels(given.images, given.sizes)
    x = F.conv2d(x, p["backbone.0.weight"], p["backbone.0.bias"], stride=4, padding=1).tanh()
    features = F.conv2d(x, p["backbone.2.weight"], p["backbone.2.bias"], stride=4)
    hidden = F.conv2d(features, p["rpn.conv.weight"], p["rpn.conv.bias"], padding=1).relu()
    anchors = plain.anchors_of((4, 5), 16, SIZES, RATIOS)
    objectness = box = torch.zeros(())
    drawn, rows, labels, wanted = 0, [], [], []
    for image in range(2):
        outputs = 1 if variant == "sigmoid" else 2
        logits = F.conv2d(hidden[image], p["rpn.objectness.weight"], p["rpn.objectness.bias"]).permute(1, 2, 0)
        deltas = F.conv2d(hidden[image], p["rpn.deltas.weight"], p["rpn.deltas.bias"]).permute(1, 2, 0)
        logits, deltas = logits.reshape(-1, outputs), deltas.reshape(-1, 4)
        size = given.sizes[image].tolist()
        real = given.labels[image] > 0
        objects = given.boxes[image][real]
        nll, distance, count = plain.proposal_losses(
            logits, deltas, anchors, size, objects, cross_boundary=variant == "cross-boundary", sigma=3.0
        )
        drawn += count
        if variant == "sampled":
            objectness, box = objectness + nll, box + distance
        else:
            objectness = objectness + nll / EVERYTHING / 2
            box = box + distance / (math.ceil(size[0] / 16) * math.ceil(size[1] / 16)) / 2
        score = logits[:, 0] if outputs == 1 else logits[:, 1] - logits[:, 0]
        regions, _ = plain.proposals(
            score.detach(), deltas.detach(), anchors, size, before=80, after=12, iou=0.7,
            least=4.0 * float(given.scales[image]),
        )  # fmt: skip
        regions = torch.cat([regions, objects])
        own, offsets, _ = plain.region_targets(regions, objects, given.labels[image][real], STD)
        rows.append(pooled_plainly(features[image], regions, net.head_config.pool).flatten(1))
        labels.append(own)
        wanted.append(offsets)
    if variant == "sampled":
        objectness, box = objectness / drawn, box / drawn
    y = F.linear(torch.cat(rows), p["head.1.weight"], p["head.1.bias"]).relu()
    y = F.linear(y, p["head.3.weight"], p["head.3.bias"]).relu()
    scores = F.linear(y, p["predictor.scores.weight"], p["predictor.scores.bias"])
    deltas = F.linear(y, p["predictor.deltas.weight"], p["predictor.deltas.bias"])
    classification, regression = plain.region_losses(scores, deltas, torch.cat(labels), torch.cat(wanted), 1.0)
    expected = {
        "loss_rpn_objectness": objectness,
        "loss_rpn_box": 10.0 * box,
        "loss_classification": classification,
        "loss_box": regression,
    }

    assert set(losses) == set(expected)
    compare(net, losses, expected, p)


# --- nets of the shipped configurations, from their feature maps on -----------------------------------------------------


def leaves(net: nn.Module) -> dict[str, Tensor]:
    """Return the trained parameters of a net by name; the plain step shares them."""
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


def masked_net() -> MaskRCNN:
    """Return Mask R-CNN at smoke scale, nothing of which is drawn or dropped."""
    everything = [f"model.{part}.batch_size_per_image={EVERYTHING}" for part in ("rpn", "head")]
    fractions = [f"model.{part}.positive_fraction=1.0" for part in ("rpn", "head")]
    net = detector(
        "mask-rcnn", *everything, *fractions, "model.head.batch_norm=false", "model.head.dropout=0.0",
        "model.head.pool=roi-align", "model.rpn.pre_nms_topk_train=50", "model.rpn.post_nms_topk_train=12",
        "model.rpn.normalisation=paper",
    )  # fmt: skip
    assert isinstance(net, MaskRCNN)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith(("rpn", "predictor")):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return net.train()


@pytest.mark.parametrize("objects", [True, False], ids=["objects", "no-objects"])
def test_mask_rcnn(objects: bool) -> None:
    """From the maps of the pyramid on, which torchvision computes: proposals of each level, regions of their level, masks."""
    net, given = masked_net(), batch(objects=objects)
    assert given.masks is not None
    p, config = leaves(net), net.rpn_config
    losses = net(given)
    maps = net.extract(given)
    strides = net.anchors.strides
    levels = [(m.shape[-2], m.shape[-1]) for m in maps]
    sizes = [float(grid.base[0, 2:].sub(grid.base[0, :2]).prod().sqrt()) for grid in net.anchors.grids]  # pyright: ignore
    softmax = config.objectness == "softmax"
    objectness = box = torch.zeros(())
    all_regions, labels, wanted, owners = [], [], [], []
    ratios = (0.5, 1.0, 2.0)
    for image in range(2):
        logits, deltas, anchors = [], [], []
        for level, shape in enumerate(levels):
            hidden = F.conv2d(maps[level][image], p["rpn.conv.weight"], p["rpn.conv.bias"], padding=1).relu()
            out = F.conv2d(hidden, p["rpn.objectness.weight"], p["rpn.objectness.bias"]).permute(1, 2, 0)
            logits.append(out.reshape(-1, 2 if softmax else 1))
            moves = F.conv2d(hidden, p["rpn.deltas.weight"], p["rpn.deltas.bias"]).permute(1, 2, 0)
            deltas.append(moves.reshape(-1, 4))
            anchors.append(plain.anchors_of(shape, strides[level], (sizes[level],), ratios))
        size, real = given.sizes[image].tolist(), given.labels[image] > 0
        own_boxes = given.boxes[image][real]
        nll, distance, _ = plain.proposal_losses(
            torch.cat(logits), torch.cat(deltas), torch.cat(anchors), size, own_boxes,
            cross_boundary=not config.ignore_cross_boundary, sigma=config.sigma,
        )  # fmt: skip
        locations = sum(math.ceil(size[0] / stride) * math.ceil(size[1] / stride) for stride in strides)
        objectness = objectness + nll / EVERYTHING / 2
        box = box + config.loss_weight * distance / locations / 2
        found = [
            plain.proposals(
                (own[:, 1] - own[:, 0] if softmax else own[:, 0]).detach(), moves.detach(), grid, size,
                before=50, after=12, iou=config.nms_iou, least=config.min_size,
            )
            for own, moves, grid in zip(logits, deltas, anchors, strict=True)
        ]  # fmt: skip
        boxes, scores = torch.cat([b for b, _ in found]), torch.cat([s for _, s in found])
        boxes = torch.cat([boxes[scores.argsort(descending=True)[:12]], own_boxes])
        own, offsets, of = plain.region_targets(boxes, own_boxes, given.labels[image][real], STD)
        all_regions.append(boxes)
        labels.append(own)
        wanted.append(offsets)
        owners.append(of)

    def pooled(cells: int) -> Tensor:
        rows = []
        for image, boxes in enumerate(all_regions):
            for region in boxes:
                side = math.sqrt(float((region[2:] - region[:2]).prod()))
                octave = math.floor(math.log2(max(side, 1e-6) / net.canonical) + 1e-6) + 4
                level = min(
                    max(octave, round(math.log2(net.pooled_strides[0]))), round(math.log2(net.pooled_strides[-1]))
                )
                level -= round(math.log2(net.pooled_strides[0]))
                rows.append(
                    peer.roi_align(maps[level][image][None], [region[None]], cells, 1 / net.pooled_strides[level], 2)
                )
        return torch.cat(rows)

    cells = net.head_config.pool_size
    y = F.linear(pooled(cells).flatten(1), p["head.1.weight"], p["head.1.bias"]).relu()
    y = F.linear(y, p["head.3.weight"], p["head.3.bias"]).relu()
    scores = F.linear(y, p["predictor.scores.weight"], p["predictor.scores.bias"])
    deltas = F.linear(y, p["predictor.deltas.weight"], p["predictor.deltas.bias"])
    classification, regression = plain.region_losses(
        scores, deltas, torch.cat(labels), torch.cat(wanted), net.head_config.sigma
    )
    drawn = net.mask_head.masks(net.mask_head.layers(pooled(net.mask_pool_size)))
    mask, number, row = drawn.sum() * 0, 0, 0
    for image, own in enumerate(labels):
        for place, label in enumerate(own.tolist()):
            if label:
                object_of = int(owners[image][place])
                gt, region = given.boxes[image, object_of], all_regions[image][place]
                target = _mask_of_region(given.masks[image, object_of].float() / 255, gt, region, drawn.shape[-1])
                mask = mask + F.binary_cross_entropy_with_logits(drawn[row, label - 1], target)
                number += 1
            row += 1
    expected = {
        "loss_rpn_objectness": objectness,
        "loss_rpn_box": box,
        "loss_classification": classification,
        "loss_box": regression,
        "loss_mask": net.mask_weight * mask / max(1, number),
    }
    assert set(losses) == set(expected)
    compare(net, losses, expected, p)


def _mask_of_region(mask: Tensor, gt: Tensor, region: Tensor, size: int) -> Tensor:
    """Return (size, size), 1 where a cell of the region lies in the object's box and at least half of it is object."""
    cells = mask.shape[-1]
    per_pixel = cells / (gt[2:] - gt[:2])
    corners = torch.cat([(region[:2] - gt[:2]) * per_pixel, (region[2:] - gt[:2]) * per_pixel])
    read = peer.roi_align(mask[None, None], [corners[None]], size, 1.0, math.ceil(2 * cells / size), aligned=True)[0, 0]
    target = torch.zeros(size, size)
    for row in range(size):
        for column in range(size):
            x = corners[0] + (column + 0.5) / size * (corners[2] - corners[0])
            y = corners[1] + (row + 0.5) / size * (corners[3] - corners[1])
            target[row, column] = float(0 <= x <= cells and 0 <= y <= cells and read[row, column] >= 0.5)
    return target


@pytest.mark.parametrize("objects", [True, False], ids=["objects", "no-objects"])
def test_ssd(objects: bool) -> None:
    """From the maps on: outputs, default boxes, the bipartite step, mining, equation 1."""
    net, given = detector("ssd").train(), batch(objects=objects)
    assert isinstance(net, SSD)
    p = leaves(net)
    losses = net(given)
    maps = net.neck(net.backbone(plain.pixels(given.images, given.sizes)))
    side, config = net.side, net.config
    boxes, logits, deltas = [], [], []
    for level, own in enumerate(maps):
        height, width = own.shape[-2:]
        size, following, ratios = config.boxes.sizes[level], config.boxes.sizes[level + 1], config.boxes.ratios[level]
        shapes = [(size, size), (math.sqrt(size * following),) * 2]
        for ratio in ratios:
            shapes += [
                (size * math.sqrt(ratio), size / math.sqrt(ratio)),
                (size / math.sqrt(ratio), size * math.sqrt(ratio)),
            ]
        for row in range(height):
            for column in range(width):
                x, y = (column + 0.5) * side / width, (row + 0.5) * side / height
                boxes += [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for w, h in shapes]
        for kind, results, count in (("scores", logits, 3), ("deltas", deltas, 4)):
            out = F.conv2d(own, p[f"outputs.{kind}.{level}.weight"], p[f"outputs.{kind}.{level}.bias"], padding=1)
            results.append(out.permute(0, 2, 3, 1).reshape(2, -1, count))
    default = torch.tensor(boxes).clamp(0, side)
    all_logits, all_deltas = torch.cat(logits, 1), torch.cat(deltas, 1)
    classification, localisation, matched = all_logits.sum() * 0, all_deltas.sum() * 0, 0
    for image in range(2):
        real = given.labels[image] > 0
        objects_of, kinds = given.boxes[image][real], given.labels[image][real]
        iou = plain_iou(objects_of, default)
        own = [-1] * len(default)
        for row, column in sorted(
            ((g, a) for g in range(len(objects_of)) for a in range(len(default))), key=lambda pair: -iou[pair]
        ):
            if iou[row, column] > 0 and row not in own and own[column] < 0:
                own[column] = row
        for column in range(len(default)):
            if own[column] < 0 and len(objects_of) and iou[:, column].max() >= config.positive_iou:
                own[column] = int(iou[:, column].argmax())
        labels = torch.tensor([int(kinds[row]) if row >= 0 else 0 for row in own])
        nll = F.cross_entropy(all_logits[image], labels, reduction="none")
        positive = [column for column, row in enumerate(own) if row >= 0]
        background = sorted((c for c, row in enumerate(own) if row < 0), key=lambda c: -nll[c].item())
        chosen = positive + background[: int(3 * len(positive))]
        classification = classification + nll[chosen].sum()
        for column in positive:
            wanted = plain.targets(default[column : column + 1], objects_of[own[column]][None])[0] / torch.tensor(STD)
            localisation = localisation + plain.robust(all_deltas[image, column] - wanted, 1.0)
        matched += len(positive)
    count = max(1, matched)
    expected = {"loss_classification": classification / count, "loss_box": config.loss_weight * localisation / count}
    compare(net, losses, expected, p)


@pytest.mark.parametrize("objects", [True, False], ids=["objects", "no-objects"])
def test_yolo(objects: bool) -> None:
    """From the net's outputs on: equation 3, a cell at a time, with its gradient."""
    net, given = detector("yolo", "model.dropout=0.0").train(), batch(objects=objects)
    assert isinstance(net, YOLO)
    p, grid, side = leaves(net), net.config.grid, float(net.side)
    losses = net(given)
    out = net.head(net.neck(net.backbone(plain.pixels(given.images, given.sizes)))).view(2, grid, grid, -1)
    number = net.config.boxes
    place = sure = kinds = out.sum() * 0
    for image in range(2):
        holder: dict[tuple[int, int], tuple[Tensor, int]] = {}
        for box, label in zip(given.boxes[image], given.labels[image].tolist(), strict=True):
            if label:
                x, y = ((box[axis] + box[axis + 2]).item() / 2 * grid / side for axis in (0, 1))
                holder.setdefault((min(int(y), grid - 1), min(int(x), grid - 1)), (box, label))
        for row in range(grid):
            for column in range(grid):
                values = out[image, row, column]
                guesses, classes = values[: 5 * number].view(number, 5), values[5 * number :]
                best, overlap = -1, [0.0] * number
                if (row, column) in holder:
                    box, label = holder[row, column]
                    centre = (box[:2] + box[2:]) / 2 * grid / side - torch.tensor([column, row])
                    target = torch.cat([centre, ((box[2:] - box[:2]) / side).sqrt()])
                    decoded = []
                    for x, y, w, h in guesses[:, :4].detach().tolist():
                        cx, cy, w, h = (
                            (x + column) * side / grid,
                            (y + row) * side / grid,
                            max(w, 0) ** 2 * side,
                            max(h, 0) ** 2 * side,
                        )
                        decoded.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                    overlap = plain_iou(torch.tensor(decoded), box[None])[:, 0].tolist()
                    away = (guesses[:, :4] - target).square().sum(1)
                    best = int(torch.tensor(overlap).argmax()) if max(overlap) > 0 else int(away.argmin())
                    place = place + 5.0 * away[best]
                    kinds = kinds + (classes - F.one_hot(torch.tensor(label - 1), 2)).square().sum()
                for guess in range(number):
                    if guess == best:
                        sure = sure + (guesses[guess, 4] - overlap[guess]) ** 2
                    else:
                        sure = sure + 0.5 * guesses[guess, 4] ** 2
    expected = {"loss_box": place / 2, "loss_confidence": sure / 2, "loss_classification": kinds / 2}
    compare(net, losses, expected, p)
