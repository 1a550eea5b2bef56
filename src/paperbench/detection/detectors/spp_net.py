"""SPP-net: fixed convolutions, regions pooled with a pyramid of grids (He et al., TPAMI 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paperbench.detection.batches import Batch
from paperbench.detection.detectors.fast_rcnn import FastRCNN, build_parts
from paperbench.detection.model_config import HeadConfig
from paperbench.detection.rcnn_config import SPPNetModel
from paperbench.detection.roi_head import over_valid, sample_regions
from paperbench.detection.roi_pooling import pyramid_pool, warp
from paperbench.engine.seeding import on_host


class SPPNet(FastRCNN):
    """SPP-net (He et al., TPAMI 2015): convolutions stay as they are, regions are pooled with a pyramid of grids."""

    def __init__(self, *, pyramid: Sequence[int], **settings: object) -> None:
        super().__init__(**settings)  # pyright: ignore[reportArgumentType]
        self.pyramid = tuple(pyramid)
        self.backbone.requires_grad_(False)
        self.neck.requires_grad_(False)

    def train(self, mode: bool = True) -> SPPNet:
        """Training or test mode; the convolutions are in test mode either way, their batch statistics too."""
        super().train(mode)
        self.backbone.eval()
        self.neck.eval()
        return self

    def maps(self, batch: Batch) -> Tensor:
        """As of `FastRCNN`, without a gradient."""
        with torch.no_grad():
            return super().maps(batch)

    def pool(self, maps: Tensor, boxes: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B * R, F * cells of all levels)."""
        return pyramid_pool(maps, boxes, levels=self.pyramid, scale=1 / self.stride)


class WarpedRegionClassifier(nn.Module):
    """Classifies warped regions of several sizes by the convolutions of a detector, the mean over the map, and one layer."""

    def __init__(self, model: FastRCNN, *, crops: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.neck = model.backbone, model.neck
        self.scores = nn.Linear(model.channels, len(model.class_names) + 1)
        self.crops = tuple(crops)
        self._config = HeadConfig(batch_size_per_image=model.head_config.batch_size_per_image, positive_fraction=0.5)
        self._normalise = model.normalise

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The classification loss; `generator` decides which regions are drawn, and the size they are warped to."""
        assert batch.proposals is not None
        regions = sample_regions(batch.proposals, batch.boxes, batch.labels, self._config, generator=generator)
        drawn = torch.randint(len(self.crops), (), generator=on_host(generator))
        images = self._normalise(batch.images, batch.sizes)
        warped = warp(images, regions.boxes, size=self.crops[int(drawn)], context=0)
        warped = warped.contiguous(memory_format=torch.channels_last)
        maps = over_valid(nn.Sequential(self.backbone, self.neck), warped, regions.valid)
        losses = nn.functional.cross_entropy(
            self.scores(maps.mean((2, 3))).float(), regions.labels.flatten(), reduction="none"
        )
        valid = regions.valid.flatten()
        return {"loss_classification": (losses * valid).sum() / valid.sum().clamp(min=1)}


def build_spp_net(
    model: SPPNetModel, *, classes: Sequence[str], pretrained: bool = True, svm: bool | None = None
) -> SPPNet:
    """Return SPP-net; arguments as of `build.build`."""
    return SPPNet(pyramid=model.pyramid, **build_parts(model, classes=classes, pretrained=pretrained, svm=svm))
