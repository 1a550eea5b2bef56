"""Remarks on files of detections whose numbers would mislead: boxes in another unit or form, images that nothing was said of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_FAR: Final = 1.1
"""Far side of a box, in sides of its image, beyond which it is no detection that a net did not clip."""


def remarks_on_boxes(
    corners: NDArray[np.floating[Any]], far_sides: NDArray[np.floating[Any]] | None = None
) -> list[str]:
    """Return what is doubtful about boxes (N, 4) xyxy in pixels; far_sides: (N, 2) width and height of each box's image."""
    if not len(corners):
        return ["there is no detection to be scored"]
    if corners.max() <= 1:
        return ["no box reaches beyond the first pixel: boxes count pixels, and are no fractions of the image"]
    if far_sides is None:
        return []
    beyond = int((corners[:, 2:] > _FAR * far_sides).any(1).sum())
    return [
        f"{beyond:,} of {len(corners):,} boxes reach far outside of their image: are they all x, y, width, height?"
    ] * (beyond > 0)


def remarks_on_images(wanted: Sequence[int], found: Sequence[int]) -> list[str]:
    """Return that images with objects have no detection; `wanted` and `found` are the images of each object and detection."""
    images = set(wanted)
    silent = len(images - set(found))
    return [f"{silent:,} of {len(images):,} images with objects have no detection"] if silent and found else []
