"""Labelled images for the `data` section of a configuration, and their check for `paperbench data check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from paperbench.data import digits, mnist
from paperbench.data.image_sets import DigitsData, ImageSet, MnistData, shared_images
from paperbench.errors import DataError

Split = Literal["train", "test"]


def load(config: DigitsData | MnistData, split: Split) -> ImageSet:
    """The training or test split, cut to `max_train_images` or `max_test_images`. Raises DataError."""
    whole = mnist.load(config.root, split) if isinstance(config, MnistData) else digits.load(split)
    return whole.first(config.max_train_images if split == "train" else config.max_test_images)


def locate(config: DigitsData | MnistData) -> None:
    """Raise DataError when the data set is not where the configuration says; read no image."""
    if isinstance(config, MnistData):
        for split in ("train", "test"):
            mnist.find(config.root, split)


def describe(config: DigitsData | MnistData) -> str:
    """The data set in a few words, for results and the opening panel."""
    name = "MNIST" if isinstance(config, MnistData) else "scikit-learn's handwritten digits, 28x28"
    limits = {"training": config.max_train_images, "test": config.max_test_images}
    cut = [f"at most {count:,} {what} images" for what, count in limits.items() if count]
    return ", ".join([name, *cut])


def departures(data: Mapping[str, Any]) -> list[str]:
    """Return what the files of a `data` section have other than the published ones; see `DatasetSpec.departures`."""
    return list(mnist.departures(data.get("root")))


def check(config: DigitsData | MnistData) -> dict[str, Any]:
    """Read both splits in whole and count what is in them. Raises DataError with the faults of both."""
    counts: dict[str, Any] = {}
    sets: list[ImageSet] = []
    errors: list[str] = []
    for split in ("train", "test"):
        try:
            found = load(config, split)
        except DataError as error:
            errors.append(str(error))
            continue
        sets.append(found)
        numbers = torch.bincount(found.labels, minlength=len(found.classes)).tolist()
        counts |= {
            f"{split}: images": len(found),
            f"{split}: size": " x ".join(map(str, found.images.shape[-2:])),
            f"{split}: empty images": int((found.images.flatten(1) == 0).all(1).sum()),
            f"{split}: images by class": dict(zip(found.classes, numbers, strict=True)),
        }
    if errors:
        raise DataError("\n".join(dict.fromkeys(errors)))
    return counts | shared_images(*sets)
