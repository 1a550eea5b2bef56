"""Default boxes: the fixed boxes that SSD's outputs are relative to (Liu et al., SSD, section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
