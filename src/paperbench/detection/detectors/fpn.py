"""Faster R-CNN on a feature pyramid (Lin et al., Feature Pyramid Networks, CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paperbench.detection.anchors import PyramidAnchors
from paperbench.detection.backbones import make_backbone
from paperbench.detection.batches import Batch
from paperbench.detection.deformable import deform
from paperbench.detection.detectors.faster_rcnn import FasterRCNN, require_two_shared_stages, two_stage_settings
from paperbench.detection.feature_pyramid import BottomUp, Maps, PyramidNeck
from paperbench.detection.model_config import FPNModel
from paperbench.detection.roi_head import BoxPredictor, over_valid, two_layer_head
from paperbench.detection.roi_pooling import pool_from_levels
from paperbench.detection.rpn import Proposals, objectness_score, propose
from paperbench.errors import ConfigError


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
        levels = [propose(*part, batch.sizes, batch.scales, self.rpn_config, training=self.training) for part in parts]
        return best_of_levels(levels, self.rpn_config.topk(training=self.training)[1])

    def pool_regions(self, features: Maps, boxes: Tensor, size: int) -> Tensor:
        """Maps and boxes (B, R, 4) -> (B * R, F, size, size)."""
        return pool_from_levels(
            features,
            boxes,
            strides=self.pooled_strides,
            canonical=self.canonical,
            kind=self.head_config.pool,
            size=size,
        )

    def classify(self, features: Maps, boxes: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As in `FasterRCNN`."""
        pooled = self.pool_regions(features, boxes, self.head_config.pool_size)
        return self.predictor(over_valid(self.head, pooled, valid))


def best_of_levels(levels: Sequence[Proposals], count: int) -> Proposals:
    """The best `count` proposals of each image over all levels, each level's own having survived its suppression."""
    boxes = torch.cat([level.boxes for level in levels], dim=1)
    valid = torch.cat([level.valid for level in levels], dim=1)
    scores = torch.cat([level.scores for level in levels], dim=1).masked_fill(~valid, float("-inf"))
    best, index = scores.topk(min(count, scores.shape[1]), dim=1)
    return Proposals(boxes.gather(1, index[..., None].expand(-1, -1, 4)), best, valid.gather(1, index))


def build_fpn(model: FPNModel, *, classes: Sequence[str], pretrained: bool = True) -> FPN:
    """Return Faster R-CNN on a feature pyramid; arguments as of `build.build`."""
    return FPN(**build_parts(model, classes=classes, pretrained=pretrained))


def build_parts(model: FPNModel, *, classes: Sequence[str], pretrained: bool) -> dict[str, Any]:
    """Return the arguments of `FPN`."""
    require_two_shared_stages(model)
    backbone = make_backbone(model, pretrained=pretrained)
    bottom_up = BottomUp(backbone, finest=model.pyramid.finest_stride)
    deform(list(bottom_up.stages), model.deformable)
    pyramid, channels = model.pyramid, model.pyramid.channels
    if model.projection:
        raise ConfigError(
            f"model.projection={model.projection}: maps of a pyramid are projected anyway; give model.pyramid.channels instead"
        )
    pooled_strides = _extended(bottom_up.strides, pyramid.extra_stages)
    strides = _extended(pooled_strides, pyramid.pooled_levels)
    if len(model.anchors.sizes) != len(strides):
        raise ConfigError(
            f"model.anchors.sizes={list(model.anchors.sizes)}: the pyramid has maps of stride "
            f"{', '.join(map(str, strides))}; give one size for each of these {len(strides)}"
        )
    anchors = PyramidAnchors(sizes=model.anchors.sizes, ratios=model.anchors.ratios, strides=strides)
    pool_size = model.head.pool_size or 7
    hidden = model.head.hidden or 1024
    return {
        "backbone": bottom_up,
        "neck": PyramidNeck(
            bottom_up.channels, channels=channels, deeper=pyramid.extra_stages, pooled=pyramid.pooled_levels
        ),
        "head": two_layer_head(
            in_channels=channels,
            pool_size=pool_size,
            hidden=hidden,
            batch_norm=model.head.batch_norm,
            dropout=model.head.dropout,
        ),
        "predictor": BoxPredictor(in_channels=hidden, classes=len(classes)),
        "anchors": anchors,
        "pooled_strides": pooled_strides,
        "canonical": pyramid.canonical_size,
        **two_stage_settings(
            model,
            channels=channels,
            rpn_channels=channels,
            anchors_per_location=anchors.per_location,
            pool_size=pool_size,
            classes=classes,
        ),
    }


def _extended(strides: Sequence[int], more: int) -> tuple[int, ...]:
    return (*strides, *(strides[-1] * 2**step for step in range(1, more + 1)))
