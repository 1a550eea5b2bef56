"""R-CNN: each region is warped to one size and goes through the whole net by itself (Girshick et al., CVPR 2014)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from paperbench.detection.batches import Batch
from paperbench.detection.detectors.fast_rcnn import RegionNet
from paperbench.detection.roi_pooling import warp


class RCNN(RegionNet):
    """R-CNN (Girshick et al., CVPR 2014): every region is warped and goes through all layers by itself."""

    def __init__(self, *, crop: int, context: int, crops: int = 128, frozen: bool = False, **settings: object) -> None:
        super().__init__(**settings)  # pyright: ignore[reportArgumentType]
        self.crop = crop
        self.context = context
        self.crops = crops
        self.frozen = frozen

    def maps(self, batch: Batch) -> Tensor:
        """The normalised images themselves, (B, 3, H, W)."""
        return self.normalise(batch.images, batch.sizes)

    def pool(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """Warped regions through the convolutions, then the maximum in a grid: (B * R, F, size, size)."""
        with torch.no_grad():
            warped = warp(maps, boxes, size=self.crop, context=self.context)
            warped = warped.contiguous(memory_format=torch.channels_last)
        with torch.no_grad() if self.frozen else nullcontext():
            return nn.functional.adaptive_max_pool2d(self.neck(self.backbone(warped)), self.pool_size)

    def judge_regions(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As of `RegionNet`, `crops` regions at a time."""
        parts = [self.judge(self.pool(maps, part)) for part in boxes.split(self.crops, dim=1)]
        scores, deltas = zip(*parts, strict=True)
        return torch.cat(scores), torch.cat(deltas)
