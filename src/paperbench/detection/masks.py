"""Masks of objects: in the frame of their box for nets, in pixels of the image for scores and pictures.

N objects or detections, M cells of a mask on a side, H, W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as runs
from torchvision.ops import roi_align

FRAME = 56
"""Cells on a side of a ground-truth mask in the frame of its box: twice those of the paper's masks."""


def in_frames(masks: NDArray[np.bool_], boxes: NDArray[np.float32], size: int = FRAME) -> NDArray[np.uint8]:
    """(N, H, W) and their boxes (N, 4) -> (N, size, size), the share of an object in each cell of its box, 255 for all of it."""
    if not len(masks):
        return np.zeros((0, size, size), np.uint8)
    boxes_of = [torch.from_numpy(box[None].astype(np.float32)) for box in boxes]
    planes = torch.from_numpy(masks.astype(np.float32))[:, None]
    return (255 * roi_align(planes, boxes_of, size, aligned=True)[:, 0]).round().to(torch.uint8).numpy()


def _axis_weights(low: float, high: float, cells: int, first: int, last: int) -> NDArray[np.float32]:
    """Weights of M cells between `low` and `high` at the centres of pixels first..last - 1, by linear interpolation; the border's
    value holds beyond the outermost centres: (last - first, M)."""
    at = ((np.arange(first, last) + 0.5 - low) * (cells / max(high - low, 1e-6)) - 0.5).clip(0, cells - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))).astype(np.float32)


def in_image(
    mask: NDArray[np.uint8], box: NDArray[np.floating], height: int, width: int, threshold: float = 0.5
) -> NDArray[np.bool_]:
    """A mask (M, M) in the frame of `box` (4,) -> (H, W): pixels within the box whose value is at least `threshold` of 255."""
    x1, y1, x2, y2 = box.tolist()
    # Pixels whose centre lies in the box: no pixel belongs to two boxes side by side.
    left, top = max(0, int(np.ceil(x1 - 0.5))), max(0, int(np.ceil(y1 - 0.5)))
    right, bottom = min(width, int(np.ceil(x2 - 0.5))), min(height, int(np.ceil(y2 - 0.5)))
    seen = np.zeros((height, width), bool)
    if left < right and top < bottom:
        rows = _axis_weights(y1, y2, mask.shape[0], top, bottom)
        columns = _axis_weights(x1, x2, mask.shape[1], left, right)
        seen[top:bottom, left:right] = rows @ mask.astype(np.float32) @ columns.T >= 255 * threshold
    return seen


def as_runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """(H, W) -> COCO's compressed runs, `{"size": [H, W], "counts": str}`: ready for JSON and for pycocotools."""
    encoded: Any = runs.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
