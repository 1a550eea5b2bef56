"""Generated scenes for detection: five classes that differ in outline alone, on textured backgrounds with clutter.

A scene is a pure function of `(data_seed, split, index)` and of the settings; nothing is stored or downloaded. Two random
streams make one: the first lays out the objects, so that ground truth costs no pixels; the second paints.

Boxes hold the whole outline of an object, also where another object covers it, clipped to the image; masks hold what is
seen of it. An object of which
less than `VISIBLE` would be seen finds another place or is left out of the scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet, Record, box_areas
from paperbench.data.textures import background, fill, stroke

CLASSES: Final = ("disc", "square", "triangle", "star", "ring")
SMALLEST: Final = 0.1
LARGEST: Final = 0.5
"""Longer side of an object's box, as a share of the scene's side; drawn log-uniformly."""
VISIBLE: Final = 0.3
_OUTSIDE: Final = 0.12  # share of a box that may lie beyond the border
_PLACES: Final = 6  # positions tried for an object that others would hide
_HOLE: Final = 0.55  # inner radius of a ring, as a share of the outer one

_SPLITS: Final = {"train": 0, "test": 1}
_LAYOUT, _PAINT = 0, 1

Array = NDArray[np.float32]


def _directions(count: int, first: float) -> Array:
    angles = first + 2 * math.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


_TIPS: Final = {
    "square": _directions(4, math.pi / 4),
    "triangle": _directions(3, math.pi / 2),
    "star": _directions(5, math.pi / 2),
}
# The sides of each outline as lines n.p = apothem. A pentagram is bounded by the five lines of its inner pentagon.
_NORMALS: Final = {
    "square": (_directions(4, 0.0), math.cos(math.pi / 4)),
    "triangle": (_directions(3, -math.pi / 2), 0.5),
    "star": (_directions(5, math.pi / 2), math.sin(math.pi / 10)),
}


@dataclass(frozen=True, eq=False)
class _Object:
    """`affine` (2, 2) maps the unit outline to pixels around `centre` (2,); `box` (4,) is its extent, clipped to the image."""

    label: int
    centre: Array
    affine: Array
    box: Array

    def window(self, side: int) -> tuple[int, int, int, int]:
        """Whole pixels that the anti-aliased outline can touch: x1, y1, x2, y2."""
        x1, y1 = np.maximum(np.floor(self.box[:2]).astype(int) - 1, 0).tolist()
        x2, y2 = np.minimum(np.ceil(self.box[2:]).astype(int) + 1, side).tolist()
        return x1, y1, x2, y2

    def coverage(self, side: int) -> Array:
        """Share of each pixel of the window that lies inside the outline, (h, w) in 0..1."""
        x1, y1, x2, y2 = self.window(side)
        x = np.arange(x1, x2, dtype=np.float32) + np.float32(0.5) - self.centre[0]
        y = np.arange(y1, y2, dtype=np.float32) + np.float32(0.5) - self.centre[1]
        inverse = np.linalg.inv(self.affine)
        name = CLASSES[self.label - 1]
        if name in _NORMALS:
            normals, apothem = _NORMALS[name]
            lines = normals @ inverse
            beyond = lines[:, 0, None, None] * x + (lines[:, 1, None] * y)[:, :, None]
            # Inside a convex outline no side is passed; inside a pentagram at most one is.
            distance = (np.partition(beyond, -2, axis=0)[-2] if name == "star" else beyond.max(axis=0)) - np.float32(
                apothem
            )
        else:
            u = inverse[0, 0] * x + (inverse[0, 1] * y)[:, None]
            v = inverse[1, 0] * x + (inverse[1, 1] * y)[:, None]
            radius = np.sqrt(u * u + v * v)
            distance = radius - 1 if name == "disc" else np.abs(radius - (1 + _HOLE) / 2) - (1 - _HOLE) / 2
        unit = math.sqrt(abs(float(np.linalg.det(self.affine))))
        return np.clip(0.5 - distance * np.float32(unit), 0, 1).astype(np.float32)


def _extent(name: str, affine: Array) -> tuple[Array, Array]:
    """Lower and upper corner of the outline around its centre."""
    if name in _TIPS:
        tips = _TIPS[name] @ affine.T
        return tips.min(axis=0), tips.max(axis=0)
    reach = np.sqrt((affine * affine).sum(axis=1))
    return -reach, reach


def _outline(rng: np.random.Generator, side: int) -> tuple[int, Array]:
    """Class, and rotation, stretch and size as one matrix."""
    label = int(rng.integers(len(CLASSES))) + 1
    turn, stretch, size = rng.random(3).tolist()
    turn, stretch = 2 * math.pi * turn, math.exp((stretch - 0.5) * 0.5)
    cos, sin = math.cos(turn), math.sin(turn)
    affine = np.array([[cos * stretch, -sin / stretch], [sin * stretch, cos / stretch]], np.float32)
    low, high = _extent(CLASSES[label - 1], affine)
    longest = max(6.0, side * SMALLEST * (LARGEST / SMALLEST) ** size)
    return label, affine * np.float32(longest / float((high - low).max()))


def _place(rng: np.random.Generator, label: int, affine: Array, side: int) -> _Object:
    low, high = _extent(CLASSES[label - 1], affine)
    extent = high - low
    corner = -_OUTSIDE * extent + rng.random(2).astype(np.float32) * (side - (1 - 2 * _OUTSIDE) * extent)
    box = np.clip(np.concatenate([corner, corner + extent]), 0, side).astype(np.float32)
    return _Object(label, (corner - low).astype(np.float32), affine, box)


def _overlaps(a: Array, b: Array) -> bool:
    return bool((a[:2] < b[2:]).all() and (b[:2] < a[2:]).all())


def _layout(rng: np.random.Generator, *, side: int, max_objects: int, empty: float) -> list[_Object]:
    """The objects of a scene, the foremost first."""
    chance = rng.random()
    wanted = int(rng.integers(1, max_objects + 1))
    if chance < empty:
        return []
    placed: list[_Object] = []
    covered = np.zeros((side, side), bool)
    for _ in range(wanted):
        label, affine = _outline(rng, side)
        for _ in range(_PLACES):
            candidate = _place(rng, label, affine, side)
            x1, y1, x2, y2 = candidate.window(side)
            inside = candidate.coverage(side) >= 0.5
            hidden = any(_overlaps(candidate.box, other.box) for other in placed)
            if hidden and (inside & ~covered[y1:y2, x1:x2]).sum() < VISIBLE * inside.sum():
                continue
            covered[y1:y2, x1:x2] |= inside
            placed.append(candidate)
            break
    return placed


def _visible(objects: list[_Object], side: int) -> NDArray[np.bool_]:
    """(N, side, side): the pixels of which most is an object's, and not of one that lies before it."""
    seen = np.zeros((len(objects), side, side), bool)
    free = np.ones((side, side), bool)
    for mask, item in zip(seen, objects, strict=True):
        x1, y1, x2, y2 = item.window(side)
        inside = item.coverage(side) >= 0.5
        mask[y1:y2, x1:x2] = inside & free[y1:y2, x1:x2]
        free[y1:y2, x1:x2] &= ~inside
    return seen


def _paint(rng: np.random.Generator, objects: list[_Object], side: int) -> NDArray[np.uint8]:
    image, colours = background(rng, side)
    for _ in range(int(rng.integers(2, 6))):
        stroke(rng, image)
    for item in reversed(objects):
        x1, y1, x2, y2 = item.window(side)
        below = image[y1:y2, x1:x2]
        alpha = item.coverage(side)[:, :, None]
        below += alpha * (fill(rng, y2 - y1, x2 - x1, unlike=colours) - below)
    for _ in range(int(rng.integers(0, 3))):
        stroke(rng, image)
    # One byte of noise for each value: sensor noise, and the only step that draws as many numbers as there are pixels.
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    image += noise.astype(np.float32) * np.float32(rng.uniform(0.02, 0.12))
    return np.clip(image, 0, 255).astype(np.uint8)


def read(
    *, split: str, images: int, size: int = 160, data_seed: int = 0, max_objects: int = 6, empty: float = 0.02
) -> DetectionSet:
    """Scenes 0..images-1 of a split as a data set; `decode(i)` paints scene i.

    split: `train` or `test`, which share no scene; size: side in pixels, at least 32; max_objects: the number of objects
    is uniform in 1..max_objects; empty: share of scenes without any.
    Raises ValueError for a split or size outside these.
    """
    if split not in _SPLITS:
        raise ValueError(f"split is {split!r}; generated scenes have {' and '.join(_SPLITS)}")
    if size < 32:
        raise ValueError(f"size is {size}; a scene needs at least 32 pixels a side")

    def stream(index: int, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([data_seed, _SPLITS[split], index, purpose]))

    def objects(index: int) -> list[_Object]:
        return _layout(stream(index, _LAYOUT), side=size, max_objects=max_objects, empty=empty)

    def record(index: int) -> Record:
        items = objects(index)
        boxes = np.array([item.box for item in items], np.float32).reshape(-1, 4)
        return Record(
            image_id=index,
            source=f"generated scene {index} of {split}, data_seed {data_seed}",
            height=size,
            width=size,
            boxes=boxes,
            labels=np.array([item.label for item in items], np.int64),
            difficult=np.zeros(len(items), bool),
            crowd=np.zeros(len(items), bool),
            area=box_areas(boxes),
        )

    def masks(index: int) -> NDArray[np.bool_]:
        return _visible(objects(index), size)

    def decode(index: int) -> NDArray[np.uint8]:
        return _paint(stream(index, _PAINT), objects(index), size)

    return DetectionSet(
        name="shapes",
        split=split,
        classes=CLASSES,
        records=[record(index) for index in range(images)],
        decode=decode,
        masks=masks,
        dropped={},
    )
