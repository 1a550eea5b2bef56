"""Images and label maps of two and three dimensions: volumes by `volume_files`, pictures through Pillow.

What cannot be taken as it stands is refused with its cause: several pages, a stored orientation, masks in colour or as JPEG.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.data.grids import Volume, times
from paperbench.data.image_files import orientation_of, pages_of, verify_png
from paperbench.data.pictures import read_picture
from paperbench.data.volume_files import VOLUMES, read_volume
from paperbench.errors import DataError

PICTURES: Final = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
ENDINGS: Final = (*VOLUMES, *PICTURES)

_LOSSY: Final = ("JPEG", "MPO", "JPEG2000", "WEBP")
_COLOURS: Final = ("RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBa", "La", "RGBX")

ROUNDED: Final = 1e-4
"""Labels of files without a slope may differ by this from whole numbers: conversions compute in 32 bits."""
ROUNDED_BY_SLOPE: Final = 1e-3
"""Labels that a header's slope made of stored numbers may differ by this, or by half of the slope where that is small."""


def stem(path: Path) -> str | None:
    """The file's name without the ending of an image; None if it is none of ours."""
    name = path.name
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), None)
    return None if ending is None or name.startswith(".") else name[: -len(ending)]


def read_image(path: Path) -> Volume:
    """Intensities as float32; colours become grey. Raises DataError for what is unreadable, empty or not finite."""
    volume = _read(path, labels=False)
    image = np.ascontiguousarray(volume.array, np.float32)
    if not np.isfinite(image).all():
        raise DataError(f"{path}: holds {int((~np.isfinite(image)).sum()):,} values that are not finite; replace them")
    return replace(volume, array=image)


def read_labels(path: Path) -> Volume:
    """Labels as int64. Raises DataError for fractions, negative values, colours, JPEG and what is unreadable."""
    volume = _read(path, labels=True)
    values = _whole(path, volume.array, volume.slope) if volume.array.dtype.kind == "f" else volume.array
    if values.min() < 0:
        raise DataError(f"{path}: holds the label {values.min():g}; labels are 0 (background) and above")
    if values.max() > np.iinfo(np.int64).max:
        raise DataError(f"{path}: holds the label {values.max():g}; labels are small numbers")
    return replace(volume, array=np.ascontiguousarray(values).astype(np.int64))


def _whole(path: Path, values: NDArray[Any], slope: float) -> NDArray[Any]:
    """Return labels that a header's slope or a conversion left beside whole numbers, rounded. Raises DataError for others."""
    exact = values.astype(np.float64)
    finite = np.isfinite(exact)
    rounded = np.rint(np.where(finite, exact, 0.0))
    allowed = ROUNDED if slope == 1.0 else max(ROUNDED_BY_SLOPE, min(abs(slope) / 2, 10 * ROUNDED_BY_SLOPE))
    whole = finite & (np.abs(exact - rounded) <= allowed)
    if not whole.all():
        by_slope = "" if slope == 1.0 else f" (stored numbers times the slope {slope:g} of its header)"
        raise DataError(
            f"{path}: holds {exact[~whole].flat[0]:g}{by_slope}, but labels are whole numbers; "
            "a map of probabilities must be decided first"
        )
    return rounded


def _read(path: Path, *, labels: bool) -> Volume:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    name = path.name.lower()
    volume = read_volume(path) if name.endswith(VOLUMES) else _read_picture(path, labels=labels)
    if volume.array.ndim not in (2, 3) or volume.array.size == 0 or min(volume.shape) < 2:
        raise DataError(f"{path}: has the shape {times(volume.shape)}; images of two or three dimensions can be judged")
    return volume


def _read_picture(path: Path, *, labels: bool) -> Volume:
    from PIL import Image

    try:
        with Image.open(path) as image:
            _refuse_picture(path, image, labels=labels)
            verify_png(path)
            coloured = image.mode in _COLOURS or (image.mode == "P" and not labels)
            array = None if coloured else np.array(image)
    except DataError:
        raise
    except Exception as error:  # decoders of damaged files raise whatever their parsing stumbles over
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image: {text}") from error
    notes: tuple[str, ...] = ()
    if array is None:
        picture = read_picture(path)
        array, notes = np.array(Image.fromarray(picture.pixels).convert("L")), picture.notes
    array = array.astype(np.uint8) if array.dtype == np.bool_ else array
    header = f"shape {times(array.shape)}, a picture without a place in space"
    return Volume(array=array, spacing=(1.0,) * array.ndim, affine=None, header=header, source=str(path), notes=notes)


def _refuse_picture(path: Path, image: Any, *, labels: bool) -> None:
    if (pages := pages_of(image)) > 1:
        raise DataError(
            f"{path}: holds {pages} pages; store each as a file of its own, or a stack of slices as NIfTI, which has a spacing"
        )
    turned = image.getexif().get(_ORIENTATION, 1) if image.format == "TIFF" else orientation_of(image)
    if turned != 1:
        raise DataError(
            f"{path}: is stored turned (EXIF orientation {turned}), and programs differ in whether a mask is of the stored or of "
            "the upright pixels; store it upright"
        )
    if labels and image.format in _LOSSY:
        raise DataError(
            f"{path}: a mask as {image.format}, which changes values near edges, so that its labels are not those that were "
            "drawn; store masks as PNG, TIFF or NIfTI"
        )
    if labels and image.mode in _COLOURS:
        raise DataError(f"{path}: a mask in colour ({image.mode}); labels are values of one channel")


_ORIENTATION: Final = 0x0112
