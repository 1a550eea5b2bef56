"""Splits of a set, and masks as files."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from paperbench.data.grids import on_grid_of
from paperbench.data.volumes import read_image, read_labels
from paperbench.errors import ConfigError, DataError
from paperbench.rca.config import JsrtData, PhantomData
from paperbench.rca.datasets import split
from paperbench.rca.segmenters.evaluation import measure_quality
from paperbench.rca.segmenters.splits import MaskFolder, Splits, open_splits, write_array
from tests.rca.segmenters.made import phantoms, radiographs, volumes


def test_no_image_is_in_two_shares() -> None:
    share = phantoms(calibration=4, training=5)
    groups = [set(group) for group in (share.training, share.references, share.cases, share.calibration)]
    assert [len(group) for group in groups] == [5, 2, 2, 4]
    assert all(not one & other for one, other in combinations(groups, 2))
    assert set().union(*groups) == set(range(13))


def test_on_disk_more_training_images_leave_the_other_shares_alone() -> None:
    few, many = (JsrtData(references=3, cases=4, training=count) for count in (1, 9))
    before, after = split(few, 30), split(many, 30)
    assert before["references"] == after["references"]
    assert before["cases"] == after["cases"]
    assert set(before["training"]) <= set(after["training"])


def test_segmenters_need_images_to_learn_from() -> None:
    with pytest.raises(ConfigError, match=r"data.training=0: segmenters learn from it"):
        open_splits(PhantomData(training=0))


def test_a_set_that_is_too_small_is_refused_with_both_numbers(tmp_path: Path) -> None:
    radiographs(tmp_path)
    with pytest.raises(ConfigError, match="references, cases, calibration, training are 7 images together, jsrt has 6"):
        open_splits(JsrtData(root=str(tmp_path), references=2, cases=2, training=3))


# --- masks ------------------------------------------------------------------------------------------------------------


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


def test_cases_and_calibration_images_are_segmented_and_cases_alone_are_measured(tmp_path: Path) -> None:
    share = phantoms(calibration=2)
    masks = MaskFolder(tmp_path, share)
    assert set(masks.missing("first")) == {*share.cases, *share.calibration}
    for number in share.segmented:  # those of the calibration hold nothing
        truth = share.read(number).truth
        assert truth is not None
        masks.write("first", number, truth if number in share.cases else np.zeros_like(truth))
    assert masks.missing("first") == []
    found = measure_quality(share, masks, ["first"])
    assert {quality.case for quality in found} == {share.name_of(number) for number in share.cases}
    assert {quality.dsc for quality in found if not math.isnan(quality.dsc)} == {1.0}


@pytest.mark.parametrize("place", [0, 1])
def test_a_volume_keeps_its_place_in_the_world(tmp_path: Path, place: int) -> None:
    share = volumes(tmp_path)
    masks = MaskFolder(tmp_path / "masks", share)
    number = share.cases[place]
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


def missing_and_foreign(share: Splits, folder: Path) -> MaskFolder:
    masks = MaskFolder(folder, share)
    masks.write("first", share.cases[0], np.ones((5, 6), np.int64))
    return masks


def test_masks_that_are_missing_or_of_another_image_are_errors(tmp_path: Path) -> None:
    share = phantoms()
    masks = missing_and_foreign(share, tmp_path)
    assert masks.missing("first") == [share.cases[1]]
    with pytest.raises(DataError, match="no such file"):
        masks.read("first", share.cases[1], (32, 32))
    with pytest.raises(DataError, match=r"has the shape \(5, 6\), its image \(32, 32\)"):
        masks.read("first", share.cases[0], (32, 32))
