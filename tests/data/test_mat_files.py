"""MATLAB files that are damaged in one byte: each is read or refused, and none ends the process, as SciPy's reader may."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from paperbench.data import frey, mat_files
from paperbench.errors import DataError

PIXELS = np.arange(560 * 6).reshape(560, 6) % 251


def content(compressed: bool = False, **variables: object) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables or {"ff": PIXELS.astype(np.uint8)}, do_compression=compressed)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_one_damaged_byte_is_read_or_refused(tmp_path: Path, compressed: bool) -> None:
    whole, path = content(compressed), tmp_path / "frey_rawface.mat"
    read = 0
    for place in range(124, 200):
        for value in (0, 1, 2, 9, 15, 17, 127, 128, 255):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                read += frey.read(path).shape == (6, 28, 20)
            except DataError:
                continue
    assert read > 0


@pytest.mark.parametrize("compressed", [False, True])
def test_sound_files_pass(compressed: bool) -> None:
    numbers = {"a": np.eye(3), "b": np.ones((2, 2, 2), np.float32) * 1j, "c": np.zeros((0, 4), np.int16)}
    others = {"names": np.array(["x", "yy"], object), "text": "abc", "one": {"field": 1.0}}
    mat_files.check(content(compressed, **numbers, **others), "a")
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"ff": PIXELS}, format="4")
    mat_files.check(stream.getvalue(), "ff")


def test_a_variable_of_another_kind_is_named() -> None:
    with pytest.raises(ValueError, match="ff is no array of numbers"):
        mat_files.check(content(ff="letters"), "ff")
