"""Pictures: what is decoded has the size that the header announces."""

from __future__ import annotations

import io
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from paperbench.data.image_files import read_header
from paperbench.data.pictures import read_picture
from tests.fuzz.damage import Rng, damaged_bytes, pick
from tests.fuzz.runs import Read

_MODES = {"PNG": ("RGB", "L", "P", "RGBA", "LA", "I;16", "1"), "JPEG": ("RGB", "L", "CMYK")}


@cache
def _content(kind: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    pixels[:12] = 200
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 16)
    elif mode != "RGB":
        image = image.convert("RGBA").convert(mode) if mode in ("RGBA", "LA") else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    image.save(content, format=kind, exif=exif)
    return content.getvalue()


def _read(kind: str, rng: Rng, folder: Path) -> None:
    path = folder / f"picture.{kind.lower()}"
    path.write_bytes(damaged_bytes(_content(kind, pick(rng, _MODES[kind])), rng))
    header = read_header(path)
    exif = pick(rng, ["apply", "ignore"])
    pixels = read_picture(path, exif=exif).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*(header.shown if exif == "apply" else header.size), 3)


TARGETS: dict[str, Read] = {"png": partial(_read, "PNG"), "jpeg": partial(_read, "JPEG")}
