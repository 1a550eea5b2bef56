"""Mask R-CNN: FPN with a branch that draws each object (He et al., ICCV 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paperbench.detection.batches import Batch
from paperbench.detection.detectors.fpn import FPN, build_parts
from paperbench.detection.feature_pyramid import Maps
from paperbench.detection.masks import MaskHead, mask_loss, mask_targets, matched_objects
from paperbench.detection.model_config import MaskRCNNModel
from paperbench.detection.nms import DetectionBatch
from paperbench.detection.roi_head import Regions
from paperbench.detection.roi_pooling import Pooling, pool_from_levels
from paperbench.detection.rpn import Proposals

ALIGNED: Pooling = "roi-align"
"""How regions are pooled for masks, whatever the boxes' head does: rounded bins move masks (section 3, RoIAlign)."""


class MaskRCNN(FPN):
    """FPN, and `loss_mask` beside its losses; detections come with masks in the frames of their boxes."""

    masks = True

    def __init__(self, *, mask_head: MaskHead, mask_pool_size: int, mask_weight: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.mask_head = mask_head
        self.mask_pool_size = mask_pool_size
        self.mask_weight = mask_weight
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def draw_masks(self, features: Maps, boxes: Tensor, labels: Tensor) -> Tensor:
        """Boxes (B, R, 4) and labels (B, R) -> logits (B * R, m, m) of each region's own class."""
        pooled = pool_from_levels(
            features,
            boxes,
            strides=self.pooled_strides,
            canonical=self.canonical,
            kind=ALIGNED,
            size=self.mask_pool_size,
        )
        return self.mask_head(pooled, labels.flatten())

    def region_losses(self, batch: Batch, features: Maps, regions: Regions) -> dict[str, Tensor]:
        """Those of `FasterRCNN`, and the masks' over the regions that are objects."""
        losses = super().region_losses(batch, features, regions)
        assert batch.masks is not None
        # Sampled regions have their objects first, and no more than their share of them.
        config = self.head_config
        slots = config.batch_size_per_image
        if not config.ohem:
            slots = max(1, int(slots * config.positive_fraction))
        boxes, labels = regions.boxes[:, :slots], regions.labels[:, :slots]
        own = matched_objects(boxes, batch.boxes, batch.labels)
        side = batch.masks.shape[-1]
        masks = batch.masks.gather(1, own[..., None, None].expand(-1, -1, side, side)).flatten(0, 1)
        gt_boxes = batch.boxes.gather(1, own[..., None].expand(-1, -1, 4)).flatten(0, 1)
        logits = self.draw_masks(features, boxes, labels)
        targets = mask_targets(masks, gt_boxes, boxes.flatten(0, 1), size=logits.shape[-1])
        positive = ((labels > 0) & regions.valid[:, :slots]).flatten()
        return losses | {"loss_mask": self.mask_weight * mask_loss(logits, targets, positive)}

    @torch.no_grad()
    def detect(self, batch: Batch) -> tuple[DetectionBatch, Proposals]:
        """As in `FasterRCNN`; masks are drawn in the boxes that were found, not in the proposals (section 3)."""
        found, proposals, features = self.detect_boxes(batch)
        used = max(1, int(found.valid.sum(1).max()))
        boxes, labels = found.boxes[:, :used], found.labels[:, :used]
        logits = self.draw_masks(features, boxes, labels)
        side = logits.shape[-1]
        masks = logits.new_zeros(*found.labels.shape, side, side)
        masks[:, :used] = logits.sigmoid().view(*labels.shape, side, side)
        return found._replace(masks=masks), proposals


def build_mask_rcnn(model: MaskRCNNModel, *, classes: Sequence[str], pretrained: bool = True) -> MaskRCNN:
    """Return FPN with a branch for masks; arguments as of `build.build`."""
    parts, mask = build_parts(model, classes=classes, pretrained=pretrained), model.mask
    head = MaskHead(
        in_channels=model.pyramid.channels,
        channels=mask.channels,
        convolutions=mask.convolutions,
        classes=len(classes),
    )
    return MaskRCNN(mask_head=head, mask_pool_size=mask.pool_size, mask_weight=mask.loss_weight, **parts)
