"""Image files: their size and orientation from the header, a cheap check for truncation, and the values of masks.

`data.pictures` decodes them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paperbench.engine.processors import usable_cores
from paperbench.engine.torchrun import processes_here
from paperbench.errors import DataError

MISSING: Final = "missing image"
TRUNCATED: Final = "truncated image"
UNREADABLE: Final = "unreadable image"

_ENDS: Final = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82"}
READERS: Final = max(2, min(8, usable_cores() // processes_here()))
"""Threads that read files: one for each core that is this process's share of those it may use, at least two, of which one decodes
while the other waits for a disk, and at most eight: Pillow gives up the interpreter's lock for a part of its work only. What that
is and what it means for a GPU stands in docs/devices.md."""


class BadImageError(DataError):
    """An image that cannot be used; `reason` is one of `MISSING`, `TRUNCATED`, `UNREADABLE`."""

    def __init__(self, path: Path, reason: str, detail: str = "") -> None:
        self.path, self.reason, self.detail = path, reason, detail
        super().__init__(f"{path}: {reason}" + (f": {detail}" if detail else ""))


@dataclass(frozen=True, kw_only=True)
class Header:
    """Height and width as stored, and the EXIF orientation: 1 for upright, 5 to 8 for those that exchange height and width."""

    height: int
    width: int
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as stored."""
        return self.height, self.width

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of the upright picture."""
        return (self.width, self.height) if self.orientation >= 5 else self.size


def failure(path: Path, error: Exception) -> BadImageError:
    """Return what a reader raised, as the error of this file."""
    if isinstance(error, BadImageError):
        return error
    if isinstance(error, FileNotFoundError):
        return BadImageError(path, MISSING)
    text = str(error)
    empty = _is_empty(path)
    if "truncated" in text.lower() or empty:
        return BadImageError(path, TRUNCATED, "the file is empty" if empty else text)
    return BadImageError(path, UNREADABLE, _foreign(path) or text or type(error).__name__)


def _foreign(path: Path) -> str:
    """Name a file that is no picture, or one of a format that is not read here; empty for all others."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except (OSError, ValueError):  # such as a name with a null byte
        return ""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return "a picture of a phone (HEIC), which is not read here; convert it to JPEG or PNG"
    if head.lstrip().lower().startswith((b"<html", b"<!doctype html")):
        return "a web page and no picture; download it again"
    return ""


_HEIF: Final = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})


def _is_empty(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size == 0
    except OSError:  # such as a name that is too long
        return False


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image whose pixels have one meaning, without decoding it. Raises BadImageError for any other file."""
    try:
        image = Image.open(path)
    except Exception as error:  # headers of damaged files make PIL raise nearly anything
        raise failure(path, error) from error
    with image:
        try:
            refusal = _refusal(image)
        except Exception as error:
            raise failure(path, error) from error
        if refusal:
            raise BadImageError(path, UNREADABLE, refusal)
        yield image


def _refusal(image: Image.Image) -> str:
    """Return why the pixels of an image have no one meaning, and the remedy; empty where they have one."""
    pages = pages_of(image)
    if pages > 1:
        return f"it holds {pages} pages or frames; store each as a file of its own"
    # A grey PNG or PGM of 16 bits has mode I in some versions of PIL.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        return f"its values are {kind} numbers, which do not say what is black and white; store 8 or 16 bits"
    tags: Any = getattr(image, "tag_v2", {})
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        return "its values are signed numbers, which do not say what is black and white; store 8 or 16 bits"
    if tags.get(_PLANAR) == _APART and tags.get(_CHANNELS, 1) > 1 and max(tags.get(_BITS, (1,))) > 8:
        return "its colours of 16 bits are stored apart (planar), which is not read here; store them side by side"
    if image.format == "TIFF" and image.getexif().get(_ORIENTATION, 1) != 1:
        return "it is a TIFF that is stored turned, which readers treat differently; store it upright"
    return ""


def pages_of(image: Image.Image) -> int:
    """Return the number of pages or frames, without the previews that phones and pyramids keep beside the picture."""
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":
        return 1
    if image.format != "TIFF":
        return count
    tags: Any = image
    pages = 0
    for page in range(count):
        image.seek(page)
        pages += not tags.tag_v2.get(_SUBFILE, 0) & 1
    image.seek(0)
    return pages


def verify_png(path: Path) -> None:
    """Raise BadImageError for a PNG whose pixels are damaged: Pillow does not compare the checksums of their chunks.

    A file of another format passes, and a PNG with damage to what only describes it.
    """
    content = path.read_bytes()
    if not content.startswith(_PNG):
        return
    place = len(_PNG)
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kind = content[place + 4 : place + 8]
        end = place + 8 + length
        if end + 4 > len(content):
            raise BadImageError(path, TRUNCATED, "the file ends within a chunk")
        pixels = kind[:1].isupper() or kind == b"tRNS"
        if pixels and zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise BadImageError(
                path, UNREADABLE, f"damaged: the checksum of its chunk {kind.decode('ascii', 'replace')} is wrong"
            )
        if kind == b"IEND":
            return
        place = end + 4
    raise BadImageError(path, TRUNCATED, "the file ends before its last chunk")


_PNG: Final = b"\x89PNG\r\n\x1a\n"


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, of an image that is not decoded yet; 1 where there is none or it cannot be read."""
    # A PNG without the block would be decoded in search of one behind its pixels, and damage to these be lost.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged block of metadata says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_ORIENTATION: Final = 0x0112
_SUBFILE: Final = 254
_BITS, _CHANNELS, _PLANAR, _SAMPLE_FORMAT = 258, 277, 284, 339
_APART, _SIGNED = 2, 2


def inspect(path: Path) -> tuple[int, int]:
    """Height and width of `read_header`."""
    return read_header(path).size


def read_header(path: Path) -> Header:
    """Size and orientation from the header. A JPEG or PNG that does not end as its format does is decoded to make sure.

    Raises BadImageError, also for an image that `data.pictures` would refuse.
    """
    with opened(path) as image:
        width, height = image.size
        try:
            orientation = orientation_of(image)
            ending = _ENDS.get(image.format or "")
            if ending is not None:
                with path.open("rb") as file:
                    file.seek(-len(ending), os.SEEK_END)
                    if file.read() != ending:
                        image.load()
        except Exception as error:
            raise failure(path, error) from error
    return Header(height=height, width=width, orientation=orientation)


def inspect_all(paths: Sequence[Path]) -> list[Header | BadImageError]:
    """`read_header` of many files at once; the error of a faulty one is in the place of its header."""

    def one(path: Path) -> Header | BadImageError:
        try:
            return read_header(path)
        except BadImageError as fault:
            return fault

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(one, paths))


def decode_values(path: Path) -> NDArray[np.int64]:
    """The stored values (H, W) of an image of one channel, such as a mask; palettes are not looked up. Raises BadImageError."""
    with opened(path) as image:
        try:
            verify_png(path)
            values = np.asarray(image)
        except Exception as error:
            raise failure(path, error) from error
    if values.ndim != 2:
        raise BadImageError(path, UNREADABLE, f"{values.shape[2]} channels where one was expected")
    return values.astype(np.int64)
