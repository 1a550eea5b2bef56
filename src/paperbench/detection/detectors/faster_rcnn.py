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
from paperbench.detection.backbones import Backbone, make_backbone
from paperbench.detection.batches import Batch
from paperbench.detection.boxes import BoxStd
from paperbench.detection.deformable import deform
from paperbench.detection.detectors.base import Detector
from paperbench.detection.losses import fast_rcnn_loss, loss_of_each_region
from paperbench.detection.matching import hardest
from paperbench.detection.model_config import (
    FasterRCNNModel,
)
from paperbench.detection.nms import DetectionBatch, detections
from paperbench.detection.roi_head import BoxPredictor, Regions, every_region, sample_regions, two_layer_head
from paperbench.detection.roi_pooling import Pooling, pool_regions
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
        rpn_loss: RPNLoss,
        pre_nms_train: int = 12000,
        pre_nms_test: int = 6000,
        post_nms_train: int = 2000,
        post_nms_test: int = 300,
        rpn_nms_iou: float = 0.7,
        min_size: float = 16.0,
        rois: int = 128,
        positive_fraction: float = 0.25,
        positive_iou: float = 0.5,
        negative_iou_low: float = 0.0,
        pool: Pooling = "roi-pool",
        pool_size: int = 7,
        target_std: BoxStd = (0.1, 0.1, 0.2, 0.2),
        sigma: float = 1.0,
        score_threshold: float = 0.05,
        nms_iou: float = 0.3,
        detections_per_image: int = 100,
        mining: bool = False,
        mining_nms_iou: float = 0.7,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(classes=classes, stride=anchors.stride)
        self.backbone = backbone
        self.neck = neck if neck is not None else nn.Identity()
        self.rpn = rpn
        self.head = head
        self.predictor = predictor
        self.anchors = anchors
        self.rpn_loss = rpn_loss
        self.pre_nms_train = pre_nms_train
        self.pre_nms_test = pre_nms_test
        self.post_nms_train = post_nms_train
        self.post_nms_test = post_nms_test
        self.rpn_nms_iou = rpn_nms_iou
        self.min_size = min_size
        self.rois = rois
        self.positive_fraction = positive_fraction
        self.positive_iou = positive_iou
        self.negative_iou_low = negative_iou_low
        self.pool: Pooling = pool
        self.pool_size = pool_size
        self.target_std = target_std
        self.sigma = sigma
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.detections_per_image = detections_per_image
        self.mining = mining
        self.mining_nms_iou = mining_nms_iou
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
            pre_nms=self.pre_nms_train if self.training else self.pre_nms_test,
            post_nms=self.post_nms_train if self.training else self.post_nms_test,
            nms_iou=self.rpn_nms_iou,
            min_size=self.min_size * batch.scales,
        )

    def classify(self, features: Features, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Features and boxes (B, R, 4) -> logits (B * R, C + 1) and deltas (B * R, C + 1, 4)."""
        pooled = pool_regions(features, boxes, kind=self.pool, size=self.pool_size, scale=1 / self.anchors.stride)
        return self.predictor(self.head(pooled))

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
        class_logits, box_deltas = self.classify(features, regions.boxes)
        classification, box = fast_rcnn_loss(
            class_logits,
            box_deltas,
            regions.targets.flatten(0, 1),
            regions.labels.flatten(),
            regions.valid.flatten(),
            sigma=self.sigma,
        )
        return {"loss_classification": classification, "loss_box": box}

    def choose_regions(
        self, batch: Batch, features: Features, proposals: Proposals, generator: torch.Generator | None
    ) -> Regions:
        """The minibatch of regions that the head is trained on: drawn at random, or the hardest."""
        if self.mining:
            return self.hard_regions(batch, features, proposals)
        return self.sample_regions(batch, proposals, generator)

    @torch.no_grad()
    def hard_regions(self, batch: Batch, features: Features, proposals: Proposals) -> Regions:
        """The proposals with the largest losses of the net as it is; they alone are then trained on (OHEM, section 4.2).

        This pass only looks: it leaves the running means of batch statistics alone and drops nothing out.
        """
        regions = every_region(
            proposals, batch.boxes, batch.labels, positive_iou=self.positive_iou, target_std=self.target_std
        )
        training = self.training
        self.eval()
        logits, deltas = self.classify(features, regions.boxes)
        self.train(training)
        # Weights that autocast has cast here, without a gradient, must not be taken from its cache where one is needed.
        torch.clear_autocast_cache()
        valid = regions.valid.flatten()
        classification, box = loss_of_each_region(
            logits, deltas, regions.targets.flatten(0, 1), regions.labels.flatten(), valid, sigma=self.sigma
        )
        losses = (classification + box).view_as(regions.labels)
        drawn = hardest(regions.boxes, losses, regions.valid, count=self.rois, nms_iou=self.mining_nms_iou)
        corners = drawn.chosen[..., None].expand(-1, -1, 4)
        return Regions(
            regions.boxes.gather(1, corners),
            regions.labels.gather(1, drawn.chosen),
            regions.targets.gather(1, corners),
            drawn.valid,
        )

    def sample_regions(self, batch: Batch, proposals: Proposals, generator: torch.Generator | None) -> Regions:
        """The minibatch of regions that the head is trained on."""
        return sample_regions(
            proposals,
            batch.boxes,
            batch.labels,
            rois=self.rois,
            positive_fraction=self.positive_fraction,
            positive_iou=self.positive_iou,
            negative_iou_low=self.negative_iou_low,
            target_std=self.target_std,
            generator=generator,
        )

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
        """What `detect` gives, and the features it was found in."""
        features, proposals = self._features_and_proposals(batch)
        logits, deltas = self.classify(features, proposals.boxes)
        images = len(proposals.boxes)
        found = detections(
            logits.view(images, -1, logits.shape[-1]),
            deltas.view(images, -1, *deltas.shape[1:]),
            proposals.boxes,
            proposals.valid,
            batch.sizes,
            target_std=self.target_std,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            limit=self.detections_per_image,
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


def projection(backbone: Backbone, channels: int) -> nn.Module | None:
    """A 1x1 convolution from a backbone's features to so many channels; None for 0."""
    if not channels:
        return None
    return nn.Sequential(nn.Conv2d(backbone.channels, channels, 1), nn.ReLU(inplace=True))


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
        "rpn_loss": RPNLoss(
            positive_iou=rpn.positive_iou,
            negative_iou=rpn.negative_iou,
            sampled=rpn.sampled,
            positive_fraction=rpn.positive_fraction,
            ignore_cross_boundary=rpn.ignore_cross_boundary,
            normalisation=rpn.normalisation,
            weight=rpn.loss_weight,
            sigma=rpn.sigma,
        ),
        "pre_nms_train": rpn.pre_nms_train,
        "pre_nms_test": rpn.pre_nms_test,
        "post_nms_train": rpn.post_nms_train,
        "post_nms_test": rpn.post_nms_test,
        "rpn_nms_iou": rpn.nms_iou,
        "min_size": rpn.min_size,
        "rois": head.rois,
        "positive_fraction": head.positive_fraction,
        "positive_iou": head.positive_iou,
        "negative_iou_low": head.negative_iou_low,
        "pool": head.pool,
        "pool_size": pool_size,
        "target_std": head.target_std,
        "sigma": head.sigma,
        "score_threshold": head.score_threshold,
        "nms_iou": head.nms_iou,
        "detections_per_image": head.detections,
        "mining": head.mining,
        "mining_nms_iou": head.mining_nms_iou,
        "classes": classes,
    }


def require_two_shared_stages(model: FasterRCNNModel) -> None:
    """Raise `ConfigError` for settings of Faster R-CNN that its descendants do not have."""
    if not model.shared or model.stages == 1:
        wrong = "model.stages=1" if model.stages == 1 else "model.shared=false"
        raise ConfigError(f"{wrong} is for model.name=faster-rcnn; leave it out with model.name={model.name}")
