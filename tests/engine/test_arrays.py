"""Files of NumPy arrays: what goes in comes out, and every damage is one kind of error."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from paperbench.engine.arrays import read_arrays


def _npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


def _zip(content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("logits.npy", content)
    return packed.getvalue()


def test_one_array_or_several_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    np.savez(tmp_path / "a.npz", x=np.ones(2), y=np.zeros((1, 1)))
    assert read_arrays(tmp_path / "a.npy").tolist() == [0, 1, 2]  # type: ignore[union-attr]
    several = read_arrays(io.BytesIO((tmp_path / "a.npz").read_bytes()))
    assert isinstance(several, dict)
    assert {name: array.shape for name, array in several.items()} == {"x": (2,), "y": (1, 1)}
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npy")


def _strange(archive: bytes) -> bytes:
    """A zip whose member names a way of packing that nobody knows."""
    content = bytearray(archive)
    content[8] = content[content.index(b"PK\x01\x02") + 10] = 99
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,"),  # ends inside a bracket
        _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }\n"),
        _npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n"),
        _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }\n"),
        _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999,), }\n"),
        _npy(b"print(1)\n"),
        _npy(b"\xff\xfe"),
        _zip(b"no array"),
        _zip(_npy(b"{'descr': ")),
        _zip(bytes(500), zipfile.ZIP_DEFLATED)[:-30],
        _strange(_zip(bytes(500))),
    ],
    ids=range(13),
)
def test_every_damage_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\w"):
        read_arrays(path)


class _Leaves:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_nothing_in_a_file_is_executed(tmp_path: Path, ending: str) -> None:
    objects = np.array([_Leaves(tmp_path / "left")], object)
    path = tmp_path / f"objects.{ending}"
    np.save(path, objects, allow_pickle=True) if ending == "npy" else np.savez(path, x=np.ones(2), y=objects)
    with pytest.raises(ValueError, match="Object arrays"):
        read_arrays(path)
    assert not (tmp_path / "left").exists()
