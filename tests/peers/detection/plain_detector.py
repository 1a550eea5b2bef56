"""The first losses of a two-stage detector written plainly: an image, an anchor, a region at a time, with torch for the gradient.

Every anchor and every region is trained on, so that nothing is drawn. Constants are those of Faster R-CNN, TPAMI 2016.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.peers.detection.inputs import plain_iou

Boxes = list[list[float]]


def pixels(images: Tensor, sizes: Tensor) -> Tensor:
    """Return images (B, 3, H, W) of bytes less ImageNet's mean over its deviation, 0 outside each image."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255
    result = torch.zeros(images.shape)
    for image, (height, width) in enumerate(sizes.tolist()):
        result[image, :, :height, :width] = (images[image, :, :height, :width].float() - mean) / deviation
    return result


def targets(reference: Tensor, boxes: Tensor) -> Tensor:
    """Return equation 2 for (N, 4) references and objects."""
    size, own = reference[:, 2:] - reference[:, :2], boxes[:, 2:] - boxes[:, :2]
    centre, own_centre = (reference[:, :2] + reference[:, 2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([(own_centre - centre) / size, (own / size).log()], dim=1)


def moved(reference: Tensor, deltas: Tensor) -> Tensor:
    """Return the boxes whose targets are `deltas`, (N, 4)."""
    size, centre = reference[:, 2:] - reference[:, :2], (reference[:, :2] + reference[:, 2:]) / 2
    centre, half = centre + deltas[:, :2] * size, size * deltas[:, 2:].clamp(max=math.log(1000 / 16)).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def robust(x: Tensor, sigma: float) -> Tensor:
    """Return the sum of smooth L1 over a row."""
    return F.smooth_l1_loss(x, torch.zeros_like(x), beta=1 / sigma**2, reduction="none").sum(-1)


def proposal_losses(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    size: list[int],
    objects: Tensor,
    *,
    cross_boundary: bool,
    sigma: float,
) -> tuple[Tensor, Tensor, int]:
    """Return the sums of the log loss and of the regression over the anchors of one image that are trained on, and their number.

    logits (A, 1 or 2), deltas (A, 4), objects (G, 4).
    """
    iou = plain_iou(objects, anchors)
    height, width = size
    nll, box, count = logits.sum() * 0, deltas.sum() * 0, 0
    allowed = [
        cross_boundary or (a[0] >= 0 and a[1] >= 0 and a[2] <= width and a[3] <= height) for a in anchors.tolist()
    ]
    highest = [max((iou[g, a] for a in range(len(anchors)) if allowed[a]), default=0.0) for g in range(len(objects))]
    for a in range(len(anchors)):
        if not allowed[a]:
            continue
        best = max(iou[:, a], default=0.0)
        # The best for an object: anchors of one shape tie but for rounding.
        claims = any(highest[g] > 0 and iou[g, a] >= highest[g] * (1 - 1e-5) for g in range(len(objects)))
        positive = best >= 0.7 or claims
        if not positive and best >= 0.3:
            continue
        count += 1
        if logits.shape[1] == 1:
            nll = nll + F.binary_cross_entropy_with_logits(logits[a, 0], torch.tensor(float(positive)))
        else:
            nll = nll + F.cross_entropy(logits[a : a + 1], torch.tensor([int(positive)]))
        if positive:
            own = objects[int(iou[:, a].argmax())][None]
            box = box + robust(deltas[a] - targets(anchors[a : a + 1], own)[0], sigma)
    return nll, box, count


def proposals(
    scores: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    size: list[int],
    *,
    before: int,
    after: int,
    iou: float,
    least: float,
) -> tuple[Tensor, Tensor]:
    """Return the boxes (P, 4) and scores of one image: ranked, cut off, large enough, suppressed."""
    order = scores.argsort(descending=True)[:before]
    height, width = size
    boxes = moved(anchors[order], deltas[order])
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]).float())
    large = ((boxes[:, 2:] - boxes[:, :2]) >= least).all(1)
    boxes, order = boxes[large], order[large]
    overlap = plain_iou(boxes, boxes)
    kept: list[int] = []
    for number in range(len(boxes)):
        if len(kept) < after and all(overlap[number, other] <= iou for other in kept):
            kept.append(number)
    return boxes[kept], scores[order[kept]]


def region_targets(
    regions: Tensor, objects: Tensor, labels: Tensor, std: tuple[float, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return label (R,), targets (R, 4) and object (R,) of regions: the object that each overlaps by at least one half."""
    iou = plain_iou(objects, regions)
    own, wanted, of = [], [], []
    for number, region in enumerate(regions):
        best = int(iou[:, number].argmax()) if len(objects) else 0
        positive = len(objects) > 0 and iou[best, number] >= 0.5
        own.append(int(labels[best]) if positive else 0)
        of.append(best)
        row = targets(region[None], objects[best : best + 1])[0] / torch.tensor(std) if positive else torch.zeros(4)
        wanted.append(row)
    return torch.tensor(own), torch.stack(wanted), torch.tensor(of)


def region_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor, sigma: float
) -> tuple[Tensor, Tensor]:
    """Return equation 1 of Fast R-CNN over all regions of a batch; deltas (R, 4 (C + 1))."""
    box = deltas.sum() * 0
    for row, label in enumerate(labels.tolist()):
        if label:
            box = box + robust(deltas[row, 4 * label : 4 * label + 4] - wanted[row], sigma)
    return F.cross_entropy(logits, labels), box / len(labels)


def sgd(
    parameters: dict[str, Tensor], gradients: dict[str, Tensor], rates: dict[str, float], decay: float
) -> dict[str, Tensor]:
    """Return the weights after the first step of gradient descent; momentum begins with the gradient itself."""
    return {name: w - rates[name] * (gradients[name] + decay * w) for name, w in parameters.items()}


def anchors_of(shape: tuple[int, int], stride: int, sizes: tuple[float, ...], ratios: tuple[float, ...]) -> Tensor:
    """Return the anchors of a map (A, 4): row, column, ratio, size."""
    rows: Boxes = []
    for row, column in np.ndindex(*shape):
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        for ratio in ratios:
            for size in sizes:
                w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                rows.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return torch.tensor(rows)
