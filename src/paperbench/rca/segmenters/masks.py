"""Predicted masks as files: a folder a stage, a mask under the name of its image, whole or not at all.

Pictures give PNG, volumes NIfTI with the geometry of their image, as the patient's axes have it (RAS+). Files of equal masks are
equal: nothing of the clock is in them.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paperbench.data.volumes import read_image, read_labels
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.errors import DataError
from paperbench.rca.segmenters.shares import Shares, ending

Array = NDArray[np.int64] | NDArray[np.float32]


class MaskFolder:
    """Masks of one segmenter at several stages, `folder/<stage>/<name of the image>`."""

    def __init__(self, folder: Path, shares: Shares) -> None:
        self.folder = folder
        self._shares = shares
        self._ending = ending(shares)

    def path(self, stage: str, number: int) -> Path:
        """The file of one mask, whether or not it is there."""
        return self.folder / stage / f"{self._shares.name_of(number)}{self._ending}"

    def missing(self, stage: str) -> list[int]:
        """Images that have no mask yet."""
        return [number for number in self._shares.segmented if not self.path(stage, number).is_file()]

    def write(self, stage: str, number: int, mask: NDArray[np.int64]) -> None:
        """Keeps a mask (...) on the voxels of image `number`."""
        affine = None
        if self._shares.files and self._ending != ".png":
            affine = read_image(self._shares.files[number].image).affine
        write_array(self.path(stage, number), mask, affine)

    def read(self, stage: str, number: int, shape: Sequence[int]) -> NDArray[np.int64]:
        """The mask of an image of `shape`. Raises DataError where there is none, or one of another image."""
        path = self.path(stage, number)
        mask = read_labels(path)
        if mask.shape != tuple(shape):
            raise DataError(
                f"{path}: has the shape {mask.shape}, its image {tuple(shape)}; take its folder away, and it is made anew"
            )
        return mask.array


def write_array(path: Path, array: Array, affine: NDArray[np.float64] | None) -> None:
    """Labels (or, as NIfTI alone, intensities) in the format that the ending says. `affine` (4, 4) None is a picture, or voxels
    of a millimetre."""
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
    # A picture becomes a volume of one slice: readers that turn axes expect three.
    data = array.astype(kind)[..., None] if array.ndim == 2 else array.astype(kind)
    image = nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine)
    return gzip.compress(image.to_bytes(), mtime=0)
