"""Tiny detectors of every kind, and a batch for them."""

from __future__ import annotations

import torch

from paperbench.config.compose import compose
from paperbench.detection.batches import Batch
from paperbench.detection.build import build
from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.ssd import SSD
from paperbench.detection.detectors.yolo import YOLO
from paperbench.detection.masks import FRAME

KINDS = ("fpn", "mask-rcnn", "rfcn", "ssd", "yolo")


def detector(kind: str, *overrides: str) -> Detector:
    """The net of an experiment at smoke scale, for two classes."""
    torch.manual_seed(0)
    return build(compose(kind, ["scale=smoke", *overrides]).config.model, classes=["cat", "dog"])


def batch(*, objects: bool = True) -> Batch:
    """Two images on a canvas of 96 pixels with two objects and one, whose masks are the left halves of their boxes."""
    generator = torch.Generator().manual_seed(1)
    boxes = torch.tensor([[[8.0, 8, 50, 60], [20, 30, 80, 90]], [[5, 5, 40, 40], [0, 0, 0, 0]]])
    labels = torch.tensor([[1, 2], [2, 0]])
    masks = torch.zeros(2, 2, FRAME, FRAME, dtype=torch.uint8)
    masks[..., : FRAME // 2] = 255
    return Batch(
        images=torch.randint(0, 256, (2, 3, 96, 96), generator=generator, dtype=torch.uint8),
        sizes=torch.tensor([[96, 96], [80, 96]]),
        scales=torch.ones(2),
        boxes=boxes if objects else torch.zeros_like(boxes),
        labels=labels if objects else torch.zeros_like(labels),
        indices=torch.arange(2),
        masks=masks,
    )


def set_score_threshold(net: Detector, threshold: float) -> None:
    """Change the least score of a detection."""
    assert isinstance(net, FasterRCNN | SSD | YOLO)
    config = net.head_config if isinstance(net, FasterRCNN) else net.config
    config.score_threshold = threshold
