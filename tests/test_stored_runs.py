"""Runs that version 0.1.0 made before keys were renamed: everything that reads a run still reads them, with the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.config.validate import config_hash, identity, load_file

STORED = Path(__file__).parent / "stored_runs"
RUNS = ("vae", "faster-rcnn")


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a stored run, in a folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(STORED / request.param, Path("outputs") / request.param / "old"))


def paperbench(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The numbers that depend on the weights alone: no times, and no estimates with a chain of random steps of another machine."""
    measured = {name: value for name, value in expected.items() if "seconds" not in name and "per_second" not in name}
    assert {name: found.get(name) for name in measured} == pytest.approx(measured, rel=1e-4, nan_ok=True)


def test_its_old_keys_are_read(run: Path) -> None:
    assert "recipe: " in (run / "config.yaml").read_text(encoding="utf-8")
    _, config, resolved = load_file(run / "config.yaml")

    assert config.preset == run.parent.name
    assert "recipe" not in resolved
    assert identity(run / "config.yaml") != config_hash(resolved)


def test_it_is_listed_and_reported(run: Path) -> None:
    listed = paperbench("runs", "outputs", "--json")
    assert str(run.name) in listed
    paperbench("report", str(run))


@pytest.mark.parametrize("run", ["vae"], indirect=True)  # the weights of a detector are too large to be stored
def test_it_is_evaluated(run: Path) -> None:
    paperbench("eval", run.parent.name, f"checkpoint={run}", "--run-dir", "again")

    expected = results(run)
    found = results(Path("again"))
    names = found.keys() & expected.keys()
    assert names
    same(found, {name: expected[name] for name in names if not name.startswith("train/")})


@pytest.mark.parametrize("run", ["vae"], indirect=True)  # the weights of a detector are too large to be stored
def test_it_is_resumed(run: Path) -> None:
    """Killed between its last step and its results."""
    expected = results(run)
    (run / "results.json").unlink()
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    (run / "status.json").write_text(json.dumps({**status, "state": "running"}), encoding="utf-8")
    paperbench("resume", str(run))

    same(results(run), expected)
