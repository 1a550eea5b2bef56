"""JSRT and the hippocampus volumes: found by name, every missing part named."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.data.segmentation import find
from paperbench.errors import DataError


def place(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def test_images_and_masks_are_paired_by_name(tmp_path: Path) -> None:
    place(tmp_path, *(f"Task04_Hippocampus/{part}/h_{k}.nii.gz" for part in ("imagesTr", "labelsTr") for k in (2, 1)))
    place(tmp_path, "Task04_Hippocampus/imagesTr/._h_1.nii.gz", "Task04_Hippocampus/dataset.json")
    pairs = find("hippocampus", str(tmp_path))
    assert [pair.name for pair in pairs] == ["h_1", "h_2"]
    assert pairs[0].mask == tmp_path / "Task04_Hippocampus/labelsTr/h_1.nii.gz"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder JSRT/images"):
        find("jsrt", str(tmp_path))
    place(tmp_path, "JSRT/images/a.png", "JSRT/images/b.png", "JSRT/masks/a.png")
    with pytest.raises(DataError, match="1 files have no counterpart in the other of images and masks: b"):
        find("jsrt", str(tmp_path))
