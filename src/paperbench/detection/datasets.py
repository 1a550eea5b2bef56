"""From the `data` part of a configuration to a data set, its images on the device, and its description in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from paperbench.config.paths import expanded
from paperbench.config.words import counted
from paperbench.data import coco, faults, joined, pennfudan, shapes, voc, voc_layout, yolo, yolo_layout
from paperbench.data.detection import DetectionSet
from paperbench.data.held_out import Part
from paperbench.data.image_store import ImageStore
from paperbench.data.layout import data_root
from paperbench.detection.config import (
    CocoData,
    DataConfig,
    ImageConfig,
    PennFudanData,
    ShapesData,
    VocData,
    YoloData,
    class_mistakes,
)
from paperbench.errors import ConfigError, DataError

__all__ = ["DetectionSet", "check", "describe", "load", "load_splits", "load_test", "relabelled", "store"]

Split = Literal["train", "test"]


def load(config: DataConfig, split: Split, *, masks: coco.MaskUse = "none") -> DetectionSet:
    """The training or test split, cut to `max_train_images` or `max_test_images`.

    masks: what of the masks is looked at with the boxes, see `coco.read`; generated masks and Penn-Fudan's are there always.
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
        case VocData() | CocoData() | YoloData():
            return _of_files(config, training, masks, limit)
        case PennFudanData():
            return pennfudan.read(
                root=config.root,
                split=split,
                test_images=config.test_images,
                on_bad_box=config.on_bad_box,
                limit=limit,
            )


def _of_files(config: VocData | CocoData | YoloData, training: bool, masks: coco.MaskUse, limit: int) -> DetectionSet:
    """One split of files on disk, or the part or the sources of it that are meant; errors as of `load`."""
    whole = _whole(config, training)
    if training and config.train:
        return _joined(
            config.train,
            lambda name, most: _read(own := _source(config, name), own.train_split, None, masks, most),
            limit,
            masks,
        )
    return _read(config, whole, config.part(test=not training), masks, limit)


def _whole(config: VocData | CocoData | YoloData, training: bool) -> str:
    """Return the split to read, or to divide. Raise ConfigError where what to hold out of is not said."""
    if config.test_fraction and config.train:
        raise ConfigError(
            "data.test_fraction: holds images of data.train_split out, and data.train replaces it; "
            "join one of them with data.train, and name what to test on with data.test_split"
        )
    return config.train_split if training or config.test_fraction else config.test_split


def _source(config: VocData | CocoData | YoloData, name: str) -> VocData | CocoData | YoloData:
    """The configuration of one of `config.train` alone: a year and a split of VOC, a split of COCO, a folder of YOLO."""
    match config:
        case VocData():
            year, _, split = name.partition("/")
            return replace(config, year=year, train_split=split)
        case CocoData():
            return replace(config, train_split=name)
        case YoloData():
            return replace(config, root=str(data_folder(config.root) / expanded(name)))


def _read(
    config: VocData | CocoData | YoloData, split: str, part: Part | None, masks: coco.MaskUse, limit: int
) -> DetectionSet:
    read: Callable[..., DetectionSet]
    match config:
        case VocData():  # has no masks
            read = partial(voc.read, year=config.year, classes=config.classes, zero_based=config.zero_based)
        case CocoData():
            read = partial(coco.read, masks=masks)
        case YoloData():
            read = partial(yolo.read, classes=config.classes, masks=masks)
    return read(root=config.root, split=split, on_bad_box=config.on_bad_box, exif=config.exif, part=part, limit=limit)


def _joined(
    names: Sequence[str], read: Callable[[str, int], DetectionSet], limit: int, masks: coco.MaskUse
) -> DetectionSet:
    """Join what `read` returns for each name; of a limited number of images, each source gives an equal share.

    Raise ConfigError for a source that is named twice, DataError with the faults of all, and where `masks` are needed and a source
    has none.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(*(f"data.train: {name} stands there twice" for name in twice))
    parts: list[tuple[str, DetectionSet]] = []
    errors: list[str] = []
    for name in names:
        try:
            parts.append((name, read(name, -(-limit // len(names)))))
        except DataError as error:
            errors.append(str(error))
    without = [name for name, part in parts if part.masks is None and part.objects]
    if masks == "all" and 0 < len(without) < len(parts):
        errors.append(f"{', '.join(without)}: no annotation has a segmentation, and the other sources have them")
    if errors:
        raise DataError("\n".join(dict.fromkeys(errors)))
    return joined.join(parts, limit=limit)


def load_splits(config: DataConfig, *, masks: bool = False) -> tuple[DetectionSet, DetectionSet]:
    """The training and the test split of one label set, checked for what training and scoring need.

    masks: whether each object needs one. Raise DataError as of `load` and `relabelled`, and for a split without an object to be
    learnt or found.
    """
    use: coco.MaskUse = "all" if masks else "none"
    train, test = load(config, "train", masks=use), load(config, "test", masks=use)
    test = relabelled(test, train.classes, owner=f"the training split {train.split}")
    _check_wanted(train, "learnt")
    _check_wanted(test, "found")
    return train, joined.shared_with(test, train)


def load_test(config: DataConfig, classes: Sequence[str] | None = None, *, masks: bool = False) -> DetectionSet:
    """The test split, with the labels of a model's `classes`; errors as of `load_splits`."""
    test = load(config, "test", masks="all" if masks else "none")
    if classes is not None:
        test = relabelled(test, tuple(classes), owner="the model")
    _check_wanted(test, "found")
    return test


def relabelled(dataset: DetectionSet, classes: tuple[str, ...], *, owner: str) -> DetectionSet:
    """`dataset` with the labels of `classes`, by name: ids of categories, and so labels, are each file's own.

    Raise DataError unless both have the same names; `owner` says whose `classes` are. A file without a category would leave it out
    of every mean, and one with another has objects that no model of `classes` can name.
    """
    if dataset.classes == classes:
        return dataset
    missing = [name for name in classes if name not in dataset.classes]
    unknown = [name for name in dataset.classes if name not in classes]
    if missing or unknown:
        said = [
            f"{dataset.name} {dataset.split}: its classes are not those of {owner}",
            *(f"  {name} is missing; near it: {_near(name, unknown)}" for name in missing if _near(name, unknown)),
            *(f"  {name} is missing" for name in missing if not _near(name, unknown)),
            *(f"  {name} is there alone" for name in unknown),
            f"  {owner}: {', '.join(classes)}; {dataset.split}: {', '.join(dataset.classes)}",
            "Results are by class: give both the same categories by name (one may have no objects)",
        ]
        raise DataError("\n".join(said))
    label_of = np.array([0, *(classes.index(name) + 1 for name in dataset.classes)], np.int64)
    ids = dict(zip(dataset.classes, dataset.category_ids, strict=False))  # no ids where the format has none
    return replace(
        dataset,
        classes=classes,
        records=[replace(record, labels=label_of[record.labels]) for record in dataset.records],
        category_ids=tuple(ids[name] for name in classes) if ids else (),
        remarks={
            **dataset.remarks,
            "categories whose ids stand for other names elsewhere, matched by name": len(classes),
        },
    )


def _near(name: str, others: Sequence[str]) -> str:
    return ", ".join(get_close_matches(name, others, n=2))


def _check_wanted(dataset: DetectionSet, verb: str) -> None:
    if dataset.wanted:
        return
    what = (
        f"all {dataset.objects} objects are difficult or crowd regions"
        if dataset.objects
        else f"none of its {len(dataset)} images has an object"
    )
    numbers = ", so nothing can be scored" if verb == "found" else ""
    raise DataError(
        f"{dataset.name} {dataset.split}: {what}: there is nothing to be {verb}{numbers}; choose another split"
    )


def locate(config: DataConfig) -> None:
    """Raise DataError when the data set, or one of its splits, is not where the configuration says; reads no annotation."""
    match config:
        case VocData():
            mistakes = class_mistakes("data.classes", config.classes)
            if mistakes:
                raise ConfigError(*mistakes)
            sources = config.train or (f"{config.year}/{config.train_split}",)
            tested = _whole(config, training=False)
            for year, _, split in (name.partition("/") for name in (*sources, f"{config.year}/{tested}")):
                voc_layout.find(config.root, year).names(split)
        case CocoData():
            tested = _whole(config, training=False)
            for split in (*(config.train or (config.train_split,)), tested):
                coco.find(config.root, split)
        case YoloData():
            mistakes = class_mistakes("data.classes", config.classes)
            if mistakes:
                raise ConfigError(*mistakes)
            tested = _whole(config, training=False)
            folder = data_folder(config.root)
            for root in [folder / expanded(name) for name in config.train] or [config.root]:
                _locate_yolo(root, config.train_split, config.classes)
            _locate_yolo(config.root, tested, config.classes)
        case PennFudanData():
            pennfudan.find(config.root)
        case ShapesData():
            pass


def _locate_yolo(root: str | Path | None, split: str, classes: Sequence[str]) -> None:
    layout = yolo_layout.find(root)
    layout.images(split)
    if classes:
        yolo.chosen_classes(layout, classes)


def data_folder(root: str | None) -> Path:
    """Return the folder that `data.root` is, or that holds the file that it is."""
    base = data_root(root)
    return base.parent if base.is_file() else base


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
    sources = ", ".join(f"{source.images} of {source.name}" for source in dataset.sources)
    images = counted(len(dataset), "images") + (f" ({sources})" if sources else "")
    parts = [images, counted(dataset.objects, "objects"), counted(len(dataset.classes), "classes")]
    text = f"{dataset.name} {dataset.split}: {', '.join(parts)}"
    if dataset.dropped:
        text += "; left out: " + ", ".join(f"{count} x {reason}" for reason, count in dataset.dropped.items())
    if dataset.repaired:
        text += "; clipped: " + ", ".join(
            f"{counted(count, 'boxes')} {reason}" for reason, count in dataset.repaired.items()
        )
    text += "".join(f"; {counted(count, remark)}" for remark, count in dataset.remarks.items())
    return text


def check(config: DataConfig) -> dict[str, Any]:
    """Read and decode both splits in whole, masks included, and count their content; see `data.faults.check_dataset`.

    Raise DataError with the faults of both splits, for splits whose classes differ, and for one without an object to be learnt or
    found; ConfigError for a label set that has a class twice.
    """
    locate(config)
    counts: dict[str, Any] = {}
    read: list[DetectionSet] = []
    errors: list[str] = []
    for split in ("train", "test"):
        try:
            dataset = load(config, split, masks="there")
            if read:
                dataset = relabelled(dataset, read[0].classes, owner=f"the training split {read[0].split}")
                dataset = joined.shared_with(dataset, read[0])
            found = faults.check_dataset(dataset)
            by_class = found.pop("objects by class")
            counts |= {split: found, f"{split}: objects by class": by_class}
            read.append(dataset)
            _check_wanted(dataset, "learnt" if split == "train" else "found")
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError("\n".join(dict.fromkeys(errors)))
    return counts
