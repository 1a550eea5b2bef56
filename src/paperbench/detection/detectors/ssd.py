"""SSD: classes and boxes straight from maps of several strides (Liu et al., ECCV 2016).

B images, A default boxes, G objects (padded), C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG

from paperbench.detection import boxes as box_ops
from paperbench.detection.anchors import DefaultBoxes
from paperbench.detection.backbones import make_backbone
from paperbench.detection.batches import Batch
from paperbench.detection.deformable import deform
from paperbench.detection.detectors.base import Detector
from paperbench.detection.feature_pyramid import BottomUp, Deeper, Maps
from paperbench.detection.losses import smooth_l1
from paperbench.detection.matching import POSITIVE, hardest_negatives, match
from paperbench.detection.model_config import SSDModel
from paperbench.detection.nms import DetectionBatch, postprocess
from paperbench.errors import ConfigError


class VGGMaps(nn.Module):
    """The paper's maps on VGG-16, as torchvision has them: conv4_3 rescaled, fc7 as an atrous convolution, conv8_2 and on."""

    SIDE = 300
    CHANNELS = (512, 1024, 512, 256, 256, 256)

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.maps = SSDFeatureExtractorVGG(layers, highres=False)

    def forward(self, x: Tensor) -> Maps:
        """(B, 3, 300, 300) -> maps of 38, 19, 10, 5, 3 and 1 cells a side."""
        return tuple(self.maps(x).values())


class Outputs(nn.Module):
    """A 3x3 convolution on each map for the classes, and one for the boxes (section 2.1)."""

    def __init__(self, *, channels: Sequence[int], boxes: Sequence[int], classes: int) -> None:
        super().__init__()
        self.classes = classes
        pairs = list(zip(channels, boxes, strict=True))
        self.scores = nn.ModuleList(nn.Conv2d(c, k * (classes + 1), 3, padding=1) for c, k in pairs)
        self.deltas = nn.ModuleList(nn.Conv2d(c, k * 4, 3, padding=1) for c, k in pairs)
        for layer in (*self.scores, *self.deltas):
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Maps) -> tuple[Tensor, Tensor]:
        """Maps -> logits (B, A, C + 1) and deltas (B, A, 4) in the order of `DefaultBoxes`, float32."""
        return self._flat(self.scores, maps, self.classes + 1), self._flat(self.deltas, maps, 4)

    def _flat(self, layers: nn.ModuleList, maps: Maps, width: int) -> Tensor:
        outputs = [layer(one).permute(0, 2, 3, 1) for layer, one in zip(layers, maps, strict=True)]
        return torch.cat([output.reshape(len(output), -1, width) for output in outputs], dim=1).float()


def ssd_loss(
    logits: Tensor, deltas: Tensor, targets: Tensor, labels: Tensor, *, negatives: float
) -> tuple[Tensor, Tensor]:
    """Equation 1: classification and localisation, both over the number of matched boxes of the batch: (scalar, scalar).

    logits (B, A, C + 1) with background first, deltas and targets (B, A, 4), labels (B, A) in 0..C. Nothing matched: 0.
    """
    positive = labels > 0
    nll = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    counted = positive | hardest_negatives(nll, positive, negatives)
    count = positive.sum().clamp(min=1)
    distance = smooth_l1(deltas - targets).sum(-1)
    return (nll * counted).sum() / count, (distance * positive).sum() / count


class SSD(Detector):
    """Two losses, `loss_classification` and `loss_box`; images lie in the corner of a square of `side` pixels."""

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        outputs: Outputs,
        boxes: DefaultBoxes,
        config: SSDModel,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(classes=classes, side=boxes.side)
        self.backbone = backbone
        self.neck = neck
        self.outputs = outputs
        self.boxes = boxes
        self.config = config
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, A, C + 1), deltas (B, A, 4) and the default boxes (A, 4) they belong to."""
        maps = self.neck(self.backbone(self.normalise(batch.images, batch.sizes)))
        logits, deltas = self.outputs(maps)
        return logits, deltas, self.boxes([(one.shape[-2], one.shape[-1]) for one in maps], logits.device)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch; nothing in them is drawn."""
        logits, deltas, boxes = self.predict(batch)
        with torch.no_grad():
            # Every object has a box of its own, and every other box that overlaps one enough has it (section 2.2).
            matches = match(
                box_ops.exact_iou(batch.boxes, boxes[None]),
                batch.labels > 0,
                positive=self.config.positive_iou,
                negative=self.config.positive_iou,
                bipartite=True,
            )
            positive = matches.labels == POSITIVE
            labels = torch.where(positive, batch.labels.gather(1, matches.matched), 0)
            own = batch.boxes.gather(1, matches.matched[..., None].expand(-1, -1, 4))
            targets = box_ops.encode(boxes, torch.where(positive[..., None], own, boxes), self.config.target_std)
        classification, box = ssd_loss(logits, deltas, targets, labels, negatives=self.config.negatives_per_positive)
        return {"loss_classification": classification, "loss_box": self.config.loss_weight * box}

    @torch.no_grad()
    def detect(self, batch: Batch) -> tuple[DetectionBatch, None]:
        """Detections in pixels of the resized images; there are no proposals."""
        logits, deltas, boxes = self.predict(batch)
        found = postprocess(
            logits,
            deltas[:, :, None].expand(-1, -1, logits.shape[-1], -1),
            boxes.expand(len(batch), -1, -1),
            torch.ones_like(logits[..., 0], dtype=torch.bool),
            batch.sizes,
            self.config,
        )
        return found, None


def build_ssd(model: SSDModel, *, classes: Sequence[str], pretrained: bool = True) -> SSD:
    """SSD on as many maps as there are entries of `boxes.ratios`; those of VGG-16 are the paper's."""
    maps = len(model.boxes.ratios)
    if len(model.boxes.sizes) != maps + 1:
        raise ConfigError(
            f"model.boxes.sizes={list(model.boxes.sizes)}: {maps} maps (one for each entry of model.boxes.ratios) take "
            f"{maps + 1} sizes, the last for the second square of the coarsest map"
        )
    net, neck, channels = _paper_maps(model, maps, pretrained) or _maps(model, maps, pretrained)
    boxes = DefaultBoxes(side=model.side, sizes=model.boxes.sizes, ratios=model.boxes.ratios)
    return SSD(
        backbone=net,
        neck=neck,
        outputs=Outputs(channels=channels, boxes=boxes.per_location, classes=len(classes)),
        boxes=boxes,
        config=replace(model),
        classes=classes,
    )


def _paper_maps(model: SSDModel, maps: int, pretrained: bool) -> tuple[nn.Module, nn.Module, tuple[int, ...]] | None:
    """SSD300 on VGG-16, whose maps torchvision has; None for anything else. (Its variant for 512 pixels is not the paper's.)"""
    if model.backbone != "vgg16" or (model.side, maps) != (VGGMaps.SIDE, len(VGGMaps.CHANNELS)):
        return None
    if model.deformable:
        raise ConfigError("model.deformable: the paper's maps of VGG-16 are taken as they are; give model.deformable=0")
    backbone = make_backbone(model, pretrained=pretrained)
    assert isinstance(backbone.features, nn.Sequential)
    # torchvision finds its places by the pooling layers, and drops the last.
    return VGGMaps(nn.Sequential(*backbone.features, nn.MaxPool2d(2))), nn.Identity(), VGGMaps.CHANNELS


def _maps(model: SSDModel, maps: int, pretrained: bool) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    """The maps of any backbone from `finest` on, with further stages below until there are enough."""
    bottom_up = BottomUp(
        make_backbone(model, pretrained=pretrained), finest=model.finest_stride, key="model.finest_stride"
    )
    deform(list(bottom_up.stages), model.deformable)
    deeper = maps - len(bottom_up.channels)
    if deeper < 0:
        raise ConfigError(
            f"model.boxes.ratios: {maps} entries for the {len(bottom_up.channels)} maps that {model.backbone} has from "
            f"model.finest_stride={model.finest_stride} on; give one for each, or a coarser model.finest_stride"
        )
    channels = (*bottom_up.channels, *[model.extra_channels] * deeper)
    return bottom_up, Deeper(bottom_up.channels[-1], channels=model.extra_channels, count=deeper), channels
