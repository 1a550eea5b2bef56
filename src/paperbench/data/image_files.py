"""Image files: their size from the header, a cheap check for truncation, and pixels.

Orientation tags (EXIF) are not applied: VOC, COCO and Penn-Fudan annotate pixels in the order in which they are stored.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paperbench.errors import DataError

MISSING: Final = "missing image"
TRUNCATED: Final = "truncated image"
UNREADABLE: Final = "unreadable image"

_ENDS: Final = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82"}
READERS: Final = min(8, 2 * (os.cpu_count() or 1))
"""Threads that read files; PIL gives up the interpreter's lock while it decodes."""


class BadImageError(DataError):
    """An image that cannot be used; `reason` is one of `MISSING`, `TRUNCATED`, `UNREADABLE`."""

    def __init__(self, path: Path, reason: str, detail: str = "") -> None:
        self.path, self.reason, self.detail = path, reason, detail
        super().__init__(f"{path}: {reason}" + (f": {detail}" if detail else ""))


def _failed(path: Path, error: Exception) -> BadImageError:
    if isinstance(error, FileNotFoundError):
        return BadImageError(path, MISSING)
    text = str(error)
    if "truncated" in text.lower() or (path.is_file() and path.stat().st_size == 0):
        return BadImageError(path, TRUNCATED, text if path.stat().st_size else "the file is empty")
    return BadImageError(path, UNREADABLE, text or type(error).__name__)


# What PIL raises for damaged files: OSError for most, SyntaxError for broken PNG chunks, ValueError and struct errors rarely.
_DAMAGE: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def inspect(path: Path) -> tuple[int, int]:
    """Height and width from the header. A JPEG or PNG that does not end as its format does is decoded to make sure.

    Raises BadImageError.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            ending = _ENDS.get(image.format or "")
            if ending is not None:
                with path.open("rb") as file:
                    file.seek(-len(ending), os.SEEK_END)
                    if file.read() != ending:
                        image.load()
    except _DAMAGE as error:
        raise _failed(path, error) from error
    return height, width


def inspect_all(paths: Sequence[Path]) -> list[tuple[int, int] | BadImageError]:
    """`inspect` many files at once; the error of a faulty one is in the place of its size."""

    def one(path: Path) -> tuple[int, int] | BadImageError:
        try:
            return inspect(path)
        except BadImageError as fault:
            return fault

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(one, paths))


def decode_rgb(path: Path) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) uint8; grey, palette and CMYK images are converted, transparency is ignored. Raises BadImageError."""
    try:
        with Image.open(path) as image:
            if image.mode == "P":  # a palette may carry transparency, which RGB alone cannot take over
                image = image.convert("RGBA")
            return np.asarray(image.convert("RGB"))
    except _DAMAGE as error:
        raise _failed(path, error) from error


def decode_values(path: Path) -> NDArray[np.int64]:
    """The stored values (H, W) of an image of one channel, such as a mask; palettes are not looked up. Raises BadImageError."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except _DAMAGE as error:
        raise _failed(path, error) from error
    if values.ndim != 2:
        raise BadImageError(path, UNREADABLE, f"{values.shape[2]} channels where one was expected")
    return values.astype(np.int64)
