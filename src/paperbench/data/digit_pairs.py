"""Pairs of different digits that overlap: a small data set with 45 classes, many of which are easily confused.

The class is the set of the two digits, whichever is on the left. Digits of the training pairs come from the source's training
split, those of the test pairs from its test split. Every pair follows from (seed, split, position) alone.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from paperbench.data import digits, mnist
from paperbench.data.image_sets import ImageSet
from paperbench.engine.seeding import hashed

CLASSES: Final = tuple(f"{low}{high}" for low, high in itertools.combinations(range(10), 2))
"""`01`, `02`, … `89`."""

SHIFT: Final = 8
"""Pixels from the left digit to the right one: of 20 pixels of ink at most 12 overlap."""

HEIGHT: Final = mnist.SIDE
WIDTH: Final = mnist.SIDE + SHIFT
_SPLITS: Final = {"train": 0, "test": 1}


def load(
    split: Literal["train", "test"],
    *,
    source: Literal["digits", "mnist"],
    count: int,
    seed: int,
    root: str | Path | None = None,
) -> ImageSet:
    """Return `count` pairs, (count, 28, 36), the classes in about equal number. The first k are the same for every count >= k.

    Raises DataError where MNIST is asked for and is not below `root`.
    """
    single = mnist.load(root, split) if source == "mnist" else digits.load(split)
    pixels, labels = single.images.numpy(), single.labels.numpy()
    by_digit = [np.flatnonzero(labels == digit) for digit in range(10)]
    draws = np.random.Philox(key=hashed(seed, _SPLITS[split])).random_raw(4 * count).reshape(count, 4)
    classes = (draws[:, 0] % len(CLASSES)).astype(np.int64)
    pairs = np.array(list(itertools.combinations(range(10), 2)))[classes]
    swapped = draws[:, 1] % 2 == 1
    pairs[swapped] = pairs[swapped, ::-1]
    images = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for place, draw in ((0, 2), (1, 3)):
        chosen = np.empty(count, np.int64)
        for digit, of_digit in enumerate(by_digit):
            here = pairs[:, place] == digit
            chosen[here] = of_digit[(draws[here, draw] % len(of_digit)).astype(np.int64)]
        part = images[:, :, SHIFT * place : SHIFT * place + mnist.SIDE]
        np.maximum(part, pixels[chosen], out=part)
    return ImageSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(classes),
        classes=CLASSES,
        name=f"digit pairs {split}",
    )
