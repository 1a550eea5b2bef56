"""The Frey faces, from files of the published form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from paperbench.data import frey
from paperbench.errors import ConfigError, DataError
from tests.data.files import write_frey


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve frames."""
    return write_frey(tmp_path)


def test_columns_are_frames_row_by_row(root: Path) -> None:
    frames = frey.read(frey.find(root))
    assert frames.shape == (12, 28, 20)
    assert frames[3, 5, 7] == 3 + 5 + 7
    assert frey.find(root / "frey") == frey.find(root)


def test_splits_are_disjoint_and_the_same_for_ever(root: Path) -> None:
    train, test = (frey.load(root, split, test_images=4) for split in ("train", "test"))
    assert (len(train), len(test)) == (8, 4)
    assert train.images.shape == (8, 28, 20)
    first = [int(image[0, 0]) for image in [*train.images, *test.images]]
    assert sorted(first) == list(range(12))
    assert first[8:] == [int(image[0, 0]) for image in frey.load(root, "test", test_images=4).images]
    assert train.classes == ("face",)


def test_nothing_left_to_train_on_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test_images=12: there are 12 frames"):
        frey.load(root, "train", test_images=12)
    with pytest.raises(ValueError, match="'train' or 'test'"):
        frey.load(root, "val", test_images=2)  # type: ignore[arg-type]


def test_an_absent_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as missing:
        frey.find(tmp_path)
    assert "no data set 'frey' here" in str(missing.value)
    assert "roweis" in str(missing.value)


def test_damage_is_named(root: Path) -> None:
    file = root / "frey" / "frey_rawface.mat"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"nothing of the kind", b""):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"frey_rawface\.mat: no sound MATLAB file"):
            frey.read(file)
    for variables, said in (
        ({"faces": np.zeros((560, 3), np.uint8)}, "has no variable ff; it has faces"),
        ({"ff": np.zeros((3, 560), np.uint8)}, "ff is 3 x 560, not 560 x frames"),
        ({"ff": np.zeros((560, 3))}, "ff holds float64, not bytes"),
    ):
        scipy.io.savemat(file, variables)
        with pytest.raises(DataError, match=said):
            frey.read(file)
