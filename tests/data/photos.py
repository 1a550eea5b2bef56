"""Folders of classes that tests write: noise, each class in a colour of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("Éclair", "birne", "chat")


def write_photo(path: Path, *, hue: int, seed: int, size: tuple[int, int] = (24, 36)) -> Path:
    """A JPEG or PNG of noise whose channel `hue` is bright."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng((hue, seed)).integers(0, 80, (*size, 3)).astype(np.uint8)
    pixels[..., hue % 3] += 120
    Image.fromarray(pixels).save(path)
    return path


def write_classes(
    folder: Path, *, each: int = 6, classes: Sequence[str] = CLASSES, suffix: str = ".jpg", first: int = 0
) -> Path:
    """`CLASS/NNN.jpg` below a folder."""
    for hue, name in enumerate(classes):
        for number in range(each):
            write_photo(folder / name / f"{number:03d}{suffix}", hue=hue, seed=first + number)
    return folder


def write_splits(root: Path, *, train: int = 6, test: int = 3, test_name: str = "test") -> Path:
    """`train/` and `test/` of the same classes and other pictures."""
    write_classes(root / "train", each=train)
    write_classes(root / test_name, each=test, first=1000)
    return root
