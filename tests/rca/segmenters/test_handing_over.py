"""What lies beside the masks, and the command that is printed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from paperbench.data.volumes import read_image, read_labels
from paperbench.rca.segmenters.handing_over import PREDICTIONS, command, hand_over
from paperbench.rca.segmenters.making import Quality, metrics, quality
from paperbench.rca.segmenters.masks import MaskFolder
from paperbench.rca.segmenters.shares import Shares
from tests.rca.segmenters.made import phantoms, volumes


def handed_over(share: Shares, folder: Path) -> list[dict[str, str]]:
    """The manifest of masks that are the truth."""
    masks = MaskFolder(folder / PREDICTIONS, share)
    for number in share.segmented:
        truth = share.read(number).truth
        assert truth is not None
        masks.write("right", number, truth)
    hand_over(share, masks, ["right"], folder)
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_images_that_calibrate_have_a_role_of_their_own_and_the_command_uses_them(tmp_path: Path) -> None:
    share = phantoms(calibration=1)
    rows = handed_over(share, tmp_path)
    assert sorted(row["role"] for row in rows) == ["calibration", "case", "case", "reference", "reference"]
    assert "calibration.kind=labelled" in command(share, tmp_path)
    assert "calibration.kind" not in command(phantoms(), tmp_path)


def test_files_hold_what_the_set_holds(tmp_path: Path) -> None:
    for name, share in {"generated": phantoms(), "files": volumes(tmp_path / "data")}.items():
        rows = handed_over(share, tmp_path / name)
        numbers = {share.name_of(number): number for number in (*share.references, *share.cases)}
        assert {row["case"] for row in rows} == set(numbers)
        for row in rows:
            picture = share.read(numbers[row["case"]])
            assert picture.truth is not None
            assert np.array_equal(read_image(tmp_path / name / row["image"]).array, picture.image)
            assert np.array_equal(read_labels(tmp_path / name / row["truth"]).array, picture.truth)
            assert (row["mask"] == "") == (row["role"] == "reference")


def test_masks_that_are_the_truth_score_1(tmp_path: Path) -> None:
    share = phantoms()
    handed_over(share, tmp_path)
    found = quality(share, MaskFolder(tmp_path / PREDICTIONS, share), ["right"])
    assert len(found) == 2 * 5
    assert {item.dsc for item in found} == {1.0}


def test_missed_organs_count_in_the_mean_and_undefined_ones_do_not() -> None:
    scores = {"a": 0.6, "b": 0.0, "c": float("nan")}
    found = [Quality(case=case, stage="s", label="heart", dsc=dsc) for case, dsc in scores.items()]
    assert metrics(found) == {
        **{f"segment/s/{name}": value for name, value in {"masks": 2, "dsc": 0.3, "missed": 1}.items()},
        **{f"segment/s/heart/{name}": value for name, value in {"masks": 2, "dsc": 0.3, "missed": 1}.items()},
    }
