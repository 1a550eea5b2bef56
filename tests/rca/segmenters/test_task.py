"""`paperbench train segment`: masks at every stage, stops, and the export for `paperbench estimate rca`."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.engine.run import Run
from paperbench.engine.signals import StopFlag
from paperbench.rca.cases import Image
from paperbench.rca.segmenters import forest, unet
from paperbench.rca.segmenters.multi_atlas import MultiAtlasSegmenter
from paperbench.rca.segmenters.splits import MaskFolder, Splits
from paperbench.records.metrics import metrics_of
from tests.rca.made import QUICK
from tests.rca.segmenters.made import SMALL, TINY, command, files, radiographs

STAGES = {
    "unet": ("unet-1", "unet-2"),
    "forest": ("forest-1", "forest-3"),
    "multi-atlas": ("multi-atlas-1", "multi-atlas-2"),
}

KINDS = {"unet": unet.UnetSegmenter, "forest": forest.ForestSegmenter, "multi-atlas": MultiAtlasSegmenter}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """A run of each segmenter."""
    root = tmp_path_factory.mktemp("segment")
    out = {}
    for name, words in TINY.items():
        result, content = command("train", "segment", *SMALL, *words, f"output.root={root}", directory=root / name)
        assert result.exit_code == 0, result.output
        out[name] = (root / name, content)
    return out


def test_every_stage_is_a_folder_of_masks_with_its_quality(runs: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    for name, (run, content) in runs.items():
        folders = sorted(folder.name for folder in (run / "predictions").iterdir())
        assert tuple(folders) == STAGES[name]
        quality = rows(run / "quality.csv")
        assert len(quality) == 2 * 2 * 5  # cases, stages, organs
        for stage in STAGES[name]:
            own = [float(row["dsc"]) for row in quality if row["segmenter"] == stage and row["dsc"]]
            assert content["metrics"][f"segment/{stage}/dsc"] == pytest.approx(sum(own) / len(own), abs=1e-5)
            assert content["metrics"][f"segment/{stage}/masks"] == len(own) == 10
            assert content["metrics"][f"segment/{stage}/missed"] == own.count(0.0)
        assert (run / "figures" / "quality.png").is_file()


def test_every_metric_of_a_run_is_declared(runs: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    declared = metrics_of("segment-train")
    for _, content in runs.values():
        assert [name for name in content["metrics"] if name not in declared] == []


def test_registration_segments_phantoms_well_and_a_second_tree_helps(runs: dict[str, Any]) -> None:
    assert runs["multi-atlas"][1]["metrics"]["segment/multi-atlas-1/dsc"] > 0.6
    metrics = runs["forest"][1]["metrics"]
    assert metrics["segment/forest-3/dsc"] > metrics["segment/forest-1/dsc"]


def test_exported_cases_can_be_estimated(runs: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    run, _ = runs["multi-atlas"]
    words = [*QUICK[1:], f"output.root={tmp_path}", "calibration.kind=none", "pictures=0"]
    result, by_manifest = command(
        "estimate", "rca", f"manifest={run / 'manifest.csv'}", *words, directory=tmp_path / "a"
    )
    assert result.exit_code == 0, result.output
    cases = rows(tmp_path / "a" / "cases.csv")
    truth = {(r["case"], r["segmenter"], str(k + 1)): r["dsc"] for k, r in enumerate_organs(rows(run / "quality.csv"))}
    assert {(r["case"], r["segmenter"], r["label"]): r["real"] for r in cases} == truth
    folders = [f"masks=[{','.join(str(run / 'predictions' / stage) for stage in STAGES['multi-atlas'])}]"]
    folders += [f"images={run}/cases/images", f"truth={run}/cases/truth"]
    folders += [f"reference.images={run}/references/images", f"reference.masks={run}/references/masks"]
    result, by_folder = command("estimate", "rca", *folders, *words, directory=tmp_path / "b")
    assert result.exit_code == 0, result.output
    same = {"rca/mae", "rca/pearson_r", "rca/masks", "rca/real_mean", "rca/predicted_mean"}
    assert {k: by_folder["metrics"][k] for k in same} == {k: by_manifest["metrics"][k] for k in same}


def enumerate_organs(quality: list[dict[str, str]]) -> list[tuple[int, dict[str, str]]]:
    """Each row with the number of its organ."""
    organs = list(dict.fromkeys(row["label"] for row in quality))
    return [(organs.index(row["label"]), row) for row in quality]


def test_references_cases_and_training_images_are_others(runs: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    run, _ = runs["forest"]
    manifest = rows(run / "manifest.csv")
    by_role = {role: {row["case"] for row in manifest if row["role"] == role} for role in ("case", "reference")}
    assert [len(by_role[role]) for role in ("case", "reference")] == [2, 2]
    assert not by_role["case"] & by_role["reference"]
    assert len(by_role["case"] | by_role["reference"]) + 3 == 7


def test_the_printed_command_estimates_images_with_bits(tmp_path: Path) -> None:
    radiographs(tmp_path / "data")
    words = ["data=jsrt", f"data.root={tmp_path / 'data'}", "data.references=2", "data.cases=2", "data.training=2"]
    run = tmp_path / "run"
    result = CliRunner().invoke(
        app, ["train", "segment", *words, *TINY["forest"], "--run-dir", str(run), f"output.root={tmp_path}"]
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    printed = next(line for line in result.output.splitlines() if "to estimate the quality of the masks:" in line)
    typed = shlex.split(printed.partition("paperbench ")[2])
    estimated, content = command(
        *typed, *QUICK[1:], "calibration.kind=none", f"output.root={tmp_path}", directory=tmp_path / "j"
    )
    assert estimated.exit_code == 0, estimated.output
    assert "rca/right lung/mae" in content["metrics"]
    assert content["metrics"]["rca/cases"] == 2


def stop_after_the_first_mask(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    """The run is asked to stop when it has written one mask."""
    known: list[Run] = []
    segment, write = kind.segment, MaskFolder.write

    def noting(self: Any, splits: Any, masks: MaskFolder, run: Run) -> dict[str, float]:
        known.append(run)
        return segment(self, splits, masks, run)

    def stopping(self: MaskFolder, stage: str, number: int, mask: Any) -> None:
        write(self, stage, number, mask)
        assert isinstance(known[-1].stop, StopFlag)
        known[-1].stop.set("SIGINT")

    monkeypatch.setattr(kind, "segment", noting)
    monkeypatch.setattr(MaskFolder, "write", stopping)


@pytest.mark.parametrize("name", ["unet", "forest", "multi-atlas"])
def test_a_stopped_run_goes_on_to_the_same_masks(
    name: str, runs: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, content = runs[name]
    stop_after_the_first_mask(monkeypatch, KINDS[name])
    words = [*SMALL, *TINY[name], f"output.root={tmp_path}", "--run-dir", str(tmp_path / "run"), "--json"]
    first = CliRunner().invoke(app, ["train", "segment", *words])
    monkeypatch.undo()
    if name == "multi-atlas":  # its votes are counted at the end, all at once
        assert first.exit_code == 0, first.output
    else:
        assert first.exit_code == 3, first.output
        again = CliRunner().invoke(app, ["resume", str(tmp_path / "run"), "--json"])
        assert again.exit_code == 0, again.output
        metrics = json.loads(again.stdout)["metrics"]
        assert {k: v for k, v in metrics.items() if k.startswith("segment/")} == {
            k: v for k, v in content["metrics"].items() if k.startswith("segment/")
        }
    assert files(tmp_path / "run" / "predictions") == files(whole / "predictions")


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    faulty = {
        "model.atlases=[1,9]": (["model=multi-atlas"], "9 atlases of data.training=3 images"),
        "data.training=0": ([], "segmenters learn from it"),
        "model.epochs=[3,1]": ([], "model.epochs"),
        "model.batch_size=20": ([], "batches of 20 are too large to distinguish 1, 3, 10, 30 epochs of 3 images"),
        "model.width=6": ([], "model.width"),
        "data=jsrt": ([f"data.root={tmp_path}"], "no folder JSRT/images"),
    }
    for word, (more, said) in faulty.items():
        given = [text for text in SMALL if text.partition("=")[0] != word.partition("=")[0]]
        given = [text for text in given if not (word == "data=jsrt" and text.startswith("data.shape"))]
        result, content = command("train", "segment", *given, *more, word, directory=run)
        assert result.exit_code in (2, 4), (word, result.output)
        assert said in json.dumps(content), (word, content)
        assert not run.exists()


def test_no_truth_of_what_is_segmented_reaches_a_segmenter(
    runs: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Splits.read

    def blind(self: Splits, number: int) -> Image:
        image = read(self, number)
        return image if number in self.training else replace(image, truth=np.zeros_like(image.truth))

    monkeypatch.setattr(Splits, "read", blind)
    for name, (whole, _) in runs.items():
        words = [*SMALL, *TINY[name], f"output.root={tmp_path}"]
        result, _ = command("train", "segment", *words, directory=tmp_path / name)
        assert result.exit_code == 0, result.output
        assert files(tmp_path / name / "predictions") == files(whole / "predictions")


def test_streams_of_randomness_have_different_keys() -> None:
    from paperbench.rca import cases, cnn, datasets
    from paperbench.rca import forest as reverse_forest

    keys = [
        unet.AUGMENTATION,
        forest.FOREST,
        cnn.CNN,
        reverse_forest.FOREST,
        cases.DEGRADE,
        cases.RANDOM,
        datasets.DEFORM,
    ]
    assert len(set(keys)) == len(keys)
