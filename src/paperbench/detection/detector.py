"""Faster R-CNN: backbone, region proposal network and detection head in one net that shares its convolutions (section 3.2).

B images, A anchors, P proposals, R sampled regions, C classes, F channels of the features; `Batch` is in `batches.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.backbones import IMAGENET_MEAN, IMAGENET_STD
from paperbench.detection.batches import Batch
from paperbench.detection.losses import fast_rcnn_loss
from paperbench.detection.postprocess import DetectionBatch, detections
from paperbench.detection.proposals import Proposals, propose
from paperbench.detection.roi_head import BoxPredictor, BoxStd, Regions, sample_regions
from paperbench.detection.roi_pooling import Pooling, pool_regions
from paperbench.detection.rpn import RPNHead, RPNLoss, objectness_score
from paperbench.errors import CheckpointError


class FasterRCNN(nn.Module):
    """Trained on a batch it gives the four losses; `detect` gives detections in pixels of the resized images.

    One net, approximate joint training: the proposals are constants to the gradient.
    """

    mean: Tensor
    std: Tensor

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
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
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
        self.class_names = tuple(classes)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255, persistent=False)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def train(self, mode: bool = True) -> FasterRCNN:
        """Training or test mode; frozen layers keep their batch statistics either way."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """The names of the classes travel with the weights, so that a checkpoint alone can name what it finds."""
        return {"classes": list(self.class_names)}

    def set_extra_state(self, state: Any) -> None:
        """Refuses weights of another label set: they would fit and mean something else."""
        names = tuple(state["classes"])
        if self.class_names and names != self.class_names:
            raise CheckpointError(
                f"the weights are for the classes {', '.join(names)}, the data have {', '.join(self.class_names)}; "
                "give the data set (and data.classes) that the model was trained on"
            )
        self.class_names = names

    # --- parts --------------------------------------------------------------------------------------------------------

    def normalise(self, images: Tensor, sizes: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float32 with ImageNet's mean and deviation taken out; padding becomes 0, the mean colour.

        The result is channels-last in memory, as the weights are: convolutions and pooling are faster that way on CPUs and GPUs,
        and the pooling of regions reads whole pixels.
        """
        height, width = images.shape[-2:]
        x = (images.contiguous(memory_format=torch.channels_last) - self.mean) / self.std
        rows = torch.arange(height, device=images.device) < sizes[:, :1]
        columns = torch.arange(width, device=images.device) < sizes[:, 1:]
        return x * (rows[:, None, :, None] & columns[:, None, None, :])

    def extract(self, batch: Batch) -> Tensor:
        """Images to features: (B, F, H / stride, W / stride)."""
        return self.neck(self.backbone(self.normalise(batch.images, batch.sizes)))

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

    def classify(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F, h, w) and boxes (B, R, 4) -> logits (B * R, C + 1) and deltas (B * R, C + 1, 4)."""
        pooled = pool_regions(features, boxes, kind=self.pool, size=self.pool_size, scale=1 / self.anchors.stride)
        return self.predictor(self.head(pooled))

    # --- training -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch, scalars whose sum is minimised; `generator` decides which anchors and regions are sampled."""
        features = self.extract(batch)
        anchors = self.anchors(*features.shape[-2:])
        logits, deltas = self.rpn(features)
        rpn_objectness, rpn_box = self.rpn_loss(
            logits,
            deltas,
            anchors,
            sizes=batch.sizes,
            gt_boxes=batch.boxes,
            gt_labels=batch.labels,
            stride=self.anchors.stride,
            generator=generator,
        )
        proposals = self.regions_of_interest(batch, (logits, deltas), anchors)
        regions = self.sample_regions(batch, proposals, generator)
        class_logits, box_deltas = self.classify(features, regions.boxes)
        classification, box = fast_rcnn_loss(
            class_logits,
            box_deltas,
            regions.targets.flatten(0, 1),
            regions.labels.flatten(),
            regions.valid.flatten(),
            sigma=self.sigma,
        )
        return {
            "loss_rpn_objectness": rpn_objectness,
            "loss_rpn_box": rpn_box,
            "loss_classification": classification,
            "loss_box": box,
        }

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

    def _features_and_proposals(self, batch: Batch) -> tuple[Tensor, Proposals]:
        features = self.extract(batch)
        anchors = self.anchors(*features.shape[-2:])
        return features, self.regions_of_interest(batch, self.rpn(features), anchors)

    @torch.no_grad()
    def detect(self, batch: Batch) -> tuple[DetectionBatch, Proposals]:
        """Detections, and the proposals they came from, in pixels of the resized images."""
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
        return found, proposals
