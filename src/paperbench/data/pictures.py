"""Pixels of pictures as a viewer shows them: the one decoder of data sets and of `paperbench predict`.

Values of more than 8 bits are scaled by their depth, transparent pictures are laid over a ground, palettes and CMYK become
RGB. Refused by name is whatever has no one meaning: floating-point and 32-bit values, whose black and white nothing tells, and
files of several pages. The orientation that a camera writes into a file (EXIF) is applied or ignored as `exif` says: annotations
of VOC, COCO and Penn-Fudan count pixels in the order in which they are stored. A TIFF that is stored turned is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paperbench.data.image_files import failure, opened, orientation_of, verify_png

Exif = Literal["apply", "ignore"]
"""Treatment of the orientation that a camera wrote into a file."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEPTHS: Final = (8, 10, 12, 14, 16)
"""Depths that sensors have; files of 16 bits hold all of them."""
_MIN_IS_WHITE, _PHOTOMETRIC, _BITS = 0, 262, 258
_LUMA: Final = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """pixels: (H, W, 3) uint8 RGB. notes: the choices that the file left open, one clause each; empty for ordinary files."""

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def read_picture(path: Path, *, exif: Exif = "apply") -> Picture:
    """Decode a picture file. Raises BadImageError for one that is missing, damaged, or refused (see the top of this file)."""
    notes: list[str] = []
    with opened(path) as image:
        orientation = orientation_of(image)
        try:
            verify_png(path)
            pixels = _rgb(image, path, notes)
        except Exception as error:  # decoders of damaged files raise whatever their parsing stumbles over
            raise failure(path, error) from error
    if orientation != 1:
        pixels = _oriented(pixels, orientation, exif, notes)
    return Picture(pixels=pixels, notes=tuple(notes))


def decode_rgb(path: Path, *, exif: Exif = "ignore") -> NDArray[np.uint8]:
    """Pixels (H, W, 3) uint8 of `read_picture`, in the order in which they are stored unless `exif` says otherwise."""
    return read_picture(path, exif=exif).pixels


def square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return (3, side, side) from (H, W, 3): the middle square, resized."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    resized = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized).transpose(2, 0, 1)


def grey_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey levels (1, S, S) of a picture (3, S, S)."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L"))[None]


def notes_of(picture: Picture) -> dict[str, list[str]]:
    """Return the notes as `paperbench predict` answers them; nothing where there are none."""
    return {"notes": list(picture.notes)} if picture.notes else {}


def _oriented(pixels: NDArray[np.uint8], orientation: int, exif: Exif, notes: list[str]) -> NDArray[np.uint8]:
    if exif == "ignore":
        notes.append(f"EXIF orientation {orientation} ignored")
        return pixels
    notes.append(f"EXIF orientation {orientation} applied")
    return np.asarray(Image.fromarray(pixels).transpose(_TURNS[orientation]))


def _rgb(image: Image.Image, path: Path, notes: list[str]) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bits: `opened` lets no other integers through
        grey, seen = _grey(image, notes)
        return _over_ground(np.repeat(grey[..., None], 3, axis=2), seen, notes)
    sixteen = image.mode.startswith("RGB") and any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        pixels = np.array((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
        if sixteen:
            pixels[..., :3] = _by_depth(pixels[..., :3], path, notes)
        return _over_ground(pixels[..., :3], pixels[..., 3], notes)
    # A palette may have colours that RGB takes over only by way of RGBA.
    pixels = np.asarray((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))
    return _by_depth(pixels, path, notes) if sixteen else pixels


def _by_depth(pixels: NDArray[np.uint8], path: Path, notes: list[str]) -> NDArray[np.uint8]:
    """Return colours (H, W, 3) that a file keeps in 16 bits, scaled by the depth that its values need.

    pixels: the upper 8 bits, which are all that Pillow reads, and all there is to read where the values need the 16.
    """
    if pixels.max(initial=0) >= 2 ** (_DEPTHS[-2] - 8):
        return pixels
    import cv2  # it takes long to import, for few files

    values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("its colours of 16 bits cannot be read; store 8 bits")
    colours = values[..., 2::-1].astype(np.int64)
    top = int(colours.max(initial=0))
    bits = next(depth for depth in _DEPTHS if top < 2**depth)
    notes.append(f"colours up to {top} in 16 bits read as {bits} bits")
    return np.round(colours * (255 / (2**bits - 1))).astype(np.uint8)


def _grey(image: Image.Image, notes: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grey levels (H, W) in 0..255, scaled by the depth that the file names or, where it says 16, that its values need; and
    the opacity (H, W) in 0..255."""
    tags: Any = getattr(image, "tag_v2", {})
    key = image.info.get("transparency")
    values = np.asarray(image).astype(np.int64)
    bits = int(tags[_BITS][0]) if _BITS in tags else 16
    if bits == 16 and image.format != "PPM":  # a PGM names its white, which is scaled already
        top = int(values.max(initial=0))
        bits = next(depth for depth in _DEPTHS if top < 2**depth)
        if bits < 16:
            notes.append(f"grey levels up to {top} in 16 bits read as {bits} bits")
    grey = np.round(values * (255 / (2**bits - 1))).clip(0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        grey = 255 - grey
    seen = np.where(values == key, 0, 255) if isinstance(key, int) else np.full(values.shape, 255)
    return grey, seen.astype(np.uint8)


def _over_ground(pixels: NDArray[np.uint8], opacity: NDArray[np.uint8], notes: list[str]) -> NDArray[np.uint8]:
    """pixels (H, W, 3), opacity (H, W) in 0..255: laid over white, or over black where what is seen is light itself."""
    if (opacity == 255).all():
        return pixels
    weight = opacity.astype(np.float64) / 255
    seen = float((pixels @ _LUMA * weight).sum() / weight.sum()) if weight.any() else 0.0
    ground = 0 if seen > 127.5 else 255
    notes.append(f"transparent parts laid over {'white' if ground else 'black'}")
    mixed = pixels * weight[..., None] + ground * (1 - weight[..., None])
    return np.round(mixed).astype(np.uint8)
