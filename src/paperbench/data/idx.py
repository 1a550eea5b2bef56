"""IDX files of unsigned bytes, the format of MNIST and of sets made like it, and the places where they are found."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paperbench.errors import DataError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"

_UNSIGNED_BYTE: Final = 8
_GZIP: Final = b"\x1f\x8b"


def find_idx(folders: Sequence[Path], prefix: str) -> tuple[Path, Path] | None:
    """Return the files of images and of labels of `prefix`, both in the first folder that has them; None where none does.

    A file may be packed, and named with a dot in place of the second hyphen, as some programs unpack it; some archives unpack
    into a folder of the file's name.
    """
    for folder in folders:
        files = [_file(folder, f"{prefix}-{kind}") for kind in (IMAGES, LABELS)]
        if files[0] is not None and files[1] is not None:
            return files[0], files[1]
    return None


def _file(folder: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    names = (name, f"{name}.gz", dotted, f"{dotted}.gz", f"{name}/{name}", f"{dotted}/{dotted}", f"{name}/{dotted}")
    return next((path for path in map(folder.joinpath, names) if path.is_file()), None)


def read_idx(path: Path, *, dimensions: int, remedy: str) -> NDArray[np.uint8]:
    """A writable array from an IDX file: magic 0, 0, 8, dimensions, then big-endian sizes, then the bytes; packed with gzip or not.

    Raises DataError naming the file when it cannot be read or its content is not what its header announces; `remedy` closes the
    message.
    """
    content = _content(path, remedy)
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise DataError(
            f"{path}: no IDX file of {dimensions} dimensions of bytes (it begins with {content[:4].hex() or 'nothing'}); {remedy}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    announced = 1
    for length in shape:
        announced *= length  # of any size: a damaged header may announce more than 64 bits hold
    if len(content) - start != announced:
        sizes = " x ".join(map(str, shape))
        raise DataError(f"{path}: holds {len(content) - start} values, its header announces {sizes}; {remedy}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _content(path: Path, remedy: str) -> bytes:
    """Return the file, unpacked where its content is packed, whatever its name."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP) or (path.suffix == ".gz" and raw[:2] != b"\0\0") else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file: {error}; {remedy}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def digest(path: Path, remedy: str = "") -> str:
    """Return the MD5 sum of the unpacked content, by which the published files are known."""
    state = path.stat()
    return _digest(path, remedy, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=32)
def _digest(path: Path, remedy: str, _changed: int, _size: int) -> str:
    return hashlib.md5(_content(path, remedy), usedforsecurity=False).hexdigest()
