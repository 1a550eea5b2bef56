"""Generated images whose class two small parts show: a warm digit below 5 and a cool digit from 5, on a textured ground.

They replace birds, which differ by a beak here and a wing there, where there is no archive. Twenty-five classes, one for each
pair. One part lies in the left half and one in the right, in either order, neither far above or below the middle; both are so
small that they are hard to read once the whole image is shrunk to what a net sees. The digits of the test images come from the test
split. Every image is a function of (data_seed, split, index).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from paperbench.data import digits
from paperbench.data.image_sets import ImageSet

CLASSES = tuple(f"{warm}{cool}" for warm in range(5) for cool in range(5, 10))
_PART = 0.2
"""Side of a part, as a share of the image's."""
_OFF_MIDDLE = 0.22
"""How far above or below the middle a part may be, as a share of the image's side."""


def generate(split: Literal["train", "test"], *, images: int, side: int, data_seed: int = 0) -> ImageSet:
    """Return `images` images, (N, 3, side, side)."""
    source = digits.load(split)
    glyphs, names = source.images.numpy(), source.labels.numpy()
    of_name = [np.flatnonzero(names == name) for name in range(10)]
    pictures = np.zeros((images, 3, side, side), np.uint8)
    labels = np.zeros(images, np.int64)
    for index in range(images):
        random = np.random.default_rng((data_seed, split == "test", index))
        label = int(random.integers(len(CLASSES)))
        chosen = [random.choice(of_name[int(name)]) for name in CLASSES[label]]
        labels[index] = label
        pictures[index] = _picture([glyphs[k] for k in chosen], side, random)
    return ImageSet(
        images=torch.from_numpy(pictures),
        labels=torch.from_numpy(labels),
        classes=CLASSES,
        name=f"generated parts {split}",
    )


def _picture(glyphs: list[NDArray[np.uint8]], side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    coarse = random.uniform(40, 150, (6, 6, 3)).astype(np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    part = max(8, round(_PART * side))
    warm = np.array([255, random.uniform(120, 220), random.uniform(0, 60)], np.float32)
    cool = np.array([random.uniform(0, 60), random.uniform(160, 255), 255], np.float32)
    # One part in the left half and one in the right, in either order: they never hide one another.
    halves = [0, side - side // 2]
    random.shuffle(halves)
    for glyph, colour, start in zip(glyphs, (warm, cool), halves, strict=True):
        ink = (
            np.asarray(Image.fromarray(glyph).resize((part, part), Image.Resampling.BILINEAR), np.float32)[..., None]
            / 255
        )
        left = start + int(random.integers(0, max(1, side // 2 - part + 1)))
        top = round((side - part) / 2 + random.uniform(-_OFF_MIDDLE, _OFF_MIDDLE) * side)
        place = ground[top : top + part, left : left + part]
        place += ink * (colour - place)
    return np.clip(np.rint(ground), 0, 255).astype(np.uint8).transpose(2, 0, 1)
