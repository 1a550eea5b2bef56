"""Handwritten digits that scikit-learn carries with it: 1,797 real ones of 8 x 8 pixels (UCI, Alpaydin and Kaynak 1998).

They are enlarged to MNIST's form, 20 x 20 pixels of ink in the middle of 28 x 28, so that everything for MNIST runs without
a download. Every fifth image is test: 1,437 to train on and 360 to test on.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from paperbench.data.image_sets import ImageSet

CLASSES: Final = tuple("0123456789")
SIDE: Final = 28
_INK: Final = 20
_LEVELS: Final = 16
_TEST_EVERY: Final = 5


def load(split: Literal["train", "test"]) -> ImageSet:
    """Return the `train` or `test` split, which never changes."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; it takes 'train' or 'test'")
    images, labels = _enlarged()
    test = np.arange(len(labels)) % _TEST_EVERY == 0
    chosen = test if split == "test" else ~test
    return ImageSet(
        images=torch.from_numpy(images[chosen]),
        labels=torch.from_numpy(labels[chosen]),
        classes=CLASSES,
        name=f"handwritten digits {split}",
    )


@lru_cache(maxsize=1)
def _enlarged() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    table = _table()
    levels, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    grey = ((levels * 255 + _LEVELS // 2) // _LEVELS).astype(np.uint8)
    images = np.zeros((len(grey), SIDE, SIDE), np.uint8)
    margin = (SIDE - _INK) // 2
    for image, source in zip(images, grey, strict=True):
        # Pillow computes with integers for bytes: the same pixels on every machine.
        enlarged = Image.fromarray(source).resize((_INK, _INK), Image.Resampling.BICUBIC)
        image[margin:-margin, margin:-margin] = np.asarray(enlarged)
    return images, labels


def _table() -> NDArray[np.int64]:
    """(1797, 65): 64 levels of 0..16 and the label. From scikit-learn's own file, because to import it takes seconds."""
    package = importlib.util.find_spec("sklearn")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package and package.origin else None
    if file is not None and file.is_file():
        return np.loadtxt(file, np.int64, delimiter=",")
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)
    return np.concatenate([levels, labels[:, None]], axis=1).astype(np.int64)
