"""Faster R-CNN on a feature pyramid (Lin et al., Feature Pyramid Networks, CVPR 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paperbench.detection.batches import Batch
from paperbench.detection.detector import FasterRCNN
from paperbench.detection.proposals import Proposals, propose
from paperbench.detection.rpn import objectness_score
from paperbench.detection.successors.levels import BottomUp, Maps, PyramidNeck
from paperbench.detection.successors.pyramid import PyramidAnchors, best_of_levels, pool_from_levels


class FPN(FasterRCNN):
    """One region proposal network and one head for all levels; the level follows from the size of anchor and region (section 4).

    `pooled_strides` are the levels that regions are pooled from: all but those that were only added for proposals.
    """

    anchors: PyramidAnchors  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        *,
        backbone: BottomUp,
        neck: PyramidNeck,
        anchors: PyramidAnchors,
        pooled_strides: tuple[int, ...],
        canonical: float,
        **settings: Any,
    ) -> None:
        super().__init__(backbone=backbone, neck=neck, anchors=anchors, **settings)  # pyright: ignore[reportArgumentType]
        self.pooled_strides = pooled_strides
        self.canonical = canonical
        self._shapes: dict[tuple[int, ...], list[tuple[int, int]]] = {}

    def extract(self, batch: Batch) -> Maps:
        """Images to the maps of the pyramid, finest first."""
        maps = super().extract(batch)
        # Which shape of images gives which shapes of maps: a property of the net, noted for `regions_of_interest`.
        self._shapes[tuple(batch.images.shape[-2:])] = [(level.shape[-2], level.shape[-1]) for level in maps]
        return maps

    def score_anchors(self, features: Maps) -> tuple[Tensor, Tensor, Tensor]:
        """As in `FasterRCNN`, with the anchors of all levels in one row, finest first."""
        outputs = [self.rpn(level) for level in features]
        anchors = self.anchors([(level.shape[-2], level.shape[-1]) for level in features])
        logits, deltas = (torch.cat(parts, dim=1) for parts in zip(*outputs, strict=True))
        return logits, deltas, torch.cat(anchors)

    def regions_of_interest(self, batch: Batch, outputs: tuple[Tensor, Tensor], anchors: Tensor) -> Proposals:
        """The best of all levels; each level is ranked and suppressed on its own before."""
        shapes = self._shapes[tuple(batch.images.shape[-2:])]
        counts = [height * width * self.anchors.per_location for height, width in shapes]
        scores, deltas = objectness_score(outputs[0].detach()), outputs[1].detach()
        parts = zip(scores.split(counts, 1), deltas.split(counts, 1), anchors.split(counts), strict=True)
        pre, post = (
            (self.pre_nms_train, self.post_nms_train) if self.training else (self.pre_nms_test, self.post_nms_test)
        )
        levels = [
            propose(
                *part,
                batch.sizes,
                pre_nms=pre,
                post_nms=post,
                nms_iou=self.rpn_nms_iou,
                min_size=self.min_size * batch.scales,
            )
            for part in parts
        ]
        return best_of_levels(levels, post)

    def pool_regions(self, features: Maps, boxes: Tensor, size: int) -> Tensor:
        """Maps and boxes (B, R, 4) -> (B * R, F, size, size)."""
        return pool_from_levels(
            features, boxes, strides=self.pooled_strides, canonical=self.canonical, kind=self.pool, size=size
        )

    def classify(self, features: Maps, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As in `FasterRCNN`."""
        return self.predictor(self.head(self.pool_regions(features, boxes, self.pool_size)))
