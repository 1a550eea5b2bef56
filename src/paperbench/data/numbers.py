"""Generated house numbers: one to five handwritten digits in a row, in two colours, tilted, cropped as SVHN's numbers are.

They replace SVHN where there is no archive, and consist of scikit-learn's digits. The digits of the test images come from the test
split. Every image is a function of (data_seed, split, index).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from paperbench.data import digits
from paperbench.data.image_sets import LONGEST, NONE, NumberSet, usual_context

_LENGTHS = (0.15, 0.5, 0.25, 0.08, 0.02)
"""Shares of numbers of one to five digits, about those of SVHN."""
_PITCH = 17
"""Pixels from one digit to the next; a digit's ink is 20 wide and rarely fills them."""
_LOOSE = 0.12
"""Share by which the crop is looser or tighter than it should be, in each direction."""


def generate(split: Literal["train", "test"], *, images: int, size: int, data_seed: int = 0) -> NumberSet:
    """Return `images` images of `size` x `size` pixels."""
    source = digits.load(split)
    glyphs, names = source.images.numpy(), source.labels.numpy()
    pictures = np.zeros((images, 3, size, size), np.uint8)
    labels = np.full((images, LONGEST), NONE, np.int64)
    for index in range(images):
        random = np.random.default_rng((data_seed, split == "test", index))
        chosen = random.integers(0, len(names), 1 + random.choice(LONGEST, p=_LENGTHS))
        labels[index, : len(chosen)] = names[chosen]
        pictures[index] = _picture(_strip(glyphs[chosen]), size, random)
    return NumberSet(
        images=torch.from_numpy(pictures),
        labels=torch.from_numpy(labels),
        name=f"generated numbers {split}",
        left_out={},
    )


def _strip(glyphs: NDArray[np.uint8]) -> Image.Image:
    """Lay the digits in a row, white ink on black."""
    height, width = glyphs.shape[1:]
    strip = np.zeros((height, width + _PITCH * (len(glyphs) - 1)), np.uint8)
    for place, glyph in enumerate(glyphs):
        part = strip[:, place * _PITCH : place * _PITCH + width]
        np.maximum(part, glyph, out=part)
    return Image.fromarray(strip)


def _picture(strip: Image.Image, size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """(3, size, size): the strip, tilted a little, cut out with as much around it as SVHN's, in one colour on another, shaded one.

    Like a crop of SVHN's it is brought to the same side in both directions, whatever the number's length. How tightly it was
    cut, and where it lies, varies a little.
    """
    tilted = strip.rotate(random.uniform(-8, 8), Image.Resampling.BILINEAR, expand=True)
    side = size / (1 + usual_context(size))
    wide, high = (round(side * random.uniform(1 - _LOOSE, 1 + _LOOSE)) for _ in range(2))
    number = tilted.crop(tilted.getbbox()).resize((wide, high), Image.Resampling.BILINEAR)
    ink = Image.new("L", (size, size))
    left, top = (round((size - extent) * random.uniform(0.25, 0.75)) for extent in (wide, high))
    ink.paste(number, (left, top))
    alpha = np.asarray(ink, np.float32) / 255
    dark, light = random.uniform(0, 110, 3), random.uniform(145, 255, 3)
    front, back = (dark, light) if random.random() < 0.5 else (light, dark)
    slope = random.uniform(-30, 30, 2)
    ramp = np.add.outer(np.linspace(-1, 1, size) * slope[0], np.linspace(-1, 1, size) * slope[1])
    ground = back[:, None, None] + ramp + random.normal(0, 6, (size, size))
    mixed = alpha * front[:, None, None] + (1 - alpha) * ground
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
