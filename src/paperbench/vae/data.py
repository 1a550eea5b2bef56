"""The images of the VAE tasks: bytes on the device, and rows of D pixel values in [0, 1] as the models see them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from paperbench.data import frey, labelled, mnist, photographs
from paperbench.data.image_sets import DigitsData, FoldersData, ImageSet, MnistData
from paperbench.data.photographs import PhotographStore
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey
from paperbench.engine.seeding import generator, hashed
from paperbench.engine.transfer import to_device
from paperbench.errors import ConfigError
from paperbench.vae.config import Binarisation, FreyData

DYNAMIC, STATIC = 100, 101
"""First keys of the random streams of binarisation (see `engine.seeding`)."""

Split = Literal["train", "test"]
DataSet = DigitsData | MnistData | FreyData | FoldersData
Size = tuple[int, ...]
"""Of an image: height and width, with three channels before them where it is in colour."""
_WHITE = 255


class Pixels:
    """One split of a data set.

    Binarised pixels are drawn with the grey values as probabilities. `static`: once, the same for every run (it is not the file
    that Larochelle distributed). `dynamic`: in training whenever an image is seen, a pure function of (seed, epoch, image); in
    evaluation the static draw.
    """

    def __init__(
        self, images: ImageSet, *, split: Split, binarisation: Binarisation, divisor: int, device: torch.device
    ) -> None:
        self.name = images.name
        shape = tuple(map(int, images.images.shape[1:]))
        self.size: Size = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
        self.labels = images.labels.to(device)
        self.binarisation: Binarisation = binarisation
        self.device = device
        self._divisor = divisor
        self._grey: Tensor | None = None
        self._fixed: Tensor | PhotographStore
        if isinstance(images.images, PhotographStore):
            if binarisation != "grey":
                raise ConfigError(
                    f"binarisation={binarisation}: needs all images in memory: raise data.cache_mb, or take binarisation=grey"
                )
            self._fixed = images.images.to(device)
            return
        grey = images.images.flatten(1)
        fixed = grey if binarisation == "grey" else _binarise_once(grey, split)
        self._grey = grey.to(device) if binarisation == "dynamic" else None
        self._fixed = fixed.to(device)

    def __len__(self) -> int:
        return len(self._fixed)

    @property
    def width(self) -> int:
        """Number of pixels of an image, D."""
        return math.prod(self.size)

    def train_batch(self, key: BatchKey, *, seed: int) -> Tensor:
        """Return the images of a training step, (B, D)."""
        index = to_device(key.indices, self.device)
        if self._grey is None:
            return self._to_float(self._fixed[index].flatten(1))
        epochs = to_device(key.epochs, self.device)
        drawn = uniform(hashed(seed, DYNAMIC), index, epochs, self.width)
        return (drawn < self._grey[index].float() / _WHITE).float()

    def eval_batch(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return images `start` to `stop` for evaluation and figures, always the same, (B, D)."""
        return self._to_float(self._fixed[start:stop].flatten(1))

    def _to_float(self, rows: Tensor) -> Tensor:
        return rows.float() if self.binarisation != "grey" else rows.float().div_(self._divisor)


def _binarise_once(grey: Tensor, split: Split) -> Tensor:
    stream = generator("cpu", STATIC, ("train", "test").index(split))
    parts = [
        (torch.rand(part.shape, generator=stream) < part.float() / _WHITE).to(torch.uint8)
        for part in grey.split(10_000)
    ]
    return torch.cat(parts)


# --- from the configuration --------------------------------------------------------------------------------------------


def load(data: DataSet, split: Split, *, binarisation: Binarisation, device: torch.device) -> Pixels:
    """Load a split of the configured data set, cut to its limit, onto `device`. Raises DataError."""
    if isinstance(data, FreyData):
        images = frey.load(data.root, split, test_images=data.test_images)
        images = images.first(data.max_train_images if split == "train" else data.max_test_images)
    elif isinstance(data, FoldersData):
        images = photographs.load(data, split, channels=3 if data.colour else 1, labelled=False)
    else:
        images = labelled.load(data, split)
    return Pixels(images, split=split, binarisation=binarisation, divisor=divisor(data), device=device)


def divisor(data: DataSet) -> int:
    """Return the number that grey pixels are divided by."""
    return data.divisor if isinstance(data, FreyData) else _WHITE


def locate(data: DataSet) -> None:
    """Raise DataError if the data set is not where the configuration says; no image is read."""
    if isinstance(data, FreyData):
        frey.find(data.root)
    elif isinstance(data, FoldersData):
        photographs.locate(data, labelled=False)
    else:
        labelled.locate(data)


def describe(data: DataSet, binarisation: Binarisation) -> str:
    """Return the data set and its binarisation in words: all that two numbers must have in common to be compared."""
    if isinstance(data, FreyData):
        limits = {"training": data.max_train_images, "test": data.max_test_images}
        cuts = [f"at most {count:,} {split} images" for split, count in limits.items() if count]
        name = ", ".join([f"Frey faces, {data.test_images} of {frey.FRAMES:,} held back", *cuts])
    elif isinstance(data, FoldersData):
        name = photographs.describe(data, labelled=False)
    else:
        name = labelled.describe(data)
    meaning = {
        "grey": f"{'colour' if _is_coloured(data) else 'grey'} pixels, value / {divisor(data)}",
        "dynamic": "pixels binarised anew whenever seen (dynamic)",
        "static": "pixels binarised once (static)",
    }
    return f"{name}, {meaning[binarisation]}"


def check(data: FreyData) -> dict[str, object]:
    """Read all faces and count them, for `paperbench data check`. Raises DataError."""
    counts: dict[str, object] = {}
    for split in ("train", "test"):
        images = frey.load(data.root, split, test_images=data.test_images)
        counts[f"{split}: images"] = len(images)
        counts[f"{split}: size"] = " x ".join(map(str, images.images.shape[-2:]))
        counts[f"{split}: pixel values"] = f"{int(images.images.min())} to {int(images.images.max())}"
    return counts


def departures(data: Mapping[str, Any]) -> list[str]:
    """Return what the file of the faces has other than the published one; see `DatasetSpec.departures`. Raises DataError."""
    return frey.departures(data.get("root"))


def _is_coloured(config: DataSet) -> bool:
    return isinstance(config, FoldersData) and config.colour


def image_size(config: DataSet) -> Size:
    """Return the size of the images of a data set, which is not read."""
    if isinstance(config, FoldersData):
        return (3, config.side, config.side) if config.colour else (config.side, config.side)
    return (frey.HEIGHT, frey.WIDTH) if isinstance(config, FreyData) else (mnist.SIDE, mnist.SIDE)
