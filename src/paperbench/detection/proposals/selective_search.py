"""Selective search and sliding windows: boxes from pixels alone, the same ones each time."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paperbench.errors import EnvironmentError_

_STRATEGIES = {
    "single": "switchToSingleStrategy",
    "fast": "switchToSelectiveSearchFast",
    "quality": "switchToSelectiveSearchQuality",
}


def selective_search(
    pixels: NDArray[np.uint8], *, mode: str = "fast", base_k: int = 150, width: int = 500, min_side: float = 1.0
) -> NDArray[np.float32]:
    """Boxes (P, 4) xyxy in pixels of `pixels` (H, W, 3) RGB, best first, none twice.

    Images wider than `width` are searched at that width; 0 leaves them as they are. OpenCV ranks boxes by a number that it
    draws from the C library's generator, as the paper does: the generator is set first, so one image has one answer.
    Raises `EnvironmentError_` without OpenCV's contributed modules.
    """
    cv2 = opencv()
    stored_height, stored_width = pixels.shape[:2]
    image = np.ascontiguousarray(pixels[..., ::-1])
    if width and stored_width > width:
        height = max(1, round(stored_height * width / stored_width))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    getattr(search, _STRATEGIES[mode])(base_k)
    _seed_c_library()
    found = np.asarray(search.process(), np.float32).reshape(-1, 4)
    factors = np.array([stored_width / image.shape[1], stored_height / image.shape[0]] * 2, np.float32)
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1) * factors
    return tidy(corners, stored_height, stored_width, min_side=min_side)


def opencv():
    """The module `cv2` with selective search, limited to one thread: several images are searched at once instead."""
    try:
        import cv2

        cv2.setNumThreads(1)
        _ = cv2.ximgproc.segmentation
    except (ImportError, AttributeError) as error:
        raise EnvironmentError_(
            f"selective search needs OpenCV's contributed modules ({error}): pip install opencv-contrib-python-headless, in "
            "place of any other opencv package; or give proposals.method=sliding-windows"
        ) from error
    return cv2


def _seed_c_library() -> None:
    library = ctypes.CDLL(None) if sys.platform != "win32" else ctypes.CDLL("ucrtbase")
    library.srand(0)


def sliding_windows(
    height: int,
    width: int,
    *,
    sizes: Sequence[float],
    ratios: Sequence[float],
    step: float,
    min_side: float = 1.0,
) -> NDArray[np.float32]:
    """Windows (P, 4) xyxy on regular grids over an image, those of all shapes mixed in an order that depends on its size alone.

    sizes: square root of the area as a share of the short side; ratios: height over width; step: distance of neighbours as a
    share of their sides. Windows stay inside: the last of a row is moved to the border.
    """
    grids = [np.zeros((0, 4), np.float32)]
    for size in sizes:
        for ratio in ratios:
            tall = min(float(height), size * min(height, width) * ratio**0.5)
            wide = min(float(width), size * min(height, width) / ratio**0.5)
            top, left = _places(height, tall, step), _places(width, wide, step)
            y, x = (part.ravel() for part in np.meshgrid(top, left, indexing="ij"))
            grids.append(np.stack([x, y, x + wide, y + tall], axis=1).astype(np.float32))
    windows = np.concatenate(grids)
    windows = windows[np.random.default_rng([height, width]).permutation(len(windows))]
    return tidy(windows, height, width, min_side=min_side)


def _places(length: int, side: float, step: float) -> NDArray[np.float64]:
    count = 1 + int(np.ceil((length - side) / (step * side)))
    return np.linspace(0, length - side, count)


def tidy(boxes: NDArray[np.float32], height: int, width: int, *, min_side: float) -> NDArray[np.float32]:
    """Boxes clipped to their image, without those that are too small or there already, in the same order."""
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= min_side).all(axis=1)]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)]
