"""Labelled images of the `data` section of a configuration, and their check for `paperbench data check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from paperbench.config.words import counted
from paperbench.data import cifar, class_folders, digit_pairs, emnist, labelled, mnist, photographs
from paperbench.data.image_sets import ImageSet, TransferFoldersData, shared_images
from paperbench.distill.config import Cifar100Data, DataConfig, DigitPairsData, EmnistData
from paperbench.errors import DataError

Split = Literal["train", "test"]


def load(config: DataConfig, split: Split) -> ImageSet:
    """Read the training or test split, cut to `max_train_images` or `max_test_images`. Raises DataError."""
    if isinstance(config, TransferFoldersData):
        return photographs.load(config, split, channels=3 if config.colour else 1)
    if isinstance(config, EmnistData):
        whole = emnist.load(config.root, split, variant=config.split)
    elif isinstance(config, Cifar100Data):
        whole = cifar.load(config.root, split)
    elif isinstance(config, DigitPairsData):
        limit = config.max_train_images if split == "train" else config.max_test_images
        count = config.train_images if split == "train" else config.test_images
        whole = digit_pairs.load(
            split, source=config.source, root=config.root, count=min(limit or count, count), seed=config.data_seed
        )
    else:
        return labelled.load(config, split)
    return whole.first(config.max_train_images if split == "train" else config.max_test_images)


def locate(config: DataConfig) -> None:
    """Raise DataError when the data set is not where the configuration says; reads no image."""
    if isinstance(config, TransferFoldersData):
        photographs.locate(config)
        return
    for split in ("train", "test"):
        if isinstance(config, EmnistData):
            emnist.find(config.root, split, variant=config.split)
        elif isinstance(config, Cifar100Data):
            cifar.find(config.root)
        elif isinstance(config, DigitPairsData):
            if config.source == "mnist":
                mnist.find(config.root, split)
        else:
            labelled.locate(config)


def classes(config: DataConfig) -> tuple[str, ...]:
    """Return the names of the classes, without reading an image. Raises DataError."""
    if isinstance(config, TransferFoldersData):
        return class_folders.find(config).classes
    if isinstance(config, EmnistData):
        return emnist.CLASSES[config.split]
    if isinstance(config, Cifar100Data):
        return cifar.class_names(config.root)
    if isinstance(config, DigitPairsData):
        return digit_pairs.CLASSES
    return mnist.CLASSES


def size(config: DataConfig) -> tuple[int, int, int]:
    """Return C, H, W of an image."""
    if isinstance(config, TransferFoldersData):
        return 3 if config.colour else 1, config.side, config.side
    if isinstance(config, Cifar100Data):
        return 3, cifar.SIDE, cifar.SIDE
    if isinstance(config, DigitPairsData):
        return 1, digit_pairs.HEIGHT, digit_pairs.WIDTH
    return 1, mnist.SIDE, mnist.SIDE


def describe(config: DataConfig) -> str:
    """Describe the data set in a few words, for results and the opening panel."""
    if isinstance(config, TransferFoldersData):
        return photographs.describe(config)
    if isinstance(config, EmnistData):
        name = f"EMNIST {config.split}, {counted(len(emnist.CLASSES[config.split]), 'classes')}"
    elif isinstance(config, Cifar100Data):
        name = "CIFAR-100"
    elif isinstance(config, DigitPairsData):
        source = "MNIST" if config.source == "mnist" else "scikit-learn's handwritten digits"
        name = f"pairs of overlapping digits ({source}), {counted(len(digit_pairs.CLASSES), 'classes')}"
    else:
        return labelled.describe(config)
    limits = {"training": config.max_train_images, "test": config.max_test_images}
    return ", ".join([name, *(f"at most {count:,} {split} images" for split, count in limits.items() if count)])


def check(config: DataConfig) -> dict[str, Any]:
    """Read both splits entirely and count images and classes. Raises DataError with the faults of both."""
    counts: dict[str, Any] = {}
    sets: list[ImageSet] = []
    faults: list[str] = []
    for split in ("train", "test"):
        try:
            found = load(config, split)
        except DataError as error:
            faults.append(str(error))
            continue
        sets.append(found)
        numbers = torch.bincount(found.labels, minlength=len(found.classes))
        counts |= {
            f"{split}: images": len(found),
            f"{split}: size": " x ".join(map(str, found.images.shape[1:])),
            f"{split}: empty images": int((found.images.flatten(1) == 0).all(1).sum()),
            f"{split}: classes": len(found.classes),
            f"{split}: images of a class": f"{int(numbers.min())} to {int(numbers.max())}",
        }
    if faults:
        raise DataError("\n".join(dict.fromkeys(faults)))
    return counts | shared_images(*sets)


def departures(data: Mapping[str, Any]) -> list[str]:
    """Return what the files of a `data` section have other than the published ones; see `DatasetSpec.departures`.

    Raises DataError.
    """
    name, root = data["name"], data.get("root")
    if name == "emnist":
        return list(emnist.departures(root, variant=data.get("split", EmnistData.split)))
    if name == "cifar100":
        return list(cifar.departures(root))
    return list(mnist.departures(root)) if data.get("source") == "mnist" else []
