"""Detection in one stage (section 4.1, table 10): classes and boxes of a dense grid of windows, nothing proposed.

The windows are the anchors: every size and shape at every location of the features, pooled from them and taken through the
detector's head. The paper compares this simulated OverFeat with its two stages, on features of one scale and of five.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.detection import boxes as box_ops
from paperbench.detection.batches import Batch
from paperbench.detection.detectors.faster_rcnn import FasterRCNN, build_parts
from paperbench.detection.model_config import FasterRCNNModel
from paperbench.detection.nms import DetectionBatch, postprocess
from paperbench.detection.rpn import Proposals
from paperbench.engine.constants import constant
from paperbench.errors import ConfigError

CHUNK = 256
"""Regions that go through a head at a time on a CPU: their features stay in its caches."""


def classify_in_parts(model: FasterRCNN, features: Any, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B, R, C + 1) and offsets (B, R, C + 1, 4) of many boxes (B, R, 4), a part of them at a time."""
    images, count, _ = boxes.shape
    size = max(1, CHUNK // images) if boxes.device.type == "cpu" else 8 * CHUNK
    parts = [model.classify(features, part) for part in boxes.split(min(size, max(1, count)), dim=1)]
    scores = [logits.view(images, -1, logits.shape[-1]) for logits, _ in parts]
    offsets = [deltas.view(images, -1, *deltas.shape[1:]) for _, deltas in parts]
    return torch.cat(scores, dim=1), torch.cat(offsets, dim=1)


class OneStage(FasterRCNN):
    """A detector on all windows of an image; `rpn` has no weights.

    With a `pyramid` the features are computed at several sizes of the image at test, and a window is pooled where it comes
    closest to `pyramid_side` squared pixels (SPP-net, section 4.1, whose choice is 224).
    """

    pyramid: tuple[float, ...] = (1.0,)
    pyramid_side: float = 224.0

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch; `generator` decides which windows are sampled."""
        features = self.extract(batch)
        windows = self.windows(batch, *features.shape[-2:])
        return self.region_losses(batch, features, self.choose_regions(batch, features, windows, generator))

    def windows(self, batch: Batch, height: int, width: int) -> Proposals:
        """The windows of a map of that size, cut off at the border of their image; too small ones are not valid."""
        boxes = box_ops.clip(self.anchors(height, width).expand(len(batch), -1, -1), batch.sizes)
        least = (self.rpn_config.min_size * batch.scales).view(-1, 1, 1)
        valid = (boxes[..., 2:] - boxes[..., :2] >= least.clamp(min=1)).all(-1)
        return Proposals(boxes, valid.float(), valid)

    @torch.no_grad()
    def detect(  # pyright: ignore[reportIncompatibleMethodOverride]  a detector may have no proposals, its base here has
        self, batch: Batch
    ) -> tuple[DetectionBatch, None]:
        """Detections in pixels of the resized images; there are no proposals."""
        rows, columns = (side // self.anchors.stride for side in batch.images.shape[-2:])
        windows = self.windows(batch, rows, columns)
        logits, deltas = self._on_pyramid(batch, windows.boxes, self.anchors(rows, columns))
        found = postprocess(
            logits,
            deltas,
            windows.boxes,
            windows.valid,
            batch.sizes,
            self.head_config,
        )
        return found, None

    def _on_pyramid(self, batch: Batch, boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        if self.pyramid == (1.0,):
            return classify_in_parts(self, self.extract(batch), boxes)
        images = self.normalise(batch.images, batch.sizes)
        level = nearest_level(anchors, self.pyramid, self.pyramid_side)
        parts: list[tuple[Tensor, Tensor]] = []
        order: list[Tensor] = []
        for place, scale in enumerate(self.pyramid):
            index = torch.nonzero(level == place).flatten()
            if len(index):
                features = self.neck(self.backbone(self._resized(images, scale)))
                parts.append(classify_in_parts(self, features, boxes[:, index] * scale))
                order.append(index)
        back = torch.cat(order).argsort()
        logits, deltas = (torch.cat(part, dim=1)[:, back] for part in zip(*parts, strict=True))
        return logits, deltas

    def _resized(self, images: Tensor, scale: float) -> Tensor:
        """(B, 3, H, W) at another size, padded to whole cells of the features."""
        resized = F.interpolate(images, scale_factor=scale, mode="bilinear", antialias=scale < 1)
        height, width = resized.shape[-2:]
        return F.pad(resized, (0, -width % self.multiple, 0, -height % self.multiple))


def nearest_level(boxes: Tensor, scales: tuple[float, ...], side: float) -> Tensor:
    """Return the index of the scale that brings a box closest to `side` squared pixels: (A, 4) -> (A,) int64; ties: the first."""
    areas = box_ops.area(boxes)[:, None] * constant(scales, boxes).square()
    return (areas - side**2).abs().argmin(dim=1)


def build_one_stage(model: FasterRCNNModel, *, classes: Sequence[str], pretrained: bool = True) -> OneStage:
    """Return a detector without proposals (`model.stages=1`); arguments as of `build.build`."""
    if not model.shared:
        raise ConfigError(
            "model.shared=false: with model.stages=1 nothing is proposed and nothing to be shared; leave it out"
        )
    parts, _, _ = build_parts(model, classes=classes, pretrained=pretrained)
    return OneStage(**{**parts, "rpn": nn.Identity()})
