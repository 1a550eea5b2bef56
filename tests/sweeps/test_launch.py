"""A sweep from overrides to its outcome, without a terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paperbench.errors import ConfigError
from paperbench.records.sweeps import read_sweep
from paperbench.sweeps import run
from paperbench.sweeps.launch import SweepOptions, plan_sweep, run_experiment
from paperbench.sweeps.launchers.base import Context
from tests.engine import toy
from tests.sweeps import toys


@pytest.fixture(autouse=True)
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def create(name: str, settings: object, context: Context) -> toys.InThisProcess:
        return toys.InThisProcess(context=context)

    toy.register(monkeypatch)
    monkeypatch.setattr(run, "create", create)
    monkeypatch.chdir(tmp_path)
    return toys.conf(tmp_path / "elsewhere")


def test_an_experiment_is_swept_and_found_done(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned, outcome = run_experiment("toy", ["seed=0,1"], conf_dir=conf)
    assert outcome.exit_code == 0
    assert [(member.state, member.reused) for member in outcome.members] == [("done", False)] * 2
    assert all("test/error" in member.metrics for member in outcome.members)

    record = read_sweep(planned.directory)
    assert (record.id, record.kind, record.overrides) == (planned.id, "sweep", ("seed=0,1",))
    assert [(member.seed, member.done) for member in record.runs] == [(0, True), (1, True)]

    _, again = run_experiment("toy", ["seed=0,1"], conf_dir=conf)
    assert all(member.reused for member in again.members)
    assert capsys.readouterr().out == ""


def test_all_mistakes_are_one_error(conf: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run_experiment("toy", ["sede=0,1", "launcher.threds=2"], conf_dir=conf)
    assert len(caught.value.mistakes) == 2
    with pytest.raises(ConfigError, match="name an experiment"):
        plan_sweep(None, [], options=SweepOptions())
    assert not (tmp_path / "outputs").exists()


def test_the_launchers_settings_are_recorded_and_may_change(conf: Path) -> None:
    planned, _ = run_experiment("toy", ["seed=0,1", "launcher.start=fresh"], conf_dir=conf)
    record = read_sweep(planned.directory)
    assert (record.launcher, record.settings) == ("local", ("launcher.start=fresh",))

    again, _ = plan_sweep(None, [], options=SweepOptions(), resume=planned.id, dry_run=True)
    assert (again.launcher, again.settings) == ("local", ("launcher.start=fresh",))
    # On the command line the first override of `sweep --resume ID` stands where an experiment's name would.
    changed, _ = plan_sweep("launcher.start=fork", [], options=SweepOptions(), resume=planned.id, dry_run=True)
    assert changed.settings == ("launcher.start=fork",)
    with pytest.raises(ConfigError, match=r"leave out seed=3 "):
        plan_sweep("seed=3", ["launcher.start=fork"], options=SweepOptions(), resume=planned.id, dry_run=True)


def test_a_sweep_below_a_root_with_a_space_is_found_by_its_id(conf: Path) -> None:
    planned, _ = run_experiment("toy", ["seed=0,1", 'output.root="my runs"'], conf_dir=conf)
    assert planned.directory.is_relative_to("my runs")
    found, _ = plan_sweep(None, ['output.root="my runs"'], options=SweepOptions(), resume=planned.id, dry_run=True)
    assert found.directory == planned.directory


def test_runs_that_are_gone_are_missing_and_not_unstarted(conf: Path, tmp_path: Path) -> None:
    planned, _ = run_experiment("toy", ["seed=0,1"], conf_dir=conf)
    shutil.rmtree(planned.members[1].directory)
    assert [run.state for run in read_sweep(planned.directory).runs] == ["done", "missing"]
    copied = shutil.copytree(planned.directory, tmp_path / "alone")
    runs = read_sweep(copied).runs
    assert [run.state for run in runs] == ["missing", "missing"]
    assert "copy it back" in runs[0].faults[0]
    (copied / "events.jsonl").write_text('{"event": "sweep began"}\n')
    assert [run.state for run in read_sweep(copied).runs] == ["not started", "not started"]
