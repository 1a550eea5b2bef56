"""Faster R-CNN: backbone, region proposal network and detection head in one net that shares its convolutions (section 3.2).

B images, A anchors, P proposals, R sampled regions, C classes, F channels of the features; `Batch` is in `batches.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.backbones import Backbone, make_backbone, projection
from paperbench.detection.batches import Batch
from paperbench.detection.deformable import deform
from paperbench.detection.detectors.base import Detector
from paperbench.detection.losses import fast_rcnn_loss, loss_of_each_region
from paperbench.detection.matching import sample_hardest
from paperbench.detection.model_config import (
    FasterRCNNModel,
    HeadConfig,
    RpnConfig,
)
from paperbench.detection.nms import DetectionBatch, postprocess
from paperbench.detection.roi_head import (
    BoxPredictor,
    Regions,
    every_region,
    over_valid,
    sample_regions,
    two_layer_head,
)
from paperbench.detection.roi_pooling import pool_regions
from paperbench.detection.rpn import Proposals, RPNHead, RPNLoss, objectness_score, propose
from paperbench.errors import ConfigError

Features = Any
"""Of a batch, (B, F, H / stride, W / stride); nets on a pyramid have a tuple of such maps."""


class FasterRCNN(Detector):
    """Trained on a batch it gives four losses. One net, approximate joint training: the proposals are constants to the gradient.

    Nets that came after replace parts of it: `extract`, `score_anchors`, `classify`, `region_losses`.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module | None = None,
        head: nn.Module,
        predictor: BoxPredictor,
        rpn: RPNHead,
        anchors: AnchorGrid,
        rpn_config: RpnConfig,
        head_config: HeadConfig,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(classes=classes, stride=anchors.stride)
        self.backbone = backbone
        self.neck = neck if neck is not None else nn.Identity()
        self.rpn = rpn
        self.head = head
        self.predictor = predictor
        self.anchors = anchors
        self.rpn_loss = RPNLoss(rpn_config)
        self.rpn_config = rpn_config
        self.head_config = head_config
        """With the number of cells in `pool_size`, never 0."""
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    # --- parts --------------------------------------------------------------------------------------------------------

    def extract(self, batch: Batch) -> Features:
        """Images to features."""
        return self.neck(self.backbone(self.normalise(batch.images, batch.sizes)))

    def score_anchors(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """The region proposal network: logits (B, A, 1 or 2), deltas (B, A, 4), and the anchors (A, 4) they belong to."""
        logits, deltas = self.rpn(features)
        return logits, deltas, self.anchors(*features.shape[-2:])

    def regions_of_interest(self, batch: Batch, outputs: tuple[Tensor, Tensor], anchors: Tensor) -> Proposals:
        """Proposals from the region proposal network's outputs, as many as the mode (training or test) asks for."""
        logits, deltas = outputs
        return propose(
            objectness_score(logits.detach()),
            deltas.detach(),
            anchors,
            batch.sizes,
            batch.scales,
            self.rpn_config,
            training=self.training,
        )

    def classify(self, features: Features, boxes: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features and boxes (B, R, 4) -> logits (B * R, C + 1) and deltas (B * R, C + 1, 4).

        valid: (B, R) bool, False for boxes that only fill the batch; in training they count in no statistics over it.
        """
        head = self.head_config
        pooled = pool_regions(features, boxes, kind=head.pool, size=head.pool_size, scale=1 / self.anchors.stride)
        return self.predictor(over_valid(self.head, pooled, valid))

    # --- training -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch, scalars whose sum is minimised; `generator` decides which anchors and regions are sampled."""
        features = self.extract(batch)
        logits, deltas, anchors = self.score_anchors(features)
        losses = self.proposal_losses(batch, (logits, deltas, anchors), generator)
        proposals = self.regions_of_interest(batch, (logits, deltas), anchors)
        regions = self.choose_regions(batch, features, proposals, generator)
        return losses | self.region_losses(batch, features, regions)

    def proposal_losses(
        self, batch: Batch, outputs: tuple[Tensor, Tensor, Tensor], generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """The losses of the region proposal network, by name; `outputs` of `score_anchors`."""
        logits, deltas, anchors = outputs
        objectness, box = self.rpn_loss(
            logits,
            deltas,
            anchors,
            sizes=batch.sizes,
            gt_boxes=batch.boxes,
            gt_labels=batch.labels,
            stride=self.anchors.strides,
            generator=generator,
        )
        return {"loss_rpn_objectness": objectness, "loss_rpn_box": box}

    def region_losses(self, batch: Batch, features: Features, regions: Regions) -> dict[str, Tensor]:
        """The losses of what is computed for each region, by name."""
        class_logits, box_deltas = self.classify(features, regions.boxes, regions.valid)
        classification, box = fast_rcnn_loss(
            class_logits,
            box_deltas,
            regions.targets.flatten(0, 1),
            regions.labels.flatten(),
            regions.valid.flatten(),
            sigma=self.head_config.sigma,
        )
        return {"loss_classification": classification, "loss_box": box}

    def choose_regions(
        self, batch: Batch, features: Features, proposals: Proposals, generator: torch.Generator | None
    ) -> Regions:
        """The minibatch of regions that the head is trained on: drawn at random, or the hardest."""
        if self.head_config.ohem:
            return self.hard_regions(batch, features, proposals)
        return self.sample_regions(batch, proposals, generator)

    @torch.no_grad()
    def hard_regions(self, batch: Batch, features: Features, proposals: Proposals) -> Regions:
        """The proposals with the largest losses of the net as it is; they alone are then trained on (OHEM, section 4.2).

        This pass only looks: it leaves the running means of batch statistics alone and drops nothing out.
        """
        config = self.head_config
        regions = every_region(proposals, batch.boxes, batch.labels, config)
        training = self.training
        self.eval()
        logits, deltas = self.classify(features, regions.boxes)
        self.train(training)
        # Weights that autocast has cast here, without a gradient, must not be taken from its cache where one is needed.
        torch.clear_autocast_cache()
        valid = regions.valid.flatten()
        classification, box = loss_of_each_region(
            logits, deltas, regions.targets.flatten(0, 1), regions.labels.flatten(), valid, sigma=self.head_config.sigma
        )
        losses = (classification + box).view_as(regions.labels)
        drawn = sample_hardest(
            regions.boxes, losses, regions.valid, count=config.batch_size_per_image, nms_iou=config.ohem_nms_iou
        )
        corners = drawn.chosen[..., None].expand(-1, -1, 4)
        return Regions(
            regions.boxes.gather(1, corners),
            regions.labels.gather(1, drawn.chosen),
            regions.targets.gather(1, corners),
            drawn.valid,
        )

    def sample_regions(self, batch: Batch, proposals: Proposals, generator: torch.Generator | None) -> Regions:
        """The minibatch of regions that the head is trained on."""
        return sample_regions(proposals, batch.boxes, batch.labels, self.head_config, generator=generator)

    # --- test ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def propose(self, batch: Batch) -> Proposals:
        """Proposals alone, in pixels of the resized images."""
        return self._features_and_proposals(batch)[1]

    def _features_and_proposals(self, batch: Batch) -> tuple[Features, Proposals]:
        features = self.extract(batch)
        logits, deltas, anchors = self.score_anchors(features)
        return features, self.regions_of_interest(batch, (logits, deltas), anchors)

    @torch.no_grad()
    def detect(self, batch: Batch) -> tuple[DetectionBatch, Proposals]:
        """Detections, and the proposals they came from, in pixels of the resized images."""
        return self.detect_boxes(batch)[:2]

    def detect_boxes(self, batch: Batch) -> tuple[DetectionBatch, Proposals, Features]:
        """Return the result of `detect`, and the features that it was computed from."""
        features, proposals = self._features_and_proposals(batch)
        logits, deltas = self.classify(features, proposals.boxes)
        images = len(proposals.boxes)
        found = postprocess(
            logits.view(images, -1, logits.shape[-1]),
            deltas.view(images, -1, *deltas.shape[1:]),
            proposals.boxes,
            proposals.valid,
            batch.sizes,
            self.head_config,
        )
        return found, proposals, features


# --- from the configuration -------------------------------------------------------------------------------------------


def build_faster_rcnn(model: FasterRCNNModel, *, classes: Sequence[str], pretrained: bool = True) -> FasterRCNN:
    """Return Faster R-CNN with shared convolutions; arguments as of `build.build`."""
    parts, _, _ = build_parts(model, classes=classes, pretrained=pretrained)
    return FasterRCNN(**parts)


def build_parts(
    model: FasterRCNNModel, *, classes: Sequence[str], pretrained: bool
) -> tuple[dict[str, Any], Backbone, Backbone]:
    """Return the arguments of `FasterRCNN`, the backbone of the detector, and that of the proposals (the same one, if shared)."""
    backbone = make_backbone(model, pretrained=pretrained)
    deform([backbone.features], model.deformable)
    neck = projection(backbone, model.projection)
    head, hidden, pool_size = _build_head(model, backbone)
    anchors = AnchorGrid(sizes=model.anchors.sizes, ratios=model.anchors.ratios, stride=backbone.stride)
    predictor = BoxPredictor(in_channels=hidden, classes=len(classes))
    proposing = _proposal_backbone(model, backbone, pretrained=pretrained)
    parts = {
        "backbone": backbone.features,
        "neck": neck,
        "head": head,
        "predictor": predictor,
        "anchors": anchors,
        **two_stage_settings(
            model,
            channels=model.projection or proposing.channels,
            rpn_channels=proposing.rpn_channels,
            anchors_per_location=anchors.per_location,
            pool_size=pool_size,
            classes=classes,
        ),
    }
    return parts, backbone, proposing


def _build_head(model: FasterRCNNModel, backbone: Backbone) -> tuple[nn.Module, int, int]:
    """Return the layers on pooled regions, the width of their output, and the cells of a pooled region on a side."""
    own_head = backbone.head is not None and not model.head.hidden
    if own_head and model.projection:
        raise ConfigError(
            f"model.projection={model.projection}: {model.backbone}'s own head needs its own {backbone.channels} channels. "
            "Give model.projection=0, or a width for a new head (model.head.hidden=256)."
        )
    pool_size = model.head.pool_size or backbone.pool_size
    if not own_head:
        hidden = model.head.hidden or 1024
        head = two_layer_head(
            in_channels=model.projection or backbone.channels,
            pool_size=pool_size,
            hidden=hidden,
            batch_norm=model.head.batch_norm,
            dropout=model.head.dropout,
        )
        return head, hidden, pool_size
    if pool_size != backbone.pool_size and model.backbone != "resnet50":
        raise ConfigError(
            f"model.head.pool_size={pool_size}: {model.backbone}'s own head takes {backbone.pool_size}. "
            f"Give model.head.pool_size={backbone.pool_size}, or a width for a new head (model.head.hidden=256)."
        )
    assert backbone.head is not None
    for module in backbone.head.modules():
        if isinstance(module, nn.Dropout):
            module.p = model.head.dropout
    return backbone.head, backbone.head_channels, pool_size


def _proposal_backbone(model: FasterRCNNModel, backbone: Backbone, *, pretrained: bool) -> Backbone:
    """Return the backbone that proposals are made from: the detector's, or another where the configuration names one."""
    if model.proposals_backbone is None:
        return backbone
    own = replace(
        model, backbone=model.proposals_backbone, weights=model.proposals_weights, frozen_layers=None, deformable=0
    )
    other = make_backbone(own, pretrained=pretrained)
    if other.stride != backbone.stride:
        raise ConfigError(
            f"model.proposals_backbone={other.name} has a cell every {other.stride} pixels, model.backbone={backbone.name} every "
            f"{backbone.stride}; give two of the same stride"
        )
    return other


def two_stage_settings(
    model: FasterRCNNModel,
    *,
    channels: int,
    rpn_channels: int,
    anchors_per_location: int,
    pool_size: int,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Arguments of `FasterRCNN` beside its backbone, neck, head, predictor and anchors.

    channels: of the features; rpn_channels: of the region proposal network, unless the configuration says otherwise.
    """
    rpn, head = model.rpn, model.head
    return {
        "rpn": RPNHead(
            in_channels=channels,
            channels=rpn.channels or rpn_channels,
            anchors=anchors_per_location,
            softmax=rpn.objectness == "softmax",
        ),
        "rpn_config": rpn,
        "head_config": replace(head, pool_size=pool_size),
        "classes": classes,
    }


def require_two_shared_stages(model: FasterRCNNModel) -> None:
    """Raise `ConfigError` for settings of Faster R-CNN that its descendants do not have."""
    if not model.shared or model.stages == 1:
        wrong = "model.stages=1" if model.stages == 1 else "model.shared=false"
        raise ConfigError(f"{wrong} is for model.name=faster-rcnn; leave it out with model.name={model.name}")
