"""Images and label maps of two and three dimensions: NIfTI through nibabel, everything else through Pillow.

A NIfTI file is brought to the axes of the patient (RAS+) by flips and permutations alone, no value is interpolated; an axis
of length 1 is dropped. Shapes are those of the array: `(rows, columns)` of a picture, `(x, y[, z])` of NIfTI.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from paperbench.errors import DataError

NIFTI: Final = (".nii", ".nii.gz")
PICTURES: Final = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
ENDINGS: Final = (*NIFTI, *PICTURES)

SAME_PLACE: Final = 0.01
"""Two grids are one when no corner lies farther apart than this share of a voxel: headers hold 32-bit numbers."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An array with its place in space. `affine` (4, 4) takes voxel indices to millimetres; None for a picture."""

    array: NDArray[Any]
    spacing: tuple[float, ...]
    """Millimetres along each axis of `array`; 1 for a picture, whose unit is then the pixel."""
    affine: NDArray[np.float64] | None
    header: str
    """The geometry as its file states it, for messages."""
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


def stem(path: Path) -> str | None:
    """The file's name without the ending of an image; None if it is none of ours."""
    name = path.name
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), None)
    return None if ending is None or name.startswith(".") else name[: -len(ending)]


def read_image(path: Path) -> Volume:
    """Intensities as float32; colours become grey. Raises DataError for what is unreadable, empty or not finite."""
    volume = _read(path, colour=True)
    image = np.ascontiguousarray(volume.array, np.float32)
    if not np.isfinite(image).all():
        raise DataError(f"{path}: holds {int((~np.isfinite(image)).sum()):,} values that are not finite; replace them")
    return replace(volume, array=image)


def read_labels(path: Path) -> Volume:
    """Labels as int64. Raises DataError for fractions, negative values, colours and what is unreadable."""
    volume = _read(path, colour=False)
    values = volume.array
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.rint(np.nan_to_num(values)))
        if not whole.all():
            raise DataError(
                f"{path}: holds {values[~whole].flat[0]:g}, but labels are whole numbers; "
                "a map of probabilities must be decided first"
            )
    if values.min() < 0:
        raise DataError(f"{path}: holds the label {values.min():g}; labels are 0 (background) and above")
    return replace(volume, array=np.ascontiguousarray(values).astype(np.int64))


def _read(path: Path, *, colour: bool) -> Volume:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    volume = _read_nifti(path) if path.name.lower().endswith(NIFTI) else _read_picture(path, colour=colour)
    if volume.array.ndim not in (2, 3) or volume.array.size == 0 or min(volume.shape) < 2:
        raise DataError(
            f"{path}: has the shape {_times(volume.shape)}; images of two or three dimensions can be judged"
        )
    return volume


def _read_nifti(path: Path) -> Volume:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        loaded = cast(Any, nibabel.load(path))
        header = describe_header(loaded)
        image = nibabel.as_closest_canonical(loaded)
        array = np.asarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as NIfTI: {error}") from error
    affine = np.asarray(image.affine, np.float64)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 3:
        raise DataError(f"{path}: has the shape {_times(array.shape)}, several volumes in one file; give one of them")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[: array.ndim]
    if not np.isfinite(affine).all() or (spacing <= 0).any():
        raise DataError(f"{path}: its header gives no usable place in space: {header}")
    used = [axis for axis, length in enumerate(array.shape) if length > 1]
    if len(used) == 2:
        array = array.reshape([array.shape[axis] for axis in used])
        order = [*used, *(axis for axis in range(3) if axis not in used)]
        affine = affine[:, [*order, 3]]
        spacing = np.linalg.norm(affine[:3, :2], axis=0)
    return Volume(array=array, spacing=tuple(map(float, spacing)), affine=affine, header=header, source=str(path))


def describe_header(image: Any) -> str:
    """Shape, spacing, origin and codes of a NIfTI header in one line; a qform that contradicts the sform is mentioned."""
    header, affine = image.header, image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    text = (
        f"shape {_times(image.shape)}, spacing {_numbers(spacing)} mm, origin {_numbers(affine[:3, 3])} mm, "
        f"axes {''.join(_axes(affine))}"
    )
    qform, q_code = header.get_qform(coded=True) if hasattr(header, "get_qform") else (None, 0)
    sform, s_code = header.get_sform(coded=True) if hasattr(header, "get_sform") else (None, 0)
    if qform is not None and sform is not None:
        text += f", from the {'sform' if s_code else 'qform' if q_code else 'voxel sizes'}"
        if not np.allclose(qform, sform, atol=1e-3):
            text += f" (its qform differs: origin {_numbers(qform[:3, 3])} mm)"
    return text


def _axes(affine: NDArray[np.float64]) -> tuple[str, ...]:
    from nibabel.orientations import aff2axcodes

    return tuple(str(code) for code in aff2axcodes(affine))


def _read_picture(path: Path, *, colour: bool) -> Volume:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("RGB", "RGBA", "LA", "CMYK", "YCbCr") or (colour and image.mode == "P"):
                if not colour:
                    raise DataError(f"{path}: a mask in colour ({image.mode}); labels are values of one channel")
                image = image.convert("L")
            array = np.array(image)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
    array = array.astype(np.uint8) if array.dtype == np.bool_ else array
    header = f"shape {_times(array.shape)}, a picture without a place in space"
    return Volume(array=array, spacing=(1.0,) * array.ndim, affine=None, header=header, source=str(path))


# --- geometry ---------------------------------------------------------------------------------------------------------


def on_grid_of(image: Volume, mask: Volume, *, resample: bool = False) -> NDArray[np.int64]:
    """The labels of `mask` on the voxels of `image`.

    Raises DataError naming both headers where the two grids differ by more than `SAME_PLACE`; with `resample` the labels are
    brought over instead, by nearest neighbour, and are 0 where the mask does not reach.
    """
    if same_place(image, mask):
        return mask.array
    if resample and mask.array.ndim == image.array.ndim and (mask.affine is None) == (image.affine is None):
        return _resampled(image, mask)
    remedy = (
        "a picture cannot be laid over a volume"
        if resample
        else "correct the files, or have the masks laid over the images: resample=true"
    )
    raise DataError(
        f"{mask.source}: lies elsewhere than its image {image.source}\n  mask:  {mask.header}\n"
        f"  image: {image.header}\n  {remedy}"
    )


def same_place(one: Volume, other: Volume) -> bool:
    """Return True if both are the same voxels: equal shapes, and corners within `SAME_PLACE` of a voxel."""
    if one.shape != other.shape or (one.affine is None) != (other.affine is None):
        return False
    if one.affine is None or other.affine is None:
        return True
    ends = [*((0, length - 1) for length in one.shape), *[(0,)] * (3 - one.array.ndim)]
    corners = np.array([(*corner, 1.0) for corner in product(*ends)])
    apart = np.linalg.norm(corners @ (one.affine - other.affine).T, axis=1)
    return bool(apart.max() <= SAME_PLACE * min(one.spacing))


def _resampled(image: Volume, mask: Volume) -> NDArray[np.int64]:
    from scipy.ndimage import affine_transform

    dims = image.array.ndim
    if image.affine is None or mask.affine is None:
        scale = np.array(mask.shape) / np.array(image.shape)
        matrix, offset = np.diag(scale), scale / 2 - 0.5
    else:
        whole = np.linalg.inv(mask.affine) @ image.affine
        matrix, offset = whole[:dims, :dims], whole[:dims, 3]
    # SciPy's stubs know a single offset only; one an axis is what it documents.
    shift = cast(Any, offset)
    out = affine_transform(mask.array, matrix, shift, output_shape=image.shape, order=0, mode="grid-constant", cval=0)
    return np.asarray(out, np.int64)


def _numbers(values: Sequence[float] | NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{float(value):.6g}" for value in values) + ")"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
