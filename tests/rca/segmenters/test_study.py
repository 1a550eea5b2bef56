"""`paperbench estimate rca-segmenters`: masks made once for all runs, and their quality estimated."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.rca.segmenters import factory
from paperbench.records.metrics import metrics_of
from tests.rca.made import QUICK
from tests.rca.segmenters.made import SMALL, command, files

WORDS = [
    *SMALL,
    *QUICK[1:],
    "segmenters.unet={epochs: [2], width: 4, batch_size: 2}",
    "segmenters.forest={trees: [1], voxels: 150}",
    "segmenters.multi_atlas={atlases: [1, 2]}",
    "calibration.kind=none",
    "pictures=0",
]
STAGES = ["unet-2", "forest-1", "multi-atlas-1", "multi-atlas-2"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("study")
    result, content = command("estimate", "rca-segmenters", *WORDS, f"output.root={root}", directory=root / "run")
    assert result.exit_code == 0, result.output
    return root, content


def test_every_mask_of_every_segmenter_is_scored(study: tuple[Path, dict[str, Any]]) -> None:
    root, content = study
    cases = rows(root / "run" / "cases.csv")
    assert list(dict.fromkeys(row["segmenter"] for row in cases)) == STAGES
    assert len(cases) == 2 * len(STAGES) * 5
    metrics = content["metrics"]
    assert metrics["rca/masks"] == 40
    for stage in STAGES:
        own = [row for row in cases if row["segmenter"] == stage]
        assert metrics[f"rca/by/{stage}/real_mean"] == pytest.approx(sum(float(r["real"]) for r in own) / 10, abs=1e-5)
        assert metrics[f"rca/by/{stage}/predicted_mean"] == pytest.approx(
            sum(float(r["max"]) for r in own) / 10, abs=1e-5
        )


def test_every_metric_of_a_run_is_declared(study: tuple[Path, dict[str, Any]]) -> None:
    declared = metrics_of("rca-segmenters")
    assert [name for name in study[1]["metrics"] if name not in declared] == []


def test_another_run_finds_the_masks_and_trains_nothing(
    study: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, content = study
    before = files(root / "segmenters")
    for name in ("UnetSegmenter", "ForestSegmenter", "MultiAtlasSegmenter"):
        monkeypatch.setattr(getattr(factory, name), "segment", None)  # whoever calls it now fails
    result, again = command(
        "estimate", "rca-segmenters", *WORDS, f"output.root={root}", "reference.select=random", "reference.count=1",
        directory=tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert files(root / "segmenters") == before
    assert again["metrics"]["rca/real_mean"] == content["metrics"]["rca/real_mean"]


def test_masks_that_are_missing_are_made_again_unchanged(study: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, content = study
    shutil.copytree(root / "segmenters", tmp_path / "segmenters")
    for stage in ("unet-2", "forest-1", "multi-atlas-2"):
        (lost,) = (tmp_path / "segmenters").glob(f"*/predictions/{stage}")
        next(iter(lost.iterdir())).unlink()
    result, again = command("estimate", "rca-segmenters", *WORDS, f"output.root={tmp_path}", directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    masks = [name for name in files(root / "segmenters") if "/predictions/" in name]
    made, first = files(tmp_path / "segmenters"), files(root / "segmenters")
    assert {name: made[name] for name in masks} == {name: first[name] for name in masks}
    assert again["metrics"]["rca/mae"] == content["metrics"]["rca/mae"]


def test_a_mask_that_is_damaged_is_its_segmenters_problem_alone(
    study: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    root, _ = study
    shutil.copytree(root / "segmenters", tmp_path / "segmenters")
    (folder,) = (tmp_path / "segmenters").glob("*/predictions/forest-1")
    sorted(folder.iterdir())[0].write_bytes(b"no mask")
    result, content = command(
        "estimate", "rca-segmenters", *WORDS, f"output.root={tmp_path}", directory=tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    told = [row for row in rows(tmp_path / "run" / "cases.csv") if row["problem"]]
    assert [row["segmenter"] for row in told] == ["forest-1"]
    assert "cannot be read as NIfTI" in told[0]["problem"]
    assert content["metrics"]["rca/masks"] == 35


def test_other_settings_and_seeds_are_other_masks(study: tuple[Path, dict[str, Any]]) -> None:
    root, _ = study
    kinds = ["segmenters.kinds=[forest]", f"output.root={root}"]
    for number, word in enumerate(("seed=1", "segmenters.forest.voxels=100", "data.split_seed=1")):
        before = {folder.name for folder in (root / "segmenters").iterdir()}
        result, _ = command("estimate", "rca-segmenters", *WORDS, *kinds, word, directory=root / f"other-{number}")
        assert result.exit_code == 0, result.output
        assert len({folder.name for folder in (root / "segmenters").iterdir()} - before) == 1


def test_masks_of_the_segmenters_can_calibrate(study: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    words = [word for word in WORDS if not word.startswith("calibration")]
    result, content = command(
        "estimate", "rca-segmenters", *words, "calibration.kind=labelled", "data.calibration=3",
        "segmenters.kinds=[multi-atlas]", f"output.root={tmp_path}", directory=tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert 0 <= content["metrics"]["rca/calibrated_mae"] <= 1


def test_files_and_labels_of_a_users_own_belong_elsewhere(tmp_path: Path) -> None:
    given = ["masks=a", "reference.images=b", "labels.kind=bits"]
    result, content = command("estimate", "rca-segmenters", *given, directory=tmp_path / "run")
    assert result.exit_code == 2
    (said,) = content["mistakes"]
    assert said.startswith("masks, reference.images, labels: rca-segmenters makes its own masks of data=phantoms")
    assert not (tmp_path / "run").exists()


def test_a_resume_elsewhere_finds_the_same_masks(
    study: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, content = study
    run = tmp_path / "run"
    shutil.copytree(root / "run", run)
    (run / "results.json").unlink()
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["resume", "run", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["metrics"]["rca/mae"] == content["metrics"]["rca/mae"]
    assert not (tmp_path / "segmenters").exists()
