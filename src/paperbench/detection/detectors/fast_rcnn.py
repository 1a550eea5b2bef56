"""Fast R-CNN (Girshick, ICCV 2015), and the base of SPP-net and R-CNN, which pool their regions in other ways.

B images, P proposals, R sampled regions, C classes, F channels of the features, D features of a region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from paperbench.detection.backbones import Backbone, make_backbone, projection
from paperbench.detection.batches import Batch
from paperbench.detection.deformable import deform
from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.linear import LinearBoxes, LinearScores
from paperbench.detection.losses import fast_rcnn_loss
from paperbench.detection.model_config import HeadConfig
from paperbench.detection.nms import DetectionBatch, class_scores, finite_or_nan, postprocess_scores
from paperbench.detection.rcnn_config import Boxes, FastRCNNModel, RCNNModel, SPPNetModel, check_model
from paperbench.detection.roi_head import BoxPredictor, over_valid, sample_regions, two_layer_head
from paperbench.detection.roi_pooling import pool_regions
from paperbench.detection.rpn import Proposals

Layer = Literal["pool5", "fc6", "fc7"]
Classifier = Literal["softmax", "svm"]
BoxSource = Literal["predictor", "ridge", "none"]

BOX_SOURCES: dict[Boxes, BoxSource] = {
    "multi-task": "predictor",
    "stage-wise": "predictor",
    "ridge": "ridge",
    "none": "none",
}
"""The part of the net that moves the boxes at test, by `model.boxes`."""

SVM_THRESHOLD = 0.25
"""Least score of a detection by SVMs, as a logistic function of the margin: margins from -1.1, as in R-CNN's code."""


class FastRCNN(Detector):
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
        config: FastRCNNModel | SPPNetModel | RCNNModel,
        head_config: HeadConfig,
        svm: LinearScores | None = None,
        ridge: LinearBoxes | None = None,
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
        self.head_config = head_config
        """With the number of cells in `pool_size`, never 0."""
        self.svm = svm
        self.ridge = ridge
        self.layer: Layer = config.features
        self.classifier: Classifier = config.classifier
        self.box_source: BoxSource = BOX_SOURCES[config.boxes]
        self.learns: tuple[str, ...] = ("classification", "box")
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    # --- parts --------------------------------------------------------------------------------------------------------

    def maps(self, batch: Batch) -> Tensor:
        """Return the map that regions are pooled from: features (B, F, H / stride, W / stride)."""
        return self.neck(self.backbone(self.normalise(batch.images, batch.sizes)))

    def pool(self, maps: Tensor, boxes: Tensor, valid: Tensor | None = None) -> Tensor:
        """Pooled regions of `maps`: boxes (B, R, 4) -> (B * R, F, size, size).

        valid: (B, R) bool, False for boxes that only fill the batch; in training they count in no statistics over it.
        """
        config = self.head_config
        return pool_regions(maps, boxes, kind=config.pool, size=config.pool_size, scale=1 / self.stride)

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
        regions = sample_regions(batch.proposals, batch.boxes, batch.labels, self.head_config, generator=generator)
        pooled = self.pool(self.maps(batch), regions.boxes, regions.valid)
        logits, deltas = self.predictor(over_valid(self.head, pooled, regions.valid))
        classification, box = fast_rcnn_loss(
            logits,
            deltas,
            regions.targets.flatten(0, 1),
            regions.labels.flatten(),
            regions.valid.flatten(),
            sigma=self.head_config.sigma,
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
        scores = class_scores(logits)
        if self.classifier == "svm":
            assert self.svm is not None
            features = hidden if self.layer == "fc7" else self.features(pooled, self.layer)
            scores = finite_or_nan(self.svm(features)).sigmoid()
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
            self.classify_regions(maps[image : image + 1], batch.proposals.boxes[image : image + 1, :count])
            for image, count in enumerate(counts)
        ]
        scores, deltas = (
            nn.utils.rnn.pad_sequence(list(parts), batch_first=True) for parts in zip(*judged, strict=True)
        )
        return self.finish(batch, scores, deltas), batch.proposals

    def classify_regions(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, C) and box changes (R, C + 1, 4) of the regions (1, R, 4) of one image."""
        return self.judge(self.pool(maps, boxes))

    def finish(self, batch: Batch, scores: Tensor, deltas: Tensor) -> DetectionBatch:
        """From scores (B, P, C) and box changes (B, P, C + 1, 4) to detections; P may be less than the padded number."""
        assert batch.proposals is not None
        config = self.head_config
        if self.box_source == "ridge":
            config = replace(config, target_std=(1.0, 1.0, 1.0, 1.0))
        if self.classifier == "svm":
            config = replace(config, score_threshold=SVM_THRESHOLD)
        found = scores.shape[1]
        return postprocess_scores(
            scores,
            deltas,
            batch.proposals.boxes[:, :found],
            batch.proposals.valid[:, :found],
            batch.sizes,
            config,
        )


# --- from the configuration -------------------------------------------------------------------------------------------


def build_fast_rcnn(
    model: FastRCNNModel, *, classes: Sequence[str], pretrained: bool = True, svm: bool | None = None
) -> FastRCNN:
    """Return Fast R-CNN; arguments as of `build.build`."""
    return FastRCNN(**build_parts(model, classes=classes, pretrained=pretrained, svm=svm))


def build_parts(
    model: FastRCNNModel | SPPNetModel | RCNNModel, *, classes: Sequence[str], pretrained: bool, svm: bool | None
) -> dict[str, Any]:
    """Return the arguments of `FastRCNN`. Raise `ConfigError` for settings that do not go together."""
    check_model(model)
    backbone = make_backbone(model, pretrained=pretrained)
    deform([backbone.features], model.deformable)
    neck, channels = projection(backbone, model.projection), model.projection or backbone.channels
    pool_size = model.head.pool_size or backbone.pool_size
    cells = sum(level**2 for level in model.pyramid) if isinstance(model, SPPNetModel) else pool_size**2
    pooled = channels * cells
    head, hidden = _build_head(model, backbone, pooled=pooled, pool_size=pool_size)
    parts: dict[str, Any] = {
        "backbone": backbone.features,
        "neck": neck,
        "head": head,
        "predictor": BoxPredictor(in_channels=hidden, classes=len(classes)),
        "stride": backbone.stride,
        "channels": channels,
        "config": model,
        "head_config": replace(model.head, pool_size=pool_size),
        "classes": classes,
    }
    if model.classifier == "svm" if svm is None else svm:
        width = {"pool5": pooled, "fc6": _first_width(head, hidden), "fc7": hidden}[model.features]
        parts["svm"] = LinearScores(features=width, classes=len(classes))
    if model.boxes == "ridge":
        parts["ridge"] = LinearBoxes(features=pooled, classes=len(classes))
    return parts


def _build_head(
    model: FastRCNNModel | SPPNetModel | RCNNModel, backbone: Backbone, *, pooled: int, pool_size: int
) -> tuple[nn.Sequential, int]:
    """Return the head on pooled regions and the width of its output: the backbone's own, or two new layers."""
    own = backbone.head is not None and not model.head.hidden
    if own and (isinstance(model, SPPNetModel) or pool_size != backbone.pool_size) and model.backbone != "resnet50":
        # Another number of inputs: fc6 begins anew, fc7 keeps its weights.
        layers = list(cast(nn.Sequential, backbone.head))
        place = next(place for place, part in enumerate(layers) if isinstance(part, nn.Linear))
        layers[place] = nn.Linear(pooled, cast(nn.Linear, layers[place]).out_features)
        head, hidden = nn.Sequential(*layers), backbone.head_channels
    elif own:
        head, hidden = cast(nn.Sequential, backbone.head), backbone.head_channels
    else:
        hidden = model.head.hidden or 1024
        head = two_layer_head(
            in_channels=pooled, pool_size=1, hidden=hidden, batch_norm=model.head.batch_norm, dropout=model.head.dropout
        )
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = model.head.dropout
    return head, hidden


def _first_width(head: nn.Sequential, otherwise: int) -> int:
    return next((part.out_features for part in head if isinstance(part, nn.Linear)), otherwise)
