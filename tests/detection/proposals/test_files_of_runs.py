"""Runs on stored proposals: told apart by what the files hold, and continued from whichever folder one stands in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app

pytestmark = pytest.mark.slow

FILES = (
    "proposals.method=file",
    "proposals.train_file=boxes/train.npz",
    "proposals.test_file=boxes/test.npz",
)
FEW = ("data.max_train_images=2", "data.max_test_images=2")


def paperbench(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def test_two_folders_with_other_files_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    for name, method in (("one", "selective-search"), ("two", "sliding-windows")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        paperbench("proposals", "fast-rcnn", *FEW, f"proposals.method={method}", "--smoke", "--run-dir", "made")
        shutil.move("made/proposals", "boxes")
        small = ("scale=smoke", *FEW, "train.samples=1", "evaluation.sheet_images=0")
        paperbench("sweep", "fast-rcnn", *small, *FILES, "seed=0", f"output.root={root}")
    runs = sorted(path.parent for path in root.glob("fast-rcnn/*/results.json"))
    assert len(runs) == 2

    # From a third folder, the files of a run are found where they lay.
    (tmp_path / "three").mkdir()
    monkeypatch.chdir(tmp_path / "three")
    (runs[0] / "results.json").unlink()
    paperbench("resume", str(runs[0]))
    paperbench("eval", "fast-rcnn", f"checkpoint={runs[0]}", "--run-dir", "again")
    again, first = (json.loads((path / "results.json").read_text())["metrics"] for path in (Path("again"), runs[0]))
    assert again["coco/AP"] == first["coco/AP"]
    assert again["proposals/recall50@100"] == first["proposals/recall50@100"]
