"""R-CNN: each region is warped to one size and goes through the whole net by itself (Girshick et al., CVPR 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from paperbench.detection.batches import Batch
from paperbench.detection.detectors.fast_rcnn import FastRCNN, build_parts
from paperbench.detection.rcnn_config import RCNNModel
from paperbench.detection.roi_head import over_valid
from paperbench.detection.roi_pooling import warp


class RCNN(FastRCNN):
    """R-CNN (Girshick et al., CVPR 2014): every region is warped and goes through all layers by itself."""

    def __init__(self, *, config: RCNNModel, **parts: Any) -> None:
        super().__init__(config=config, **parts)
        self.config = config

    def maps(self, batch: Batch) -> Tensor:
        """The normalised images themselves, (B, 3, H, W)."""
        return self.normalise(batch.images, batch.sizes)

    def pool(self, maps: Tensor, boxes: Tensor, valid: Tensor | None = None) -> Tensor:
        """Warped regions through the convolutions, then the maximum in a grid: (B * R, F, size, size)."""
        with torch.no_grad():
            warped = warp(maps, boxes, size=self.config.crop, context=self.config.context)
            warped = warped.contiguous(memory_format=torch.channels_last)
        with torch.no_grad() if not self.config.fine_tune else nullcontext():
            features = over_valid(nn.Sequential(self.backbone, self.neck), warped, valid)
        return nn.functional.adaptive_max_pool2d(features, self.head_config.pool_size)

    def classify_regions(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As of `FastRCNN`, `crops` regions at a time."""
        parts = [self.judge(self.pool(maps, part)) for part in boxes.split(self.config.crops, dim=1)]
        scores, deltas = zip(*parts, strict=True)
        return torch.cat(scores), torch.cat(deltas)


def build_rcnn(model: RCNNModel, *, classes: Sequence[str], pretrained: bool = True, svm: bool | None = None) -> RCNN:
    """Return R-CNN; arguments as of `build.build`."""
    return RCNN(**build_parts(replace(model), classes=classes, pretrained=pretrained, svm=svm))
