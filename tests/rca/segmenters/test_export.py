"""Exported images, the manifest, the printed command, and the quality of masks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from paperbench.data.volumes import read_image, read_labels
from paperbench.rca.segmenters.evaluation import Quality, dice_metrics, measure_quality
from paperbench.rca.segmenters.export import command, export_cases
from paperbench.rca.segmenters.splits import PREDICTIONS, MaskFolder, Splits
from tests.rca.segmenters.made import phantoms, volumes


def exported(splits: Splits, folder: Path) -> list[dict[str, str]]:
    """The manifest of masks that are the truth."""
    masks = MaskFolder(folder / PREDICTIONS, splits)
    for number in splits.segmented:
        truth = splits.read(number).truth
        assert truth is not None
        masks.write("right", number, truth)
    export_cases(splits, masks, ["right"], folder)
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_calibration_images_have_their_own_role_and_the_command_uses_them(tmp_path: Path) -> None:
    splits = phantoms(calibration=1)
    rows = exported(splits, tmp_path)
    assert sorted(row["role"] for row in rows) == ["calibration", "case", "case", "reference", "reference"]
    assert "calibration.kind=labelled" in command(splits, tmp_path)
    assert "calibration.kind" not in command(phantoms(), tmp_path)


def test_exported_files_are_equal_to_the_set(tmp_path: Path) -> None:
    for name, splits in {"generated": phantoms(), "files": volumes(tmp_path / "data")}.items():
        rows = exported(splits, tmp_path / name)
        numbers = {splits.name_of(number): number for number in (*splits.references, *splits.cases)}
        assert {row["case"] for row in rows} == set(numbers)
        for row in rows:
            image = splits.read(numbers[row["case"]])
            assert image.truth is not None
            assert np.array_equal(read_image(tmp_path / name / row["image"]).array, image.intensities)
            assert np.array_equal(read_labels(tmp_path / name / row["truth"]).array, image.truth)
            assert (row["mask"] == "") == (row["role"] == "reference")


def test_masks_that_are_the_truth_score_1(tmp_path: Path) -> None:
    splits = phantoms()
    exported(splits, tmp_path)
    found = measure_quality(splits, MaskFolder(tmp_path / PREDICTIONS, splits), ["right"])
    assert len(found) == 2 * 5
    assert {item.dsc for item in found} == {1.0}


def test_missed_organs_count_in_the_mean_and_undefined_ones_do_not() -> None:
    scores = {"a": 0.6, "b": 0.0, "c": float("nan")}
    found = [Quality(case=case, stage="s", label="heart", dsc=dsc) for case, dsc in scores.items()]
    assert dice_metrics(found) == {
        **{f"segment/s/{name}": value for name, value in {"masks": 2, "dsc": 0.3, "missed": 1}.items()},
        **{f"segment/s/heart/{name}": value for name, value in {"masks": 2, "dsc": 0.3, "missed": 1}.items()},
    }
