"""`paperbench sweeps`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.engine.claims import prepare
from paperbench.records.place import Place, write_place
from paperbench.sweeps import record
from tests.engine import toy
from tests.sweeps import toys


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)


def test_each_sweep_with_the_states_and_jobs_of_its_runs(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 3)
    sweep.directory.mkdir(parents=True)
    record.write(sweep)
    for member, state in zip(sweep.members, ("queued", "requeued"), strict=False):
        prepare(member.directory, member.composed.resolved)
        write_place(member.directory, Place(state=state, job="71_0", reason="Priority"))  # type: ignore[arg-type]
    broken = tmp_path / "toy" / "sweeps" / "broken"
    broken.mkdir()
    (broken / "sweep.json").write_text("{")
    shown = CliRunner().invoke(app, ["sweeps", str(tmp_path)])
    assert shown.exit_code == 0
    (row,) = [line for line in shown.stdout.splitlines() if sweep.id in line and "local" in line]
    assert "1 queued, 1 requeued, 1 not started" in row
    assert "71_0" in row
    assert "broken" in shown.stderr
    (document,) = json.loads(CliRunner().invoke(app, ["sweeps", str(tmp_path), "--json"]).stdout)
    assert document["states"] == {"queued": 1, "requeued": 1, "not started": 1}
    assert document["runs"][0]["job"] == {"state": "queued", "job": "71_0", "node": "", "reason": "Priority"}


def test_a_folder_without_sweeps(tmp_path: Path) -> None:
    assert "no sweeps below" in CliRunner().invoke(app, ["sweeps", str(tmp_path)]).stdout
