"""Images on the device as bytes, and as what the models see: one row of D values in [0, 1] for each."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from paperbench.data import frey, labelled
from paperbench.data.classification import DigitsData, ImageSet, MnistData
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey
from paperbench.engine.seeding import generator, hashed
from paperbench.vae.config import Binarisation, FreyData

DRAW, STILL = 100, 101
"""First keys of this room's own random streams (see `engine.seeding`)."""

Split = Literal["train", "test"]
_WHITE = 255


class Pixels:
    """One split of a data set.

    Binarised pixels are drawn from the grey ones as probabilities. `static`: once, the same for every run (it is not the file
    that Larochelle distributed). `dynamic`: in training whenever an image is seen, a pure function of (seed, epoch,
    image); in evaluation the static draw.
    """

    def __init__(
        self, images: ImageSet, *, split: Split, binarisation: Binarisation, divisor: int, device: torch.device
    ) -> None:
        self.name = images.name
        self.size = (int(images.images.shape[-2]), int(images.images.shape[-1]))
        self.labels = images.labels.to(device)
        self.binarisation: Binarisation = binarisation
        self.device = device
        self._divisor = divisor
        grey = images.images.flatten(1)
        still = grey if binarisation == "grey" else _drawn_once(grey, split)
        self._grey = grey.to(device) if binarisation == "dynamic" else None
        self._still = still.to(device)

    def __len__(self) -> int:
        return len(self._still)

    @property
    def width(self) -> int:
        """D."""
        return self._still.shape[1]

    def batch(self, key: BatchKey, *, seed: int) -> Tensor:
        """The images of a step, (B, D)."""
        index = torch.from_numpy(key.indices).to(self.device)
        if self._grey is None:
            return self.floats(self._still[index])
        epochs = torch.from_numpy(key.epochs).to(self.device)
        drawn = uniform(hashed(seed, DRAW), index, epochs, self.width)
        return (drawn < self._grey[index].float() / _WHITE).float()

    def still(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Images `start` to `stop`, always the same: what is evaluated and shown, (B, D)."""
        return self.floats(self._still[start:stop])

    def floats(self, rows: Tensor) -> Tensor:
        """Bytes to [0, 1]."""
        return rows.float() if self.binarisation != "grey" else rows.float().div_(self._divisor)


def _drawn_once(grey: Tensor, split: Split) -> Tensor:
    stream = generator("cpu", STILL, ("train", "test").index(split))
    parts = [
        (torch.rand(part.shape, generator=stream) < part.float() / _WHITE).to(torch.uint8)
        for part in grey.split(10_000)
    ]
    return torch.cat(parts)


# --- from a configuration ---------------------------------------------------------------------------------------------


def load(
    data: DigitsData | MnistData | FreyData, split: Split, *, binarisation: Binarisation, device: torch.device
) -> Pixels:
    """The split of the configured data set, cut to its limit, on `device`. Raises DataError."""
    if isinstance(data, FreyData):
        images = frey.load(data.root, split, test_images=data.test_images)
        images = images.first(data.max_train_images if split == "train" else data.max_test_images)
    else:
        images = labelled.load(data, split)
    return Pixels(images, split=split, binarisation=binarisation, divisor=divisor(data), device=device)


def divisor(data: DigitsData | MnistData | FreyData) -> int:
    """What grey pixels are divided by."""
    return data.divisor if isinstance(data, FreyData) else _WHITE


def locate(data: DigitsData | MnistData | FreyData) -> None:
    """Raises DataError when the data set is not where the configuration says; reads no image."""
    if isinstance(data, FreyData):
        frey.find(data.root)
    else:
        labelled.locate(data)


def describe(data: DigitsData | MnistData | FreyData, binarisation: Binarisation) -> str:
    """The data set and what its pixels became: everything that two numbers must have in common to be compared."""
    if isinstance(data, FreyData):
        limits = [f"at most {n:,} {what}" for n, what in _limits(data) if n]
        what = ", ".join([f"Frey faces, {data.test_images} of {frey.FRAMES:,} held back", *limits])
    else:
        what = labelled.describe(data)
    meaning = {
        "grey": f"grey pixels, value / {divisor(data)}",
        "dynamic": "pixels binarised anew whenever seen (dynamic)",
        "static": "pixels binarised once (static)",
    }
    return f"{what}, {meaning[binarisation]}"


def _limits(data: FreyData) -> tuple[tuple[int, str], ...]:
    return (data.max_train_images, "training images"), (data.max_test_images, "test images")


def check(data: FreyData) -> dict[str, object]:
    """For `paperbench data check`: reads the faces in whole and counts them. Raises DataError."""
    counts: dict[str, object] = {}
    for split in ("train", "test"):
        images = frey.load(data.root, split, test_images=data.test_images)
        counts[f"{split}: images"] = len(images)
        counts[f"{split}: size"] = " x ".join(map(str, images.images.shape[-2:]))
        counts[f"{split}: pixel values"] = f"{int(images.images.min())} to {int(images.images.max())}"
    return counts
