"""A stopped run of an earlier version, as it was written then, is resumed to the end that it would have had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from paperbench.engine import launch
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.rundir import RunDirectory
from tests.engine import toy

STORED = Path(__file__).parent / "earlier_version"
"""`run`: the toy, stopped by SIGTERM after five of nine steps. `results.json`: those of the same run without the stop."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy.register(monkeypatch)
    return Path(shutil.copytree(STORED / "run", tmp_path / "run"))


def test_it_is_resumed(run: Path) -> None:
    assert RunDirectory.open(run).current_state() == "stopped"
    outcome = launch.resume(run, SilentReporter())
    assert outcome.results is not None
    expected = json.loads((STORED / "results.json").read_text(encoding="utf-8"))["metrics"]
    found = {name: value for name, value in outcome.results["metrics"].items() if name != "train/samples_per_second"}
    # Another processor may round differently.
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-4)
    assert {*found, "train/samples_per_second"} == set(expected)


def test_its_checkpoint_is_read_and_checked(run: Path) -> None:
    state, step, file = load_for_evaluation(run, which="last")
    assert (step, file.name) == (5, "last.pt")
    assert state["step"] == 5
