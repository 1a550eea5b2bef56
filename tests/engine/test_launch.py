"""Starting and resuming runs in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.engine import launch
from paperbench.engine.launch import resume, start
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import ConfigError, DataError, EnvironmentError_, TrainingError
from tests.engine import toy


class Record(SilentReporter):
    """Everything that a run tells."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        self.told.append(("start", title, dict(facts)))

    def message(self, text: str) -> None:
        self.told.append(("message", text))

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        self.told.append(("finish", dict(results), directory))

    def close(self) -> None:
        self.told.append(("close",))


@pytest.fixture(autouse=True)
def toy_task(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    reporter = Record()
    config = toy.config(output={"root": str(tmp_path / "outputs")}, tensorboard=True)
    outcome = start(config, run_dir=None, reporter=reporter)
    assert (outcome.status, outcome.exit_code) == ("done", 0)
    assert outcome.directory.parent == tmp_path / "outputs" / "toy"
    names = {file.name for file in outcome.directory.iterdir()}
    assert names >= {
        "config.yaml",
        "status.json",
        "metrics.jsonl",
        "results.json",
        "env.json",
        "log.txt",
        "checkpoints",
    }
    assert list((outcome.directory / "tensorboard").glob("events.*"))

    (_, title, facts), (_, results, where), close = reporter.told
    assert title == "toy · toy"
    assert facts["data"] == "12 made-up points"
    assert facts["device"] == "cpu, float32"
    assert facts["run directory"] == where == str(outcome.directory)
    assert close == ("close",)
    assert results == outcome.results == json.loads((outcome.directory / "results.json").read_text())
    assert results["data"] == "12 made-up points"
    assert set(results["metrics"]) == {
        "train/loss",
        "train/first",
        "train/second",
        "train/samples_per_second",
        "test/error",
    }
    status = RunDirectory.open(outcome.directory).status()
    assert (status["state"], status["step"], status["steps"], status["exit_code"]) == ("done", 9, 9, 0)
    assert not RunDirectory.open(outcome.directory).is_locked()
    env = json.loads((outcome.directory / "env.json").read_text())
    assert (env["device"], env["threads"], env["processes"]) == ("cpu", 1, 1)


def test_two_runs_of_one_config_are_bit_identical_and_another_seed_differs(tmp_path: Path) -> None:
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 4})):
        torch.manual_seed(hash(name) % 1000)  # what happened in the process before must not matter
        start(toy.config(**changes), run_dir=tmp_path / name, reporter=SilentReporter())
    a, b, c = (toy.weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_settings_of_the_process_are_those_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[tuple[int, int]] = []
    original = toy.plan

    def plan(config: toy.ToyConfig) -> Mapping[str, str]:
        inside.append((torch.get_num_threads(), torch.get_deterministic_debug_mode()))
        return original(config)

    monkeypatch.setattr(toy, "plan", plan)
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    start(toy.config(threads=before[0] + 1), run_dir=tmp_path / "run", reporter=SilentReporter())
    assert inside == [(before[0] + 1, 1)]
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == before


def test_a_config_mistake_makes_no_directory(tmp_path: Path) -> None:
    for changes in ({"widht": 3}, {"task": "toi"}, {"seed": "x"}):
        with pytest.raises(ConfigError):
            start({**toy.config(), **changes}, run_dir=tmp_path / "run", reporter=SilentReporter())
    assert list(tmp_path.iterdir()) == []


def test_resuming_a_done_run_gives_its_results_again(tmp_path: Path) -> None:
    first = start(toy.config(), run_dir=tmp_path / "run", reporter=SilentReporter())
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")}
    reporter = Record()
    again = resume(tmp_path / "run", reporter)
    assert (again.status, again.exit_code, again.results) == ("done", 0, first.results)
    assert reporter.told == [
        ("message", f"{tmp_path / 'run'} is done already; these are its results"),
        ("finish", first.results, str(tmp_path / "run")),
        ("close",),
    ]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")} == before


def test_resuming_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run directory"):
        resume(tmp_path / "nowhere", SilentReporter())
    with pytest.raises(ConfigError, match="is not a run directory"):
        resume(tmp_path, SilentReporter())


def test_resuming_a_run_whose_config_was_changed(tmp_path: Path) -> None:
    from paperbench.errors import CheckpointError

    run_dir = tmp_path / "run"
    assert start(toy.config(fault="term@4"), run_dir=run_dir, reporter=SilentReporter()).exit_code == 3
    text = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(text.replace("lr: 0.01", "lr: 0.02"))
    with pytest.raises(CheckpointError, match=r"config\.yaml was changed since"):
        resume(run_dir, SilentReporter())
    (run_dir / "config.yaml").write_text(text.replace("log_every: 2", "log_every: 1"))
    assert resume(run_dir, SilentReporter()).status == "done", "how often is logged changes no result"


def test_a_failure_is_recorded_and_raised(tmp_path: Path) -> None:
    reporter = Record()
    run_dir = tmp_path / "run"
    with pytest.raises(DataError, match=r"points\.txt: no sample"):
        start(toy.config(fault="data@3"), run_dir=run_dir, reporter=reporter)
    assert reporter.told[-1] == ("close",)
    status = RunDirectory.open(run_dir).status()
    assert (status["state"], status["error"], status["exit_code"]) == ("failed", "DataError", 4)
    assert status["message"].startswith("points.txt: no sample")
    assert "Traceback (most recent call last)" in (run_dir / "log.txt").read_text()
    assert not RunDirectory.open(run_dir).is_locked()
    assert resume(run_dir, SilentReporter()).status == "done"


def test_a_defect_is_recorded_with_its_traceback_and_raised_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(config: toy.ToyConfig) -> Mapping[str, str]:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(toy, "plan", plan)
    with pytest.raises(ZeroDivisionError):
        start(toy.config(), run_dir=tmp_path / "run", reporter=SilentReporter())
    status = RunDirectory.open(tmp_path / "run").status()
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert status["message"] == f"ZeroDivisionError: a defect (the traceback is in {tmp_path / 'run' / 'log.txt'})"
    assert "in plan" in (tmp_path / "run" / "log.txt").read_text()


def test_an_absent_device_fails_with_exit_code_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentError_, match="device=cuda: torch finds no CUDA GPU here"):
        start(toy.config(device="cuda"), run_dir=tmp_path / "run", reporter=SilentReporter())


@pytest.mark.parametrize(
    ("status", "raised", "message"),
    [
        ({"state": "failed", "error": "DataError", "message": "no image"}, DataError, "no image"),
        ({"state": "failed", "error": "RuntimeError", "message": "RuntimeError: x"}, TrainingError, "RuntimeError: x"),
        ({"state": "failed", "error": "EXIT_DONE", "message": "x"}, TrainingError, "x"),
        ({"state": "running"}, TrainingError, "exited without reporting a status (torchrun's exit code 7)"),
    ],
)
def test_the_launcher_raises_what_its_workers_recorded(
    tmp_path: Path, status: dict[str, Any], raised: type[Exception], message: str
) -> None:
    directory = RunDirectory.create(tmp_path, "toy", toy.config(), tmp_path / "run")
    directory.update_status(**status)
    with pytest.raises(raised) as caught:
        launch._outcome(directory, 7)
    assert message in str(caught.value)
    assert directory.status()["state"] == "failed"
    directory.release()


def test_the_launcher_reads_how_its_workers_ended(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "toy", toy.config(), tmp_path / "run")
    directory.update_status(state="stopped", message="at step 3")
    outcome = launch._outcome(directory, 0)
    assert (outcome.status, outcome.exit_code, outcome.results, outcome.message) == ("stopped", 3, None, "at step 3")
    directory.update_status(state="running")
    directory.write_rank_failure(message="rank 1's reason", error="DataError", exit_code=4)
    with pytest.raises(DataError, match="rank 1's reason"):
        launch._outcome(directory, 1)
    directory.release()
