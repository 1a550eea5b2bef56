"""Detectors on given proposals: Fast R-CNN, and the two it came from, as one class whose regions are pooled in three ways.

B images, P proposals, R sampled regions, C classes, F channels of the features, D features of a region.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from paperbench.detection.batches import Batch
from paperbench.detection.boxes import BoxStd
from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.linear import LinearBoxes, LinearScores
from paperbench.detection.losses import fast_rcnn_loss
from paperbench.detection.nms import DetectionBatch, select
from paperbench.detection.roi_head import BoxPredictor, sample_regions
from paperbench.detection.roi_pooling import Pooling, pool_regions
from paperbench.detection.rpn import Proposals

Layer = Literal["pool5", "fc6", "fc7"]
Classifier = Literal["softmax", "svm"]
BoxSource = Literal["predictor", "ridge", "none"]

SVM_THRESHOLD = 0.25
"""Least score of a detection by SVMs, as a logistic function of the margin: margins from -1.1, as in R-CNN's code."""


class RegionNet(Detector):
    """Fast R-CNN (Girshick, ICCV 2015): a map of features for the image, a pooled grid for each region, a head, two outputs.

    What is learned is named by `learns`; what scores and boxes come from at test by `classifier` and `box_source`.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module | None,
        head: nn.Sequential,
        predictor: BoxPredictor,
        stride: int,
        channels: int,
        pool: Pooling = "roi-pool",
        pool_size: int = 7,
        rois: int = 64,
        positive_fraction: float = 0.25,
        positive_iou: float = 0.5,
        negative_iou_low: float = 0.1,
        target_std: BoxStd = (0.1, 0.1, 0.2, 0.2),
        sigma: float = 1.0,
        score_threshold: float = 0.05,
        nms_iou: float = 0.3,
        detections_per_image: int = 100,
        svm: LinearScores | None = None,
        ridge: LinearBoxes | None = None,
        layer: Layer = "fc7",
        classifier: Classifier = "softmax",
        box_source: BoxSource = "predictor",
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(classes=classes, stride=stride)
        self.backbone = backbone
        self.neck = neck if neck is not None else nn.Identity()
        self.head = head
        self.predictor = predictor
        self.stride = stride
        self.channels = channels
        """F: of what `maps` gives."""
        self.pool_kind: Pooling = pool
        self.pool_size = pool_size
        self.rois = rois
        self.positive_fraction = positive_fraction
        self.positive_iou = positive_iou
        self.negative_iou_low = negative_iou_low
        self.target_std = target_std
        self.sigma = sigma
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.detections_per_image = detections_per_image
        self.svm = svm
        self.ridge = ridge
        self.layer: Layer = layer
        self.classifier: Classifier = classifier
        self.box_source: BoxSource = box_source
        self.learns: tuple[str, ...] = ("classification", "box")
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    # --- parts --------------------------------------------------------------------------------------------------------

    def maps(self, batch: Batch) -> Tensor:
        """What regions are cut out of: features (B, F, H / stride, W / stride)."""
        return self.neck(self.backbone(self.normalise(batch.images, batch.sizes)))

    def pool(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """Pooled regions of `maps`: boxes (B, R, 4) -> (B * R, F, size, size)."""
        return pool_regions(maps, boxes, kind=self.pool_kind, size=self.pool_size, scale=1 / self.stride)

    def features(self, pooled: Tensor, layer: Layer) -> Tensor:
        """Features of pooled regions after a layer: (N, D). `fc6` and `fc7` are after their non-linearity."""
        if layer == "pool5":
            return pooled.flatten(1)
        return self.head_parts()[0](pooled) if layer == "fc6" else self.head(pooled)

    def head_parts(self) -> tuple[nn.Sequential, nn.Sequential]:
        """The head up to its first non-linearity, and the rest."""
        first = next((place for place, part in enumerate(self.head) if isinstance(part, nn.ReLU)), len(self.head) - 1)
        return self.head[: first + 1], self.head[first + 1 :]

    # --- training -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses that the net learns from, scalars whose sum is minimised; `generator` decides which regions are sampled."""
        assert batch.proposals is not None
        regions = sample_regions(
            batch.proposals,
            batch.boxes,
            batch.labels,
            rois=self.rois,
            positive_fraction=self.positive_fraction,
            positive_iou=self.positive_iou,
            negative_iou_low=self.negative_iou_low,
            target_std=self.target_std,
            generator=generator,
        )
        logits, deltas = self.predictor(self.head(self.pool(self.maps(batch), regions.boxes)))
        classification, box = fast_rcnn_loss(
            logits,
            deltas,
            regions.targets.flatten(0, 1),
            regions.labels.flatten(),
            regions.valid.flatten(),
            sigma=self.sigma,
        )
        losses = {"classification": classification, "box": box}
        return {f"loss_{name}": losses[name] for name in self.learns}

    # --- test ---------------------------------------------------------------------------------------------------------

    def judge(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled regions (N, ...) -> scores (N, C) in 0..1 and box changes (N, C + 1, 4)."""
        return self.outputs(pooled, self.head(pooled))

    def outputs(self, pooled: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The same, with what the head makes of them, (N, D), computed already."""
        logits, deltas = self.predictor(hidden)
        scores = logits.softmax(-1)[..., 1:]
        if self.classifier == "svm":
            assert self.svm is not None
            features = hidden if self.layer == "fc7" else self.features(pooled, self.layer)
            scores = self.svm(features).sigmoid()
        if self.box_source == "ridge":
            assert self.ridge is not None
            deltas = self.ridge(pooled)
        return scores, torch.zeros_like(deltas) if self.box_source == "none" else deltas

    @torch.no_grad()
    def detect(self, batch: Batch) -> tuple[DetectionBatch, Proposals | None]:
        """Detections, and the proposals they came from, in pixels of the resized images."""
        assert batch.proposals is not None
        maps = self.maps(batch)
        counts = batch.proposals.valid.sum(1).tolist()
        # Image by image: proposals differ much in number, and padding would be paid for in the head.
        judged = [
            self.judge_regions(maps[image : image + 1], batch.proposals.boxes[image : image + 1, :count])
            for image, count in enumerate(counts)
        ]
        scores, deltas = (
            nn.utils.rnn.pad_sequence(list(parts), batch_first=True) for parts in zip(*judged, strict=True)
        )
        return self.finish(batch, scores, deltas), batch.proposals

    def judge_regions(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, C) and box changes (R, C + 1, 4) of the regions (1, R, 4) of one image."""
        return self.judge(self.pool(maps, boxes))

    def finish(self, batch: Batch, scores: Tensor, deltas: Tensor) -> DetectionBatch:
        """From scores (B, P, C) and box changes (B, P, C + 1, 4) to detections; P may be less than the padded number."""
        assert batch.proposals is not None
        fitted = self.box_source == "ridge"
        found = scores.shape[1]
        return select(
            scores,
            deltas,
            batch.proposals.boxes[:, :found],
            batch.proposals.valid[:, :found],
            batch.sizes,
            target_std=(1.0, 1.0, 1.0, 1.0) if fitted else self.target_std,
            score_threshold=SVM_THRESHOLD if self.classifier == "svm" else self.score_threshold,
            nms_iou=self.nms_iou,
            limit=self.detections_per_image,
        )
