"""Which images teach, which are segmented, and which are references: shares of one set, no image in two of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paperbench.data import segmentation
from paperbench.errors import ConfigError
from paperbench.rca.cases import Picture
from paperbench.rca.config import DataConfig, PhantomData
from paperbench.rca.generated import LabelledSet, open_set, parts


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Numbers of images in `source`, by what they are for."""

    source: LabelledSet
    training: tuple[int, ...]
    references: tuple[int, ...]
    cases: tuple[int, ...]
    calibration: tuple[int, ...]
    files: tuple[segmentation.Pair, ...]
    """Image and true mask of every number, on disk; empty for what is generated."""

    @property
    def segmented(self) -> tuple[int, ...]:
        """Images that are segmented: those that are judged, and those that calibrate."""
        return (*self.cases, *self.calibration)

    def read(self, number: int) -> Picture:
        """Image `number` with its truth."""
        return self.source.read(number)

    def name_of(self, number: int) -> str:
        return self.source.name_of(number)

    def describe(self) -> str:
        """The data in a few words."""
        calibration = f", {len(self.calibration)} to calibrate on" if self.calibration else ""
        return (
            f"{self.source.name}: {len(self.training)} images to learn from, {len(self.cases)} to segment{calibration}, "
            f"{len(self.references)} references, none in two of these"
        )


def shares(config: DataConfig) -> Shares:
    """The shares that `config` asks for. Raises ConfigError where none teach or the set is too small, DataError where it is
    not there."""
    if config.training < 1:
        raise ConfigError(
            "data.training=0: segmenters learn from it; give at least one image, such as data.training=32"
        )
    source = open_set(config)
    split = parts(config, source.size)
    generated = isinstance(config, PhantomData)
    return Shares(
        source=source,
        files=() if generated else tuple(segmentation.find(config.name, config.root)),
        **{part: tuple(numbers) for part, numbers in split.items()},
    )


def ending(shares: Shares) -> str:
    """The ending of the masks' files: that of the images, `.nii.gz` for what is generated."""
    if not shares.files:
        return ".nii.gz"
    first: Path = shares.files[0].mask
    return ".nii.gz" if first.name.lower().endswith((".nii", ".nii.gz")) else ".png"
