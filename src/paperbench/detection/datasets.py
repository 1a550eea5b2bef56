"""From the `data` part of a configuration to a data set, its images on the device, and its description in words."""

from __future__ import annotations

from typing import Any, Literal

import torch

from paperbench.data import coco, faults, pennfudan, shapes, voc
from paperbench.data.detection import DetectionSet
from paperbench.data.image_store import ImageStore
from paperbench.detection.config import CocoData, DataConfig, ImageConfig, PennFudanData, ShapesData, VocData
from paperbench.errors import DataError

__all__ = ["DetectionSet", "check", "describe", "load", "store"]

Split = Literal["train", "test"]


def load(config: DataConfig, split: Split) -> DetectionSet:
    """The training or test split, cut to `max_train_images` or `max_test_images`.

    Raise DataError for data that are missing or faulty (every fault is named), ConfigError for a split without images.
    """
    training = split == "train"
    limit = config.max_train_images if training else config.max_test_images
    match config:
        case ShapesData():
            images = config.train_images if training else config.test_images
            return shapes.read(
                split=split,
                images=min(limit or images, images),
                size=config.size,
                data_seed=config.data_seed,
                max_objects=config.max_objects,
                empty=config.empty,
            )
        case VocData():
            return voc.read(
                root=config.root,
                year=config.year,
                split=config.train_split if training else config.test_split,
                classes=config.classes,
                zero_based=config.zero_based,
                on_bad_box=config.on_bad_box,
                limit=limit,
            )
        case CocoData():
            return coco.read(
                root=config.root,
                split=config.train_split if training else config.test_split,
                on_bad_box=config.on_bad_box,
                limit=limit,
            )
        case PennFudanData():
            return pennfudan.read(
                root=config.root,
                split=split,
                test_images=config.test_images,
                on_bad_box=config.on_bad_box,
                limit=limit,
            )


def locate(config: DataConfig) -> None:
    """Raise DataError when the data set, or one of its splits, is not where the configuration says; reads no annotation."""
    match config:
        case VocData():
            folder = voc.find(config.root, config.year)
            for split in (config.train_split, config.test_split):
                voc.read_ids(folder, split)
        case CocoData():
            for split in (config.train_split, config.test_split):
                coco.find(config.root, split)
        case PennFudanData():
            pennfudan.find(config.root)
        case ShapesData():
            pass


def has_masks(config: DataConfig) -> bool:
    """Return True for data whose objects have masks."""
    return not isinstance(config, VocData)


def store(config: ImageConfig, dataset: DetectionSet, device: torch.device) -> ImageStore:
    """The images of `dataset` on `device`, resized and kept as `config` says."""
    return ImageStore(
        dataset, short_side=config.short_side, max_side=config.max_side, device=device, cache_mb=config.cache_mb
    )


def describe(dataset: DetectionSet) -> str:
    """One line: what is in the data set, what was left out of it and what was repaired."""
    text = (
        f"{dataset.name} {dataset.split}: {len(dataset)} images, {dataset.objects} objects, "
        f"{len(dataset.classes)} {'class' if len(dataset.classes) == 1 else 'classes'}"
    )
    if dataset.dropped:
        text += "; left out: " + ", ".join(f"{count} x {reason}" for reason, count in dataset.dropped.items())
    if dataset.repaired:
        text += "; clipped: " + ", ".join(f"{count} boxes {reason}" for reason, count in dataset.repaired.items())
    return text


def check(config: DataConfig) -> dict[str, Any]:
    """Read and decode both splits in whole and count their content; see `data.faults.examine`.

    Raise DataError with the faults of both splits, and for splits whose classes differ.
    """
    counts: dict[str, Any] = {}
    label_sets: list[tuple[str, ...]] = []
    errors: list[str] = []
    for split in ("train", "test"):
        try:
            dataset = load(config, split)
            found = faults.check_dataset(dataset)
            by_class = found.pop("objects by class")
            counts |= {split: found, f"{split}: objects by class": by_class}
            label_sets.append(dataset.classes)
        except DataError as error:
            errors.append(str(error))
    if len(set(label_sets)) > 1:
        errors.append(f"{config.name}: the classes of the training split and of the test split differ: {label_sets}")
    if errors:
        raise DataError("\n".join(dict.fromkeys(errors)))
    return counts
