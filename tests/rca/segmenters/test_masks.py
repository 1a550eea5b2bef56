"""Masks as files: what is written is read again on the voxels of its image, and equal masks are equal files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paperbench.data.volumes import on_grid_of, read_image, read_labels
from paperbench.errors import DataError
from paperbench.rca.segmenters.masks import MaskFolder, write_array
from paperbench.rca.segmenters.shares import Shares
from tests.rca.segmenters.made import phantoms, radiographs, volumes


def test_a_mask_of_every_kind_of_image_comes_back(tmp_path: Path) -> None:
    kinds = {"phantoms": phantoms(), "pictures": radiographs(tmp_path), "volumes": volumes(tmp_path)}
    for name, share in kinds.items():
        masks = MaskFolder(tmp_path / name, share)
        number = share.cases[0]
        truth = share.read(number).truth
        assert truth is not None
        masks.write("first", number, truth)
        assert np.array_equal(masks.read("first", number, truth.shape), truth), name
        assert masks.path("first", number).name.removesuffix(".nii.gz").removesuffix(".png") == share.name_of(number)


def test_a_volume_keeps_its_place_in_the_world(tmp_path: Path) -> None:
    share = volumes(tmp_path)
    masks = MaskFolder(tmp_path / "masks", share)
    number = share.cases[0]
    truth = share.read(number).truth
    assert truth is not None
    masks.write("first", number, truth)
    mask, image = read_labels(masks.path("first", number)), read_image(share.files[number].image)
    assert np.array_equal(on_grid_of(image, mask), truth)
    assert mask.spacing == pytest.approx((1.5, 1.0, 2.0))


def test_large_labels_keep_their_numbers(tmp_path: Path) -> None:
    for ending, largest in ((".png", 4096), (".nii.gz", 70_000)):
        array = np.zeros((8, 9), np.int64)
        array[2, 3] = largest
        write_array(tmp_path / f"mask{ending}", array, None)
        assert np.array_equal(read_labels(tmp_path / f"mask{ending}").array, array)


def test_equal_masks_are_equal_files(tmp_path: Path) -> None:
    mask = np.arange(72).reshape(8, 9)
    for ending in (".png", ".nii.gz"):
        for name in ("a", "b"):
            write_array(tmp_path / name / f"mask{ending}", mask, None)
        assert (tmp_path / f"a/mask{ending}").read_bytes() == (tmp_path / f"b/mask{ending}").read_bytes()


def missing_and_foreign(share: Shares, folder: Path) -> MaskFolder:
    masks = MaskFolder(folder, share)
    masks.write("first", share.cases[0], np.ones((5, 6), np.int64))
    return masks


def test_masks_that_are_missing_or_of_another_image_are_told(tmp_path: Path) -> None:
    share = phantoms()
    masks = missing_and_foreign(share, tmp_path)
    assert masks.missing("first") == [share.cases[1]]
    with pytest.raises(DataError, match="no such file"):
        masks.read("first", share.cases[1], (32, 32))
    with pytest.raises(DataError, match=r"has the shape \(5, 6\), its image \(32, 32\)"):
        masks.read("first", share.cases[0], (32, 32))
