"""Feature maps of several strides from one backbone: what a pyramid and SSD are made on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from paperbench.detection.backbones import Backbone
from paperbench.errors import ConfigError

Maps = tuple[Tensor, ...]


class BottomUp(nn.Module):
    """The stages of a backbone one after the other; gives the maps from the stride `finest` on."""

    def __init__(self, backbone: Backbone, *, finest: int, key: str = "model.pyramid.finest_stride") -> None:
        super().__init__()
        if not any(stage.stride == finest for stage in backbone.stages):
            strides = ", ".join(str(stage.stride) for stage in backbone.stages)
            raise ConfigError(f"{key}={finest}: {backbone.name} has maps of stride {strides}; give one of them")
        self.stages = nn.ModuleList(stage.module for stage in backbone.stages)
        self.skipped = sum(stage.stride < finest for stage in backbone.stages)
        self.channels = tuple(stage.channels for stage in backbone.stages if stage.stride >= finest)
        self.strides = tuple(stage.stride for stage in backbone.stages if stage.stride >= finest)

    def forward(self, x: Tensor) -> Maps:
        """(B, 3, H, W) -> (B, channels[k], ~H / strides[k], ~W / strides[k]) for each k."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[self.skipped :])


class Deeper(nn.Module):
    """Further stages below those of a backbone: each a 3x3 convolution of stride 2 with batch normalisation."""

    def __init__(self, in_channels: int, *, channels: int, count: int) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * count]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(above, below, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(below),
                nn.ReLU(inplace=True),
            )
            for above, below in pairwise(widths)
        )

    def forward(self, maps: Maps) -> Maps:
        """The maps, and one more for each stage, of half the size of the one before."""
        for stage in self.stages:
            maps = (*maps, stage(maps[-1]))
        return maps


class PyramidNeck(nn.Module):
    """FPN, section 3: a top-down pathway with lateral connections, by torchvision; every map gets the same channels.

    `deeper` stages are added below the backbone's before, `pooled` maps by taking every second pixel of the coarsest after (P6).
    """

    def __init__(self, in_channels: Sequence[int], *, channels: int, deeper: int, pooled: int) -> None:
        super().__init__()
        self.deeper = Deeper(in_channels[-1], channels=channels, count=deeper)
        self.pyramid = FeaturePyramidNetwork([*in_channels, *[channels] * deeper], channels)
        self.pooled = pooled

    def forward(self, maps: Maps) -> Maps:
        """Finest first, as they come."""
        named = OrderedDict((str(level), level_map) for level, level_map in enumerate(self.deeper(maps)))
        merged = tuple(self.pyramid(named).values())
        for _ in range(self.pooled):
            merged = (*merged, F.max_pool2d(merged[-1], kernel_size=1, stride=2))
        return merged
