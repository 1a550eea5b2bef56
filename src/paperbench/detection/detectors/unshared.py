"""Faster R-CNN of two nets: one proposes, the other detects, and they share no convolution (the "unshared" rows of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

from torch import Tensor, nn

from paperbench.detection.backbones import projection
from paperbench.detection.batches import Batch
from paperbench.detection.detectors.faster_rcnn import FasterRCNN, build_parts
from paperbench.detection.model_config import FasterRCNNModel

REGIONS, PROPOSALS = "regions", "proposals"
"""Names of the two nets below `backbone` and `neck`."""


class TwoFeatures(NamedTuple):
    """Features (B, F, H / stride, W / stride) for the regions and for the proposals; None where they were not asked for."""

    regions: Tensor | None
    proposals: Tensor | None


def two_of(net: nn.Module, other: nn.Module | None = None) -> nn.ModuleDict:
    """`net` for the regions; for the proposals `other`, or a copy that starts from the same weights."""
    return nn.ModuleDict({REGIONS: net, PROPOSALS: deepcopy(net) if other is None else other})


class UnsharedFasterRCNN(FasterRCNN):
    """Faster R-CNN whose proposals come from a backbone of their own; `backbone` and `neck` are made by `two_of`."""

    backbone: nn.ModuleDict
    neck: nn.ModuleDict

    def extract(self, batch: Batch, *, regions: bool = True, proposals: bool = True) -> TwoFeatures:
        """Images to the features of both nets, or of the one that is asked for."""
        images = self.normalise(batch.images, batch.sizes)
        return TwoFeatures(
            self._features(images, REGIONS) if regions else None,
            self._features(images, PROPOSALS) if proposals else None,
        )

    def _features(self, images: Tensor, net: str) -> Tensor:
        return self.neck[net](self.backbone[net](images))

    def score_anchors(self, features: TwoFeatures) -> tuple[Tensor, Tensor, Tensor]:
        """As of `FasterRCNN`, on the features of the proposals' own net."""
        return super().score_anchors(features.proposals)

    def classify(self, features: TwoFeatures, boxes: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As of `FasterRCNN`, on the features of the detector's own net."""
        return super().classify(features.regions, boxes, valid)


def build_unshared(model: FasterRCNNModel, *, classes: Sequence[str], pretrained: bool = True) -> UnsharedFasterRCNN:
    """Return Faster R-CNN whose proposals have a backbone of their own (`model.shared=false`); arguments as of `build.build`."""
    parts, backbone, proposing = build_parts(model, classes=classes, pretrained=pretrained)
    other = None if proposing is backbone else proposing
    parts["backbone"] = two_of(parts["backbone"], other and other.features)
    other_neck = other and (projection(other, model.projection) or nn.Identity())
    parts["neck"] = two_of(parts["neck"] or nn.Identity(), other_neck)
    return UnsharedFasterRCNN(**parts)
