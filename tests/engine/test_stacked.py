"""Several runs in one process: each has its own files, and one that fails leaves the others something to continue from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paperbench.engine import launch
from paperbench.engine.claims import prepare
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.engine.stacked import execute_stacked
from paperbench.errors import ConfigError, DiskFullError, TrainingError
from tests.engine import toy


@pytest.fixture
def stacking(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The toy with `run_stacked`: the runs one after another, which is enough for their files; each is bit for bit as alone."""
    toy.register(monkeypatch)
    object.__setattr__(toy.SPEC, "stacks", True)
    monkeypatch.setattr(toy, "stack_key", lambda config: (config.length, config.width), raising=False)
    monkeypatch.setattr(toy, "run_stacked", run_stacked, raising=False)
    yield
    object.__setattr__(toy.SPEC, "stacks", False)


def run_stacked(configs: Sequence[toy.ToyConfig], runs: Sequence[Run]) -> list[dict[str, float]]:
    from paperbench.engine.seeding import MODEL_INIT, seed_everything

    metrics = []
    for config, run in zip(configs, runs, strict=True):
        seed_everything(config.seed, MODEL_INIT)
        metrics.append(toy.run(config, run))
    return metrics


def made(tmp_path: Path, *changes: dict[str, Any]) -> list[RunDirectory]:
    directories = []
    for number, change in enumerate(changes):
        prepare(tmp_path / f"run{number}", toy.config(**change))
        directories.append(RunDirectory.open(tmp_path / f"run{number}"))
    return directories


def execute(directories: list[RunDirectory], stop: StopFlag | None = None) -> list[Any]:
    reporters = [SilentReporter() for _ in directories]
    return execute_stacked(directories, reporters, StopFlag() if stop is None else stop)


@pytest.mark.usefixtures("stacking")
def test_each_gets_the_results_it_would_have_alone(tmp_path: Path) -> None:
    directories = made(tmp_path, {"seed": 1}, {"seed": 2})
    outcomes = execute(directories)
    for directory, outcome in zip(directories, outcomes, strict=True):
        assert (outcome.status, outcome.exit_code, directory.current_state()) == ("done", 0, "done")
        assert not directory.is_locked()
        alone = tmp_path / f"alone{directory.path.name}"
        launch.start(directory.config(), run_dir=alone, reporter=SilentReporter())
        assert toy.record(directory.path) == toy.record(alone)
        assert outcome.results["stacked"] == 2
        assert outcome.results["data"] == "12 made-up points"
        assert outcome.results["seed"] == directory.config()["seed"]
        assert "done" in (directory.path / "log.txt").read_text()
        assert json.loads((directory.path / "env.json").read_text())["threads"] == 1
    assert "stacked" not in (RunDirectory.open(tmp_path / "alonerun0").results() or {})


@pytest.mark.usefixtures("stacking")
def test_a_stop_stops_all(tmp_path: Path) -> None:
    directories = made(tmp_path, {"seed": 1}, {"seed": 2})
    stop = StopFlag()
    stop.set("SIGTERM")
    assert [outcome.exit_code for outcome in execute(directories, stop)] == [3, 3]
    for directory in directories:
        status = directory.status()
        assert (status["state"], status["exit_code"]) == ("stopped", 3)
        assert status["message"] == f"stopped on SIGTERM; `paperbench resume {directory.path}` continues"
        assert launch.resume(directory.path, SilentReporter()).status == "done"


@pytest.mark.usefixtures("stacking")
def test_a_failure_leaves_each_to_be_tried_alone(tmp_path: Path) -> None:
    directories = made(tmp_path, {"seed": 1}, {"seed": 2, "fault": "nan@4"}, {"seed": 3})
    with pytest.raises(TrainingError):
        execute(directories)
    for directory in directories:
        status = directory.status()
        assert (status["state"], status["exit_code"]) == ("stopped", 1)
        assert status["message"].startswith("failed when stacked with 2 other runs (TrainingError: ")
        assert not directory.is_locked()
    assert launch.resume(directories[0].path, SilentReporter()).status == "done"
    (directories[1].path / "fault-struck").unlink()
    with pytest.raises(TrainingError):
        launch.resume(directories[1].path, SilentReporter())


@pytest.mark.usefixtures("stacking")
def test_a_full_disk_is_the_failure_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(configs: Any, runs: Any) -> Any:
        raise DiskFullError("cannot write x (No space left on device)")

    monkeypatch.setattr(toy, "run_stacked", full)
    directories = made(tmp_path, {"seed": 1}, {"seed": 2})
    with pytest.raises(DiskFullError):
        execute(directories)
    assert [(d.status()["state"], d.status()["error"]) for d in directories] == [("failed", "DiskFullError")] * 2


@pytest.mark.usefixtures("stacking")
def test_a_task_that_forgets_one_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "run_stacked", lambda configs, runs: [{}])
    with pytest.raises(ValueError, match="returned 1 results for 2 runs"):
        execute(made(tmp_path, {"seed": 1}, {"seed": 2}))


@pytest.mark.usefixtures("stacking")
@pytest.mark.parametrize("change", [{"width": 9}, {"threads": 2}, {"precision": "bfloat16"}])
def test_runs_that_differ_in_more_than_a_stack_may_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cannot be stacked: they differ in more than runs of one stack may"):
        execute(made(tmp_path, {"seed": 1}, {"seed": 2, **change}))


def test_a_task_that_does_not_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    with pytest.raises(ConfigError, match="these runs cannot be stacked: task toy"):
        execute(made(tmp_path, {"seed": 1}, {"seed": 2}))


@pytest.mark.usefixtures("stacking")
def test_one_that_fails_alone_leaves_the_others_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_failure(configs: Sequence[toy.ToyConfig], runs: Sequence[Run]) -> list[Any]:
        return [TrainingError("not finite at step 3"), *run_stacked(configs[1:], runs[1:])]

    monkeypatch.setattr(toy, "run_stacked", with_a_failure)
    directories = made(tmp_path, {"seed": 1}, {"seed": 2})
    failed, done = execute(directories)
    assert (failed.status, failed.exit_code, failed.message) == ("failed", 1, "not finite at step 3")
    assert directories[0].status()["error"] == "TrainingError"
    assert directories[0].results() is None
    assert done.status == "done"
    assert directories[1].results() is not None
