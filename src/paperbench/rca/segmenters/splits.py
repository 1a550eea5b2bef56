"""Splits of a set for segmenters, and their masks as files.

Some images are for training, some are segmented, some are references; no image is in two splits. Masks are files, one folder for
each stage, one mask for each image, written entirely or not at all. Two-dimensional images give PNG, volumes NIfTI with the
geometry of their image, in RAS+ axes. Equal masks give equal files: they contain no time stamp.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paperbench.data import segmentation
from paperbench.data.volumes import read_image, read_labels
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.errors import ConfigError, DataError
from paperbench.rca.cases import Image
from paperbench.rca.config import DataConfig, PhantomData
from paperbench.rca.datasets import LabelledSet, open_set, split


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Numbers of the images in `source`, by split."""

    source: LabelledSet
    training: tuple[int, ...]
    references: tuple[int, ...]
    cases: tuple[int, ...]
    calibration: tuple[int, ...]
    files: tuple[segmentation.Pair, ...]
    """Image and true mask of every number, on disk; empty for generated images."""

    @property
    def segmented(self) -> tuple[int, ...]:
        """Images that are segmented: cases and calibration images."""
        return (*self.cases, *self.calibration)

    def read(self, number: int) -> Image:
        """Read image `number` with its truth."""
        return self.source.read(number)

    def name_of(self, number: int) -> str:
        return self.source.name_of(number)

    def describe(self) -> str:
        """Describe the data in a few words."""
        calibration = f", {len(self.calibration)} to calibrate on" if self.calibration else ""
        return (
            f"{self.source.name}: {len(self.training)} training images, {len(self.cases)} to segment{calibration}, "
            f"{len(self.references)} references, none in two splits"
        )


def open_splits(config: DataConfig) -> Splits:
    """Open the set of `config`; no image is read.

    Raises ConfigError without training images or for a set that is too small, DataError for a missing one.
    """
    if config.training < 1:
        raise ConfigError(
            "data.training=0: segmenters learn from it; give at least one image, such as data.training=32"
        )
    source = open_set(config)
    numbers = split(config, source.size)
    generated = isinstance(config, PhantomData)
    return Splits(
        source=source,
        files=() if generated else tuple(segmentation.find(config.name, config.root)),
        **{name: tuple(numbers[name]) for name in numbers},
    )


def ending(splits: Splits) -> str:
    """Return the extension of the mask files: that of the images, `.nii.gz` for generated ones."""
    if not splits.files:
        return ".nii.gz"
    first: Path = splits.files[0].mask
    return ".nii.gz" if first.name.lower().endswith((".nii", ".nii.gz")) else ".png"


# --- masks ------------------------------------------------------------------------------------------------------------


Array = NDArray[np.int64] | NDArray[np.float32]
PREDICTIONS = "predictions"
"""Folder of the masks."""


class MaskFolder:
    """Masks of one segmenter at several stages, `folder/<stage>/<name of the image>`."""

    def __init__(self, folder: Path, splits: Splits) -> None:
        self.folder = folder
        self._splits = splits
        self._ending = ending(splits)

    def path(self, stage: str, number: int) -> Path:
        """Return the file of one mask, whether it exists or not."""
        return self.folder / stage / f"{self._splits.name_of(number)}{self._ending}"

    def missing(self, stage: str) -> list[int]:
        """Return the images that have no mask yet."""
        return [number for number in self._splits.segmented if not self.path(stage, number).is_file()]

    def write(self, stage: str, number: int, mask: NDArray[np.int64]) -> None:
        """Write a mask (...) on the grid of image `number`."""
        affine = None
        if self._splits.files and self._ending != ".png":
            affine = read_image(self._splits.files[number].image).affine
        write_array(self.path(stage, number), mask, affine)

    def read(self, stage: str, number: int, shape: Sequence[int]) -> NDArray[np.int64]:
        """Read the mask of an image of `shape`. Raises DataError where it is missing or has another shape."""
        path = self.path(stage, number)
        mask = read_labels(path)
        if mask.shape != tuple(shape):
            raise DataError(
                f"{path}: has the shape {mask.shape}, its image {tuple(shape)}; delete its folder and run again"
            )
        return mask.array


def write_array(path: Path, array: Array, affine: NDArray[np.float64] | None) -> None:
    """Write labels (or, as NIfTI alone, intensities) in the format of the extension. affine: (4, 4), None for PNG or for voxels of
    a millimetre."""
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _png(array) if path.name.endswith(".png") else _nifti(array, affine))


def _png(array: Array) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    kind = np.uint8 if array.max(initial=0) < 256 else np.uint16
    Image.fromarray(array.astype(kind)).save(content, format="png")
    return content.getvalue()


def _nifti(array: Array, affine: NDArray[np.float64] | None) -> bytes:
    import nibabel

    kind = np.float32 if array.dtype.kind == "f" else np.int16 if array.max(initial=0) < 2**15 else np.int32
    # A 2-D image becomes a volume of one slice: readers that permute axes expect three.
    data = array.astype(kind)[..., None] if array.ndim == 2 else array.astype(kind)
    image = nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine)
    return gzip.compress(image.to_bytes(), mtime=0)
