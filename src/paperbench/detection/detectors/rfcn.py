"""R-FCN: Faster R-CNN whose regions have no layers of their own but vote in position-sensitive maps (Dai et al., NIPS 2016).

k: cells of a region on a side, C: classes, F: channels of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import ps_roi_align, ps_roi_pool

from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.backbones import Backbone, make_backbone
from paperbench.detection.deformable import deform
from paperbench.detection.detectors.faster_rcnn import FasterRCNN, require_two_shared_stages, two_stage_settings
from paperbench.detection.model_config import HeadConfig, RFCNModel
from paperbench.detection.roi_pooling import as_rois
from paperbench.errors import ConfigError


class PositionSensitiveMaps(nn.Module):
    """Two 1x1 convolutions on the whole image: k^2 (C + 1) maps of scores, 4 k^2 of boxes, one set for all classes (section 2)."""

    def __init__(self, *, in_channels: int, classes: int, cells: int) -> None:
        super().__init__()
        self.classes = classes
        self.scores = nn.Conv2d(in_channels, cells * cells * (classes + 1), 1)
        self.deltas = nn.Conv2d(in_channels, cells * cells * 4, 1)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.scores, self.deltas):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, h, w) -> (B, k^2 (C + 1), h, w) and (B, 4 k^2, h, w), float32: what is pooled is never rounded."""
        # torchvision's operator reads channel by channel.
        return self.scores(features).float().contiguous(), self.deltas(features).float().contiguous()


def surroundings(channels: int) -> nn.Sequential:
    """A 3x3 convolution dilated by 2: each place sees what lies around it."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=2, dilation=2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def dilated(stage: nn.Module) -> nn.Module:
    """A stage of torchvision's ResNet that halves its input, in place: it keeps the size, and its later layers look twice as far.

    With the same weights each place of its output is what it was (Long et al., the "hole algorithm").
    """
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            if module.stride == (2, 2):
                module.stride = (1, 1)
            elif module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)
    return stage


class RFCN(FasterRCNN):
    """Trained and used as Faster R-CNN; the part for each region is pooling and a mean, so regions cost next to nothing.

    Proposals are made from the backbone's map, scores from `trunk` of it, (B, F, h, w) -> (B, channels, h, w).
    """

    def __init__(
        self, *, trunk: nn.Module, channels: int, head_config: HeadConfig, classes: Any, **settings: Any
    ) -> None:
        maps = PositionSensitiveMaps(in_channels=channels, classes=len(classes), cells=head_config.pool_size)
        super().__init__(
            neck=None,
            head=trunk,
            predictor=maps,  # pyright: ignore[reportArgumentType]
            head_config=head_config,
            classes=classes,
            **settings,
        )

    def classify(self, features: Tensor, boxes: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, F, h, w) and boxes (B, R, 4) -> logits (B * R, C + 1) and deltas (B * R, C + 1, 4), the same for every class.

        Each cell of a region reads maps of its own; the mean over cells is the vote (equation 1 and figure 3). The layers are those
        of the whole image, so that regions which only fill the batch change nothing: `valid` is not asked.
        """
        rois = as_rois(boxes.detach().float())
        features = self.head(features)
        with torch.autocast(features.device.type, enabled=False):
            scores, deltas = (self._pooled(maps, rois).mean((2, 3)) for maps in self.predictor(features.float()))
        return scores, deltas[:, None].expand(-1, scores.shape[1], -1)

    def _pooled(self, maps: Tensor, rois: Tensor) -> Tensor:
        scale, cells = 1 / self.anchors.stride, self.head_config.pool_size
        if self.head_config.pool == "roi-pool":
            # torchvision's operator never reads the last row and column of its maps: here these are not the image's.
            return ps_roi_pool(F.pad(maps, (0, 1, 0, 1)), rois, cells, scale)
        return ps_roi_align(maps, rois, cells, scale, sampling_ratio=2)


def build_rfcn(model: RFCNModel, *, classes: Sequence[str], pretrained: bool = True) -> RFCN:
    """R-FCN."""
    require_two_shared_stages(model)
    usual = HeadConfig()
    for key in ("hidden", "batch_norm", "dropout"):
        if getattr(model.head, key) != getattr(usual, key):
            raise ConfigError(
                f"model.head.{key}={getattr(model.head, key)}: regions of R-FCN have no layers of their own; leave it out"
            )
    backbone = make_backbone(model, pretrained=pretrained)
    trunk, channels = _before_the_maps(model, backbone)
    deform([backbone.features, trunk], model.deformable)
    anchors = AnchorGrid(sizes=model.anchors.sizes, ratios=model.anchors.ratios, stride=backbone.stride)
    return RFCN(
        backbone=backbone.features,
        trunk=trunk,
        channels=channels,
        anchors=anchors,
        **two_stage_settings(
            model,
            channels=backbone.channels,
            rpn_channels=backbone.rpn_channels,
            anchors_per_location=anchors.per_location,
            pool_size=model.head.pool_size or 7,
            classes=classes,
        ),
    )


def _before_the_maps(model: RFCNModel, backbone: Backbone) -> tuple[nn.Sequential, int]:
    """Return the layers between the backbone's map and R-FCN's score maps, and their channels."""
    channels = backbone.channels
    if backbone.name == "resnet50":
        if model.context:
            raise ConfigError(
                f"model.context={model.context}: resnet50 has a stage of its own there; give 0, or another backbone"
            )
        stage = backbone.stages[-1]
        layers, channels = [dilated(stage.module)], stage.channels
    else:
        layers = [surroundings(channels) for _ in range(model.context)]
    if model.projection:
        layers.append(nn.Sequential(nn.Conv2d(channels, model.projection, 1), nn.ReLU(inplace=True)))
        channels = model.projection
    return nn.Sequential(*layers), channels
