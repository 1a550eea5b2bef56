"""The loss of YOLO, equation 3 (Redmon et al., CVPR 2016), as functions of dense tensors.

B images, S cells on a side, N boxes of a cell, G objects (padded), C classes. Boxes of a cell are `(x, y, root_w, root_h)`: the
centre in units of the cell from its corner, and the square roots of width and height as shares of the image's side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paperbench.detection import boxes as box_ops


def cell_corners(grid: int, device: torch.device) -> Tensor:
    """(S * S, 2) x and y of every cell in units of cells, row by row."""
    steps = torch.arange(grid, device=device, dtype=torch.float32)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([columns, rows], dim=-1).view(-1, 2)


def decode_cells(boxes: Tensor, *, grid: int, side: float) -> Tensor:
    """(..., S * S, N, 4) as cells have them -> xyxy in pixels of an image of `side` pixels, not clipped."""
    centre = (boxes[..., :2] + cell_corners(grid, boxes.device)[:, None]) * (side / grid)
    half = boxes[..., 2:].clamp(min=0).square() * (side / 2)
    return torch.cat([centre - half, centre + half], dim=-1)


class CellTargets(NamedTuple):
    """For every cell: object (B, S * S) bool, label (B, S * S) in 0..C, coordinates (B, S * S, 4) as boxes of a cell, and the
    box itself, corners (B, S * S, 4) in pixels."""

    object: Tensor
    label: Tensor
    coordinates: Tensor
    corners: Tensor


@torch.no_grad()
def cell_targets(gt_boxes: Tensor, gt_labels: Tensor, *, grid: int, side: float) -> CellTargets:
    """Which object each cell is responsible for: the one whose centre it holds, the first where it holds several (section 2).

    gt_boxes (B, G, 4) in pixels, gt_labels (B, G) with 0 for padding.
    """
    batch, count = gt_labels.shape
    centre = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2 * (grid / side)
    whole = centre.floor().clamp(0, grid - 1)
    cell = (whole[..., 1] * grid + whole[..., 0]).long()
    order = torch.arange(count, device=gt_labels.device).expand(batch, -1)
    order = torch.where(gt_labels > 0, order, count)
    owner = torch.full((batch, grid * grid), count, device=gt_labels.device)
    owner = owner.scatter_reduce(1, cell, order, "amin")
    has_object = owner < count
    own = owner.clamp(max=count - 1)
    corners = gt_boxes.gather(1, own[..., None].expand(-1, -1, 4))
    offset = (centre - whole).gather(1, own[..., None].expand(-1, -1, 2))
    roots = ((corners[..., 2:] - corners[..., :2]) / side).clamp(min=0).sqrt()
    label = torch.where(has_object, gt_labels.gather(1, own), 0)
    return CellTargets(has_object, label, torch.cat([offset, roots], dim=-1), corners)


def yolo_loss(
    boxes: Tensor,
    confidence: Tensor,
    scores: Tensor,
    targets: CellTargets,
    *,
    grid: int,
    side: float,
    coordinate_weight: float,
    empty_weight: float,
) -> dict[str, Tensor]:
    """The parts of equation 3, already weighted, as means over images.

    boxes (B, S * S, N, 4), confidence (B, S * S, N), scores (B, S * S, C). Of the boxes of a cell with an object, the one that
    overlaps it most is responsible; where none overlaps it, the one whose coordinates are closest, as in the authors' code.
    Its confidence is to be its overlap, all others' 0.
    """
    images = len(boxes)
    with torch.no_grad():
        overlap = box_ops.iou(
            decode_cells(boxes, grid=grid, side=side).flatten(0, 1), targets.corners.flatten(0, 1)[:, None]
        ).view(confidence.shape)
        distance = (boxes - targets.coordinates[:, :, None]).square().sum(-1)
        best = torch.where(overlap.amax(-1) > 0, overlap.argmax(-1), distance.argmin(-1))
        responsible = torch.zeros_like(confidence, dtype=torch.bool).scatter(2, best[..., None], True)
        responsible &= targets.object[..., None]
    place = (boxes - targets.coordinates[:, :, None]).square().sum(-1) * responsible
    with_object = (confidence - overlap).square() * responsible
    without = confidence.square() * ~responsible
    wanted = torch.nn.functional.one_hot(targets.label, scores.shape[-1] + 1)[..., 1:]
    classes = (scores - wanted).square().sum(-1) * targets.object
    return {
        "loss_box": coordinate_weight * place.sum() / images,
        "loss_confidence": (with_object.sum() + empty_weight * without.sum()) / images,
        "loss_classification": classes.sum() / images,
    }
