"""Segmentations of COCO's files: polygons, and runs as a list of numbers or in COCO's compressed text.

pycocotools draws whatever it is given: a coordinate that is no number or lies far away ends the process or takes all memory, and
runs that do not fill the image give other pixels at every call. So everything is looked at before it is drawn, and runs are drawn
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperbench.data.values import real, shown, whole

_FARTHEST = 2.0
"""Distance from the image, in its longer sides, within which a polygon may reach."""


def is_mask(segmentation: Any) -> bool:
    """False for what stands in place of a mask where there is none: null, and an empty list."""
    return segmentation is not None and segmentation != []


def examine(segmentation: Any, height: int, width: int) -> str:
    """Return why a segmentation cannot be drawn in an image of that size, or has no pixel; empty for a sound one."""
    try:
        parts = _parts(segmentation, height, width)
    except ValueError as error:
        return str(error)
    if isinstance(parts, list) and any(_has_pixels(polygon, height, width) for polygon in parts):
        return ""  # what is wider than a pixel has pixels, and drawing every mask of a large data set takes minutes
    return "" if _drawn(parts, height, width).any() else "it has no pixel"


def lies_elsewhere(segmentation: Any, box: Sequence[float]) -> bool:
    """Return True for sound polygons whose extent and the box, xyxy, overlap by less than a half. Runs are not looked at."""
    if not isinstance(segmentation, list):
        return False
    x = [value for polygon in segmentation for value in polygon[::2]]
    y = [value for polygon in segmentation for value in polygon[1::2]]
    both = 1.0
    for low, high, first, last in ((min(x), max(x), box[0], box[2]), (min(y), max(y), box[1], box[3])):
        # A pixel is added to each: boxes of whole pixels may be one off, and objects one thin.
        both *= max(0.0, min(high, last) - max(low, first) + 1)
    union = (max(x) - min(x) + 1) * (max(y) - min(y) + 1) + (box[2] - box[0] + 1) * (box[3] - box[1] + 1) - both
    return 2 * both < union


def draw(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask (H, W); one without pixels for an empty list. Raises ValueError for a segmentation that cannot be drawn."""
    if not is_mask(segmentation):
        return np.zeros((height, width), bool)
    return _drawn(_parts(segmentation, height, width), height, width)


def _drawn(parts: list[list[float]] | NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    if isinstance(parts, list):
        from pycocotools import mask

        runs: Any = mask  # its stubs are narrower than what it takes
        return runs.decode(runs.merge(runs.frPyObjects(parts, height, width))).astype(bool)
    inside = np.arange(len(parts)) % 2 == 1
    return np.repeat(inside, parts).reshape(width, height).T.copy()


def _parts(segmentation: Any, height: int, width: int) -> list[list[float]] | NDArray[np.int64]:
    """Polygons (2 P,) each, x and y in turn, or runs (R,), outside and inside in turn. Raises ValueError for anything else."""
    if isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys():
        return _runs(segmentation["counts"], segmentation["size"], height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"the segmentation is neither polygons nor runs, but {shown(segmentation)}")
    if not isinstance(segmentation[0], list):
        raise ValueError(
            "the segmentation is neither polygons nor runs: a polygon is a list within the list, [[x, y, …]]"
        )
    reach = _FARTHEST * max(height, width)
    for place, part in enumerate(segmentation):
        _check_polygon(part, place, reach)
    return segmentation


def _check_polygon(part: Any, place: int, reach: float) -> None:
    """Raise ValueError for what is no polygon. Plain Python: a large data set has a million polygons of some twenty points."""
    name = f"polygon {place} of the segmentation"
    if not isinstance(part, list):
        raise ValueError(f"the segmentation is neither polygons nor runs: {name} is {shown(part)}")
    if len(part) < 6 or len(part) % 2:
        count = f"{len(part)} numbers, not x and y of 3 points or more"
        raise ValueError(f"the segmentation is neither polygons nor runs: {name} has {count}")
    for value in part:
        if type(value) is float and -reach <= value <= 2 * reach:
            continue
        number = real(value)
        if number is None or not math.isfinite(number):
            raise ValueError(f"{name} has {shown(value)} among its coordinates, not a finite number")
        if not -reach <= number <= 2 * reach:
            raise ValueError(f"{name} has the coordinate {shown(value)}, far outside the image")


def _has_pixels(polygon: list[float], height: int, width: int) -> bool:
    """True for a polygon within the image that covers some pixels and is wider than one, on average over its length."""
    x, y = polygon[::2], polygon[1::2]
    if min(min(x), min(y)) < -1 or max(x) > width + 1 or max(y) > height + 1:
        return False
    twice, length = 0.0, 0.0
    last_x, last_y = x[-1], y[-1]
    for here_x, here_y in zip(x, y, strict=True):
        twice += last_x * here_y - here_x * last_y
        length += math.hypot(here_x - last_x, here_y - last_y)
        last_x, last_y = here_x, here_y
    return abs(twice) / 2 > max(4.0, length / 2)


def _runs(counts: Any, size: Any, height: int, width: int) -> NDArray[np.int64]:
    if not isinstance(size, list) or [whole(side) for side in size] != [height, width]:
        raise ValueError(f"the segmentation is of {shown(size)}, the image has [{height}, {width}]")
    if isinstance(counts, str):
        known: list[int | None] = list(_uncompressed(counts))
    elif isinstance(counts, list):
        known = [whole(value) for value in counts]
    else:
        raise ValueError(f"the runs are {shown(counts)}, neither a list of numbers nor text")
    lengths = [length for length in known if length is not None and 0 <= length <= height * width]
    if len(lengths) < len(known):
        raise ValueError("the runs are not all lengths of 0 or more within the image")
    if sum(lengths) != height * width:
        raise ValueError(
            f"the runs cover {sum(lengths)} pixels, and the image has {height} x {width} = {height * width}"
        )
    return np.array(lengths, np.int64)


def _uncompressed(text: str) -> list[int]:
    """Decode COCO's compressed counts: groups of 5 bits from the lowest on, a sixth bit while more follow, the sign in the last
    group; from the fourth number on the difference to the one before the last."""
    counts: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"the runs have the letter {letter!r}, which COCO's compressed text does not use")
        value |= (bits & 31) << shift
        shift += 5
        if shift > 60:
            raise ValueError("the runs have a number without end")
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value, shift = 0, 0
    if shift:
        raise ValueError("the runs end within a number")
    return counts
