"""YOLO, version 1: one net that looks at the whole image once (Redmon et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paperbench.detection.base import Detector
from paperbench.detection.batches import Batch
from paperbench.detection.postprocess import DetectionBatch, scored_boxes
from paperbench.detection.successors.yolo_loss import cell_targets, decode_cells, yolo_loss

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
        side: int,
        grid: int,
        boxes: int,
        coordinate_weight: float = 5.0,
        empty_weight: float = 0.5,
        score_threshold: float = 0.01,
        nms_iou: float = 0.5,
        detections_per_image: int = 100,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(classes=classes, side=side)
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.grid = grid
        self.boxes = boxes
        self.coordinate_weight = coordinate_weight
        self.empty_weight = empty_weight
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.detections_per_image = detections_per_image
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, S * S, N, 4), confidence (B, S * S, N) and class scores (B, S * S, C), float32."""
        x = self.head(self.neck(self.backbone(self.normalise(batch.images, batch.sizes)))).float()
        cells = x.view(len(batch), self.grid * self.grid, -1)
        boxes, scores = cells.split([5 * self.boxes, cells.shape[-1] - 5 * self.boxes], dim=-1)
        boxes = boxes.reshape(*boxes.shape[:2], self.boxes, 5)
        return boxes[..., :4], boxes[..., 4], scores

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch; nothing in them is drawn."""
        boxes, confidence, scores = self.predict(batch)
        return yolo_loss(
            boxes,
            confidence,
            scores,
            cell_targets(batch.boxes, batch.labels, grid=self.grid, side=self.side),
            grid=self.grid,
            side=self.side,
            coordinate_weight=self.coordinate_weight,
            empty_weight=self.empty_weight,
        )

    @torch.no_grad()
    def detect(self, batch: Batch) -> tuple[DetectionBatch, None]:
        """Detections in pixels of the resized images; a box's score is its confidence times the class's (equation 1)."""
        boxes, confidence, scores = self.predict(batch)
        found = scored_boxes(
            (confidence[..., None] * scores[:, :, None]).flatten(1, 2).clamp(0, 1),
            decode_cells(boxes, grid=self.grid, side=self.side).flatten(1, 2),
            batch.sizes,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            limit=self.detections_per_image,
        )
        return found, None
