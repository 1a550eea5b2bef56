"""From the `data` part of a configuration to house numbers or birds, and what `paperbench data check` finds in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

from paperbench.data import cub, numbers, parts, svhn
from paperbench.data.classification import ImageSet
from paperbench.data.fine_grained import CubData, PartsData
from paperbench.data.sequences import LONGEST, NONE, GeneratedNumbers, NumberSet, SvhnData
from paperbench.errors import DataError

Split = Literal["train", "test"]
Progress = Callable[[int, int], None]


def splits_of(config: SvhnData, split: Split) -> tuple[svhn.Split, ...]:
    """The folders that a split consists of."""
    if split == "test":
        return ("test",)
    return ("train", "extra") if config.extra else ("train",)


def load_numbers(config: GeneratedNumbers | SvhnData, split: Split, progress: Progress | None = None) -> NumberSet:
    """The training or test split. Raises DataError."""
    limit = config.max_train_images if split == "train" else config.max_test_images
    if isinstance(config, SvhnData):
        return svhn.load(
            config.root,
            splits_of(config, split),
            size=config.size,
            context=config.margin(),
            limit=limit,
            progress=progress,
        )
    count = config.train_images if split == "train" else config.test_images
    return numbers.generate(split, images=min(limit or count, count), size=config.size, data_seed=config.data_seed)


def stored_side(size: int) -> int:
    """Side at which birds are kept for inputs of `size`: room for random crops."""
    return size + size // 8


def load_birds(config: PartsData | CubData, split: Split, progress: Progress | None = None) -> ImageSet:
    """The training or test split, at `stored_side`. Raises DataError."""
    limit = config.max_train_images if split == "train" else config.max_test_images
    side = stored_side(config.size)
    if isinstance(config, CubData):
        return cub.load(config.root, split, side=side, limit=limit, progress=progress)
    count = config.train_images if split == "train" else config.test_images
    return parts.generate(split, images=min(limit or count, count), side=side, data_seed=config.data_seed)


def locate(config: GeneratedNumbers | SvhnData | PartsData | CubData) -> None:
    """Raises DataError when the data set is not where the configuration says; reads no image."""
    if isinstance(config, SvhnData):
        for split in (*splits_of(config, "train"), "test"):
            svhn.find(config.root, split)  # type: ignore[arg-type]
    elif isinstance(config, CubData):
        cub.find(config.root)


def describe(config: GeneratedNumbers | SvhnData | PartsData | CubData) -> str:
    """The data set in a few words, for results and the opening panel."""
    size = f"{config.size}x{config.size}"
    if isinstance(config, SvhnData):
        return (
            f"SVHN full numbers, {size}{', train and extra' if config.extra else ', train without extra'}{_cut(config)}"
        )
    if isinstance(config, CubData):
        return f"CUB-200-2011, {size}{_cut(config)}"
    what = "generated house numbers" if isinstance(config, GeneratedNumbers) else "generated images of two parts"
    return f"{what}, {size}, {config.train_images:,} for training{_cut(config)}"


def _cut(config: Any) -> str:
    limits = {"training": config.max_train_images, "test": config.max_test_images}
    return "".join(f", at most {count:,} {what} images" for what, count in limits.items() if count)


def check_numbers(config: GeneratedNumbers | SvhnData) -> dict[str, Any]:
    """Reads both splits in whole and counts what is in them. Raises DataError with the faults of both."""
    return _check(lambda split: load_numbers(config, split), _count_numbers)


def _count_numbers(found: NumberSet) -> dict[str, Any]:
    lengths = torch.bincount((found.labels != NONE).sum(1), minlength=LONGEST + 1)[1:]
    return {
        "images": len(found),
        "size": " x ".join(map(str, found.images.shape[-2:])),
        "numbers by length": dict(zip(map(str, range(1, LONGEST + 1)), lengths.tolist(), strict=True)),
        **{f"left out: {reason}": count for reason, count in found.left_out.items()},
    }


def check_birds(config: PartsData | CubData) -> dict[str, Any]:
    """Reads both splits in whole and counts what is in them. Raises DataError with the faults of both."""
    return _check(lambda split: load_birds(config, split), _count_birds)


def _count_birds(found: ImageSet) -> dict[str, Any]:
    counts = torch.bincount(found.labels, minlength=len(found.classes))
    return {
        "images": len(found),
        "classes": len(found.classes),
        "images of the rarest class": int(counts.min()),
        "images of the most frequent class": int(counts.max()),
    }


def _check(load: Callable[[Split], Any], count: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    errors: list[str] = []
    for split in ("train", "test"):
        try:
            counts |= {f"{split}: {name}": value for name, value in count(load(split)).items()}
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError("\n".join(dict.fromkeys(errors)))
    return counts
