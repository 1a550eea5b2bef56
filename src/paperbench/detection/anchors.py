"""Reference boxes that are laid over the image: the anchors of Faster R-CNN (section 3.1.1) and FPN, the default boxes of SSD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Convention = Literal["continuous", "torchvision", "py-faster-rcnn"]


def generate_anchors(
    sizes: Sequence[float], ratios: Sequence[float], *, stride: int = 16, convention: Convention = "continuous"
) -> Tensor:
    """Return the anchors of the location at the origin: (K, 4) xyxy, ratios (height over width) outermost, sizes innermost.

    `continuous` keeps the area of `size**2` exactly and centres on the middle of the first stride x stride cell.
    `torchvision` rounds to whole pixels (half to even) and centres on the cell's corner. `py-faster-rcnn` is the reference
    implementation: inclusive corners (+1 widths) on a base box of one stride, ratios rounded first, so `size` must be a multiple of
    `stride`; its comment prints MATLAB's 1-based numbers, its function returns each value minus one, as this one does.
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
            "base", generate_anchors(sizes, ratios, stride=stride, convention=convention), persistent=False
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


class PyramidAnchors(nn.Module):
    """One size of anchors a level, in every ratio: the level decides the scale (section 4.1)."""

    def __init__(self, *, sizes: Sequence[float], ratios: Sequence[float], strides: Sequence[int]) -> None:
        super().__init__()
        if len(sizes) != len(strides):
            raise ValueError(f"{len(sizes)} sizes for {len(strides)} levels")
        self.grids = nn.ModuleList(
            AnchorGrid(sizes=(size,), ratios=ratios, stride=stride) for size, stride in zip(sizes, strides, strict=True)
        )
        self.strides = tuple(strides)
        self.stride = max(strides)
        self.per_location = len(ratios)

    def forward(self, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Height and width of each level's map -> (h * w * K, 4) xyxy of each level."""
        return [grid(*shape) for grid, shape in zip(self.grids, shapes, strict=True)]


def shapes_of_map(size: float, following: float, ratios: Sequence[float]) -> Tensor:
    """Width and height in pixels of the boxes at each place of one map, (K, 2), K = 2 + 2 x ratios.

    A square of `size`, one of the geometric mean of `size` and the `following` map's, then for every ratio a box of the area of
    the first, wide and tall.
    """
    middle = math.sqrt(size * following)
    shapes = [(size, size), (middle, middle)]
    for ratio in ratios:
        wide, narrow = size * math.sqrt(ratio), size / math.sqrt(ratio)
        shapes += [(wide, narrow), (narrow, wide)]
    return torch.tensor(shapes, device="cpu")


class DefaultBoxes(nn.Module):
    """The default boxes of an image of side x side pixels: centred in the cells of each map.

    sizes: one more than maps; ratios: of each map. The flat order is map, row, column, shape.
    """

    def __init__(self, *, side: int, sizes: Sequence[float], ratios: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.side = side
        self.shapes = [
            shapes_of_map(size, following, own)
            for size, following, own in zip(sizes[:-1], sizes[1:], ratios, strict=True)
        ]
        self._made: dict[tuple[tuple[tuple[int, int], ...], str], Tensor] = {}

    @property
    def per_location(self) -> tuple[int, ...]:
        """K of each map."""
        return tuple(len(shapes) for shapes in self.shapes)

    def forward(self, maps: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """Height and width of each map -> (A, 4) xyxy in pixels, cut off at the border of the image."""
        key = (tuple(maps), str(device))
        if key not in self._made:
            boxes = torch.cat([self._of_map(*size, shapes) for size, shapes in zip(maps, self.shapes, strict=True)])
            self._made[key] = boxes.clamp(0, self.side).to(device)
        return self._made[key]

    def _of_map(self, height: int, width: int, shapes: Tensor) -> Tensor:
        y = (torch.arange(height) + 0.5) * (self.side / height)
        x = (torch.arange(width) + 0.5) * (self.side / width)
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        centres = torch.stack([columns, rows], dim=-1).view(-1, 1, 2)
        return torch.cat([centres - shapes / 2, centres + shapes / 2], dim=-1).view(-1, 4)
