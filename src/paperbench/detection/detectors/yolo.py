"""YOLO, version 1: one net that looks at the whole image once (Redmon et al., CVPR 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from paperbench.detection import boxes as box_ops
from paperbench.detection.backbones import make_backbone
from paperbench.detection.batches import Batch
from paperbench.detection.deformable import deform
from paperbench.detection.detectors.base import Detector
from paperbench.detection.model_config import YOLOModel
from paperbench.detection.nms import DetectionBatch, finite_or_nan, postprocess_boxes
from paperbench.errors import ConfigError

LEAK = 0.1
"""Slope of the leaky rectifier below 0 (equation 2)."""


def connected_head(*, in_channels: int, grid: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """The paper's two fully connected layers: (B, F, S, S) -> (B, S * S * outputs), cell after cell."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * grid * grid, hidden),
        nn.LeakyReLU(LEAK, inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, grid * grid * outputs),
    )


class ConvolutionalHead(nn.Module):
    """The same outputs from a 1x1 convolution, for data too few to teach every cell on its own."""

    def __init__(self, *, in_channels: int, outputs: int) -> None:
        super().__init__()
        self.outputs = nn.Conv2d(in_channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, S, S) -> (B, S * S * outputs), cell after cell."""
        return self.outputs(x).permute(0, 2, 3, 1).flatten(1)


def further_layers(in_channels: int, *, channels: int, halvings: int) -> nn.Sequential:
    """From the backbone's map to the grid: a convolution of stride 2 for each halving, and one that keeps the size."""
    layers: list[nn.Module] = []
    for stride in (*[2] * halvings, 1):
        layers += [
            nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
        in_channels = channels
    return nn.Sequential(*layers)


class YOLO(Detector):
    """Three losses; images lie in the corner of a square of `side` pixels, cut into grid x grid cells.

    `head` maps (B, F, S, S) to (B, S * S * (5 N + C)): for each cell its N boxes as (x, y, root_w, root_h, confidence), then the
    probabilities of the classes given an object. All outputs are linear, as in the paper.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        config: YOLOModel,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(classes=classes, side=config.side)
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.config = config
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, S * S, N, 4), confidence (B, S * S, N) and class scores (B, S * S, C), float32."""
        x = self.head(self.neck(self.backbone(self.normalise(batch.images, batch.sizes)))).float()
        count = self.config.boxes
        cells = x.view(len(batch), self.config.grid**2, -1)
        boxes, scores = cells.split([5 * count, cells.shape[-1] - 5 * count], dim=-1)
        boxes = boxes.reshape(*boxes.shape[:2], count, 5)
        return boxes[..., :4], boxes[..., 4], scores

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch; nothing in them is drawn."""
        boxes, confidence, scores = self.predict(batch)
        targets = cell_targets(batch.boxes, batch.labels, grid=self.config.grid, side=self.side)
        return yolo_loss(boxes, confidence, scores, targets, self.config)

    @torch.no_grad()
    def detect(self, batch: Batch) -> tuple[DetectionBatch, None]:
        """Detections in pixels of the resized images; a box's score is its confidence times the class's (equation 1)."""
        boxes, confidence, scores = self.predict(batch)
        found = postprocess_boxes(
            finite_or_nan(confidence[..., None] * scores[:, :, None]).flatten(1, 2).clamp(0, 1),
            decode_cells(boxes, grid=self.config.grid, side=self.side).flatten(1, 2),
            batch.sizes,
            self.config,
        )
        return found, None


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
    """Assign to each cell the first object whose centre it holds (section 2).

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
    config: YOLOModel,
) -> dict[str, Tensor]:
    """The parts of equation 3, already weighted, as means over images.

    boxes (B, S * S, N, 4), confidence (B, S * S, N), scores (B, S * S, C). Of the boxes of a cell with an object, the one that
    overlaps it most is responsible; where none overlaps it, the one whose coordinates are closest, as in the authors' code.
    Its confidence is to be its overlap, all others' 0.
    """
    images, grid, side = len(boxes), config.grid, config.side
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
        "loss_box": config.coord_weight * place.sum() / images,
        "loss_confidence": (with_object.sum() + config.noobj_weight * without.sum()) / images,
        "loss_classification": classes.sum() / images,
    }


def build_yolo(model: YOLOModel, *, classes: Sequence[str], pretrained: bool = True) -> YOLO:
    """YOLO."""
    backbone = make_backbone(model, pretrained=pretrained)
    deform([backbone.features], model.deformable)
    halvings = round(math.log2(max(1.0, model.side / (model.grid * backbone.stride))))
    if model.grid * backbone.stride * 2**halvings != model.side:
        sides = ", ".join(str(model.grid * backbone.stride * 2**power) for power in range(4))
        raise ConfigError(
            f"model.side={model.side}: with model.grid={model.grid} and the stride {backbone.stride} of {model.backbone} it can "
            f"be {sides}"
        )
    outputs = 5 * model.boxes + len(classes)
    if model.head == "connected":
        head = connected_head(
            in_channels=model.channels, grid=model.grid, hidden=model.hidden, outputs=outputs, dropout=model.dropout
        )
    else:
        head = ConvolutionalHead(in_channels=model.channels, outputs=outputs)
    return YOLO(
        backbone=backbone.features,
        neck=further_layers(backbone.channels, channels=model.channels, halvings=halvings),
        head=head,
        config=replace(model),
        classes=classes,
    )
