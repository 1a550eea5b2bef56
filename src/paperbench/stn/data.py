"""The data of the tasks: from the `data` section of a configuration to batches that are made on the device from bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from paperbench.data import cub, numbers, parts, photographs, svhn
from paperbench.data.image_sets import (
    LONGEST,
    NONE,
    CubData,
    FoldersConfig,
    GeneratedNumbers,
    ImageSet,
    NumberSet,
    PartsData,
    SvhnData,
)
from paperbench.data.photographs import PhotographStore
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey
from paperbench.engine.seeding import hashed
from paperbench.engine.transfer import to_device
from paperbench.errors import DataError
from paperbench.stn.distortions import Distortion

TRAIN_NOISE, TEST_NOISE = 100, 101
"""First keys of this package's random streams."""

Split = Literal["train", "test"]
Progress = Callable[[int, int], None]
Batch = tuple[Tensor, Tensor]
"""Inputs (B, C, H, W) float32 in 0..1 and labels (B, ...) int64."""


# --- digits -----------------------------------------------------------------------------------------------------------


class DistortedDigits:
    """Digits on the device, distorted anew for every step: a batch is a pure function of `key`, samples and epochs.

    An input does not depend on the others of its batch, except in the last bits of its positions, which come from one product.

    `digits` > 1: an input is that many digits, each with a distortion of its own, in channels of their own, and the label is their
    sum (section A.1); the partners of a sample are drawn anew every epoch.
    """

    def __init__(
        self, images: ImageSet, distortion: Distortion, *, key: int, device: torch.device, digits: int = 1
    ) -> None:
        self.images = images.images.to(device)
        self.labels = images.labels.to(device)
        self.distortion = distortion.to(device)
        self.digits = digits
        self.classes = len(images.classes) if digits == 1 else digits * (len(images.classes) - 1) + 1
        self.device = device
        self._key = key

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Side of an input, in pixels."""
        return self.distortion.canvas

    def __call__(self, samples: Tensor, epochs: Tensor) -> Batch:
        """Return the batch of samples and epochs, (B,) int64 each, on the device."""
        return self._make(self._plan(samples, epochs))

    def fetch(self, key: BatchKey) -> Batch:
        """Return the batch of a training step.

        What is drawn is a few numbers for each image, and takes 44 operations and more to draw: all on the host, whatever device
        the images are on. A GPU gets the result in one copy for each part.
        """
        plan = self._plan(torch.from_numpy(key.indices), torch.from_numpy(key.epochs))
        return self._make([(to_device(chosen, self.device), to_device(own, self.device)) for chosen, own in plan])

    def _plan(self, samples: Tensor, epochs: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return for each digit of an input the images (B,), and what the distortion prepared for them, (B, ...)."""
        noise = uniform(self._key, samples, epochs, self.digits * (self.distortion.draws + 1))
        plan = []
        for number, own in enumerate(noise.chunk(self.digits, dim=1)):
            chosen = samples if number == 0 else (own[:, 0] * len(self)).long().clamp_(max=len(self) - 1)
            plan.append((chosen, self.distortion.prepare(own[:, 1:])))
        return plan

    def _make(self, plan: list[tuple[Tensor, Tensor]]) -> Batch:
        inputs = [self.distortion.apply(self.images, chosen, prepared) for chosen, prepared in plan]
        labels = [self.labels[chosen] for chosen, _ in plan]
        if self.digits == 1:
            return inputs[0], labels[0]
        return torch.cat(inputs, dim=1), torch.stack(labels).sum(0)

    def batches(self, size: int, *, share: slice | None = None) -> Iterator[Batch]:
        """Yield every sample once, in order, `size` at a time, as of epoch 0; of the batches only those in `share`."""
        starts = range(0, len(self), size)[share or slice(None)]
        for start in starts:
            samples = torch.arange(start, min(start + size, len(self)), device=self.device)
            yield self(samples, torch.zeros_like(samples))


def training_digits(
    images: ImageSet, distortion: Distortion, seed: int, device: torch.device, digits: int = 1
) -> DistortedDigits:
    """Return the training digits of a run with this seed, distorted anew in every epoch."""
    return DistortedDigits(images, distortion, key=hashed(seed, TRAIN_NOISE), device=device, digits=digits)


def evaluation_digits(
    images: ImageSet, distortion: Distortion, seed: int, device: torch.device, digits: int = 1
) -> DistortedDigits:
    """Return the fixed test set: digits distorted once, by `seed` of the test set, not of the run."""
    return DistortedDigits(images, distortion, key=hashed(seed, TEST_NOISE), device=device, digits=digits)


# --- photographs ------------------------------------------------------------------------------------------------------


class Photographs:
    """Images (N, 3, S, S) uint8, a tensor or a `PhotographStore`, and labels (N, ...) on `device`.

    Training batches are random `size` crops, mirrored half of the time, as functions of (key, sample, epoch); with `size` = S and
    no `mirror` they are the images themselves. Test batches are centre crops.
    """

    def __init__(
        self,
        images: Tensor | PhotographStore,
        labels: Tensor,
        *,
        size: int,
        key: int,
        device: torch.device,
        mirror: bool,
    ) -> None:
        self.images = images.to(device)
        self.labels = labels.to(device)
        self.size = size
        self.device = device
        self._key = key
        self._mirror = mirror
        self._line = torch.arange(size, device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, key: BatchKey) -> Batch:
        """Return the batch of a training step."""
        samples, epochs = (to_device(part, self.device) for part in (key.indices, key.epochs))
        noise = uniform(self._key, samples, epochs, 3)
        room = self.images.shape[-1] - self.size + 1
        left, top = ((noise[:, k] * room).long().clamp_(max=room - 1) for k in (0, 1))
        columns = left[:, None] + self._line
        if self._mirror:
            columns = torch.where(noise[:, 2:] < 0.5, columns.flip(1), columns)
        return self._crop(samples, top[:, None] + self._line, columns), self.labels[samples]

    def batches(self, size: int, *, share: slice | None = None) -> Iterator[Batch]:
        """Yield every image once, in order, `size` at a time; of the batches only those in `share`."""
        middle = (self.images.shape[-1] - self.size) // 2 + self._line
        for start in range(0, len(self), size)[share or slice(None)]:
            samples = torch.arange(start, min(start + size, len(self)), device=self.device)
            lines = middle.expand(len(samples), -1)
            yield self._crop(samples, lines, lines), self.labels[samples]

    def _crop(self, samples: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        if self.size == self.images.shape[-1] and not self._mirror:
            return self.images[samples].float().div_(255)
        channels = torch.arange(3, device=self.device)
        images = self.images
        if isinstance(images, PhotographStore):
            images, samples = images[samples], torch.arange(len(samples), device=self.device)
        crop = images[
            samples[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]
        return crop.float().div_(255)


# --- house numbers and birds from the configuration -------------------------------------------------------------------


def splits_of(config: SvhnData, split: Split) -> tuple[svhn.Split, ...]:
    """Return the folders of a split."""
    if split == "test":
        return ("test",)
    return ("train", "extra") if config.extra else ("train",)


def load_numbers(config: GeneratedNumbers | SvhnData, split: Split, progress: Progress | None = None) -> NumberSet:
    """Load the training or test split. Raises DataError."""
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
    """Return the stored side of images for inputs of `size`: larger, for random crops."""
    return size + size // 8


def input_side(config: PartsData | CubData | FoldersConfig) -> int:
    """Return the side of the inputs in pixels."""
    return config.side if isinstance(config, FoldersConfig) else config.size


def load_birds(config: PartsData | CubData | FoldersConfig, split: Split, progress: Progress | None = None) -> ImageSet:
    """Load the training or test split, at `stored_side`. Raises DataError."""
    limit = config.max_train_images if split == "train" else config.max_test_images
    side = stored_side(input_side(config))
    if isinstance(config, FoldersConfig):
        return photographs.load(replace(config, side=side), split, progress=progress)
    if isinstance(config, CubData):
        return cub.load(config.root, split, side=side, limit=limit, progress=progress)
    count = config.train_images if split == "train" else config.test_images
    return parts.generate(split, images=min(limit or count, count), side=side, data_seed=config.data_seed)


def locate(config: GeneratedNumbers | SvhnData | PartsData | CubData | FoldersConfig) -> None:
    """Raise DataError if the data set is not where the configuration says; no image is read."""
    if isinstance(config, SvhnData):
        for split in (*splits_of(config, "train"), "test"):
            svhn.find(config.root, split)  # type: ignore[arg-type]
    elif isinstance(config, CubData):
        cub.find(config.root)
    elif isinstance(config, FoldersConfig):
        photographs.locate(config)


def describe(config: GeneratedNumbers | SvhnData | PartsData | CubData | FoldersConfig) -> str:
    """Return the data set in a few words, for results and the opening panel."""
    if isinstance(config, FoldersConfig):
        return photographs.describe(config)
    size = f"{config.size}x{config.size}"
    if isinstance(config, SvhnData):
        return (
            f"SVHN full numbers, {size}{', train and extra' if config.extra else ', train without extra'}{_cut(config)}"
        )
    if isinstance(config, CubData):
        return f"CUB-200-2011, {size}{_cut(config)}"
    name = "generated house numbers" if isinstance(config, GeneratedNumbers) else "generated images of two parts"
    return f"{name}, {size}, {config.train_images:,} for training{_cut(config)}"


def _cut(config: Any) -> str:
    limits = {"training": config.max_train_images, "test": config.max_test_images}
    return "".join(f", at most {count:,} {split} images" for split, count in limits.items() if count)


def check_numbers(config: GeneratedNumbers | SvhnData) -> dict[str, Any]:
    """Read both splits completely and count their contents. Raises DataError with the faults of both."""
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
    """Read both splits completely and count their contents. Raises DataError with the faults of both."""
    return _check(lambda split: load_birds(config, split), _count_birds)


def _count_birds(found: ImageSet) -> dict[str, Any]:
    counts = torch.bincount(found.labels, minlength=len(found.classes))
    return {
        "images": len(found),
        "classes": len(found.classes),
        "images of the rarest class": int(counts.min()),
        "images of the most frequent class": int(counts.max()),
    }


def departures(data: Mapping[str, Any]) -> list[str]:
    """Return what the files of SVHN or of CUB-200-2011 have other than the published ones; see `DatasetSpec.departures`.

    Raises DataError.
    """
    if data["name"] == "cub":
        return list(cub.departures(data.get("root")))
    training: tuple[svhn.Split, ...] = ("train", "extra") if data.get("extra", True) else ("train",)
    return list(svhn.departures(data.get("root"), (*training, "test")))


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
