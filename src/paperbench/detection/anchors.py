"""Anchors, section 3.1.1: boxes of several sizes and aspect ratios at every location of the feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Convention = Literal["continuous", "torchvision", "py-faster-rcnn"]


def base_anchors(
    sizes: Sequence[float], ratios: Sequence[float], *, stride: int = 16, convention: Convention = "continuous"
) -> Tensor:
    """Anchors of the location at the origin: (K, 4) xyxy, ratios (height over width) outermost, sizes innermost.

    `continuous` keeps the area of `size**2` exactly and centres on the middle of the first stride x stride cell.
    `torchvision` rounds to whole pixels (half to even) and centres on the cell's corner. `py-faster-rcnn` is the code lineage:
    inclusive corners (+1 widths) on a base box of one stride, ratios rounded first, so `size` must be a multiple of `stride`;
    its comment prints MATLAB's 1-based numbers, its function returns each value minus one, as this one does.
    """
    if convention == "py-faster-rcnn":
        return _legacy(sizes, ratios, stride)
    size = torch.tensor(sizes, dtype=torch.float32)
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    width = (size[None] / root[:, None]).flatten()
    height = (size[None] * root[:, None]).flatten()
    anchors = torch.stack([-width, -height, width, height], dim=1) / 2
    return anchors.round() if convention == "torchvision" else anchors + stride / 2


def _legacy(sizes: Sequence[float], ratios: Sequence[float], stride: int) -> Tensor:
    ratio = torch.tensor(ratios, dtype=torch.float64)
    base_width = (stride * stride / ratio).sqrt().round()
    base_height = (base_width * ratio).round()
    scale = torch.tensor(sizes, dtype=torch.float64) / stride
    width = (base_width[:, None] * scale).flatten()
    height = (base_height[:, None] * scale).flatten()
    centre = (stride - 1) / 2
    corners = [centre - (width - 1) / 2, centre - (height - 1) / 2, centre + (width - 1) / 2, centre + (height - 1) / 2]
    return torch.stack(corners, dim=1).float()


class AnchorGrid(nn.Module):
    """Every anchor of a feature map, computed once per map size.

    Anchors of location (row, column) are the base anchors moved by (column, row) x stride; the flat order is row, column,
    anchor, which is how `RPNHead` flattens its outputs. The stride is given, not derived from image // feature, because an
    unpadded 600 x 1000 image with a 38 x 63 map would give 15 instead of 16.
    """

    base: Tensor

    def __init__(
        self, *, sizes: Sequence[float], ratios: Sequence[float], stride: int, convention: Convention = "continuous"
    ) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer(
            "base", base_anchors(sizes, ratios, stride=stride, convention=convention), persistent=False
        )
        self._grids: dict[tuple[int, int, str], Tensor] = {}

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the maps that there are anchors on: one."""
        return (self.stride,)

    @property
    def per_location(self) -> int:
        """K: anchors at one location."""
        return len(self.base)

    def forward(self, height: int, width: int) -> Tensor:
        """(height * width * K, 4) xyxy in pixels of the (padded) image, on the device of the module."""
        key = (height, width, str(self.base.device))
        grid = self._grids.get(key)
        if grid is None:
            columns = torch.arange(width, device=self.base.device, dtype=torch.float32) * self.stride
            rows = torch.arange(height, device=self.base.device, dtype=torch.float32) * self.stride
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            shift = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
            grid = (shift + self.base).view(-1, 4)
            if len(self._grids) >= 64:  # images of many sizes: keep the memory bounded
                self._grids.clear()
            self._grids[key] = grid
        return grid
