"""The structure of MATLAB's files of level 5, looked at before SciPy reads one: its reader, in C, crashes on some damage.

"MAT-File Format", The MathWorks, chapter 1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import prod

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Type of numbers -> bytes of each."""
_INT8, _INT32, _UINT32 = 1, 5, 6
_NUMERIC = range(6, 16)
"""Classes of arrays of numbers, from double to uint64."""
_COMPLEX = 8


def check(content: bytes, variable: str) -> None:
    """Raise ValueError where the file is damaged, or `variable` is no array of numbers. Other levels than 5 are not looked at."""
    if len(content) < _HEADER:
        raise ValueError(f"has {len(content)} bytes, fewer than a header")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if 0 in content[:4] or order is None:
        return  # level 4, or nothing that SciPy takes for level 5
    for kind, body in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            body = _unpacked(body, order)
        elif kind != _MATRIX:
            raise ValueError(f"has an element of type {kind} where a matrix is due")
        _check_matrix(body, order, variable)


def _unpacked(body: bytes, order: str) -> bytes:
    try:
        inner = list(_elements(zlib.decompress(body), order))
    except zlib.error as error:
        raise ValueError(f"its compressed part is damaged ({error})") from error
    if [kind for kind, _ in inner] != [_MATRIX]:
        raise ValueError("its compressed part is no matrix")
    return inner[0][1]


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and bytes of the elements that follow each other. Raises ValueError where one does not end."""
    place = 0
    while place < len(content):
        if place + 8 > len(content):
            raise ValueError("ends within a tag")
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # up to four bytes that share their tag's eight
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if size > 4:
                raise ValueError(f"has {size} bytes in a tag that holds 4")
        else:
            begin = place + 8
            end = begin + size if kind == _COMPRESSED else begin + -(-size // 8) * 8
        if begin + size > len(content):
            raise ValueError(f"ends {begin + size - len(content)} bytes early")
        yield kind, content[begin : begin + size]
        place = end


def _check_matrix(body: bytes, order: str, variable: str) -> None:
    parts = list(_elements(body, order))
    if len(parts) < 3 or [kind for kind, _ in parts[:3]] != [_UINT32, _INT32, _INT8] or len(parts[0][1]) != 8:
        raise ValueError("has a matrix without flags, sizes or name")
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    sizes = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1][: len(parts[1][1]) // 4 * 4])
    if len(parts[1][1]) % 4 or len(sizes) < 2 or min(sizes) < 0:
        raise ValueError(f"has a matrix of sizes {sizes}")
    name = parts[2][1].decode("latin-1")
    if flags & 0xFF not in _NUMERIC:
        if name == variable:
            raise ValueError(f"{variable} is no array of numbers")
        return
    numbers = parts[3:]
    if len(numbers) != (2 if flags >> 8 & _COMPLEX else 1):
        raise ValueError(f"{name!a} has {len(numbers)} parts with numbers")
    for kind, values in numbers:
        if kind not in _BYTES or len(values) != prod(sizes) * _BYTES[kind]:
            raise ValueError(f"{name!a} has {len(values)} bytes of type {kind} for sizes {sizes}")
