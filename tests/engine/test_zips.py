"""Damage to the directory of a zip archive: every reader of one says that it is damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from paperbench.data.unpack import unpack
from paperbench.distill.executed_teachers import is_executed
from paperbench.engine.checkpoints import DamagedError, _check_archive
from paperbench.engine.export_formats import is_export
from paperbench.engine.zips import ZIP_FAULTS
from paperbench.errors import DataError


def archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("café/a.txt", "text " * 100)
        file.writestr("b.txt", "text " * 100)
    return path


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xf6\xf6"))
    with pytest.raises(UnicodeDecodeError):
        zipfile.ZipFile(path)
    assert not is_executed(path)
    assert not is_export(path)
    with pytest.raises(DamagedError):
        _check_archive(path)
    with pytest.raises(DataError, match="damaged archive"):
        unpack(path, tmp_path / "there", lambda done, total: None)


def test_other_damage_is_among_the_faults(tmp_path: Path) -> None:
    content = archive(tmp_path / "a.zip").read_bytes()
    rng = np.random.default_rng(0)
    for number in range(400):
        damaged = bytearray(content)
        for place in rng.integers(len(damaged) // 2, len(damaged), 3):
            damaged[place] = rng.integers(256)
        path = tmp_path / f"{number}.zip"
        path.write_bytes(bytes(damaged))
        try:
            with zipfile.ZipFile(path) as file:
                file.testzip()
        except (OSError, *ZIP_FAULTS):
            continue
