"""From a command line to the engine, with a task that only writes down what it was asked to do."""

from __future__ import annotations

import json
import os
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.cli.runlist import age
from paperbench.config.compose import compose
from paperbench.engine import launch
from paperbench.engine.reporter import Outcome
from paperbench.errors import DataError, TrainingError
from paperbench.records.selection import find_runs


@dataclass
class Engine:
    """Stands in for the engine: remembers the call, returns or raises `answer`."""

    answer: Any = None
    resolved: dict[str, Any] | None = None
    run_dir: Path | None = None
    resumed: Path | None = None

    def start(
        self, resolved: dict[str, Any], *, run_dir: Path | None, reporter: Any, worker_reporter: Any, config: Any
    ) -> Outcome:
        self.resolved, self.run_dir = resolved, run_dir
        reporter.message("at work")
        return self._answer()

    def resume(self, run_dir: Path, reporter: Any, *, worker_reporter: Any) -> Outcome:
        self.resumed = run_dir
        return self._answer()

    def _answer(self) -> Outcome:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    stand_in = Engine(Outcome(Path("outputs/x"), {"metrics": {"coco/AP": 12.5}}, "done", 0))
    monkeypatch.setattr(launch, "start", stand_in.start)
    monkeypatch.setattr(launch, "resume", stand_in.resume)
    return stand_in


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def finished(folder: Path, *overrides: str, experiment: str = "faster-rcnn", **status: Any) -> Path:
    """A run directory as a run leaves it, without its weights."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(compose(experiment, overrides).resolved), encoding="utf-8")
    content = {"state": "done", "step": 8, "steps": 8, "best": None, "updated": "2024-05-01T10:00:00+00:00", **status}
    (folder / "status.json").write_text(json.dumps(content), encoding="utf-8")
    if content["state"] == "done":
        (folder / "results.json").write_text(json.dumps({"status": "done", "metrics": {}}), encoding="utf-8")
    return folder


# --- train ------------------------------------------------------------------------------------------------------------


def test_train_hands_the_resolved_configuration_over(engine: Engine, tmp_path: Path) -> None:
    result = call("train", "faster-rcnn", "optim.lr=0.5", "--run-dir", "here", "--smoke")

    assert result.exit_code == 0
    assert engine.resolved == compose("faster-rcnn", ["optim.lr=0.5", "scale=smoke"]).resolved
    assert engine.run_dir == Path("here")
    assert list(tmp_path.iterdir()) == []


def test_json_is_alone_on_stdout(engine: Engine) -> None:
    result = call("train", "faster-rcnn", "--json")

    assert json.loads(result.stdout) == {"metrics": {"coco/AP": 12.5}, "directory": "outputs/x", "exit_code": 0}
    assert "at work" in result.stderr


def test_a_stopped_run_is_3(engine: Engine) -> None:
    engine.answer = Outcome(Path("outputs/x"), None, "stopped", 3, "stopped; `paperbench resume outputs/x` continues")

    result = call("train", "faster-rcnn")
    assert result.exit_code == 3
    assert "paperbench resume outputs/x" in result.stderr
    document = json.loads(call("train", "faster-rcnn", "--json").stdout)
    assert (document["status"], document["exit_code"], document["directory"]) == ("stopped", 3, "outputs/x")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (TrainingError("loss is nan"), 1, "error: loss is nan\n"),
        (DataError("a.xml: no box"), 4, "error: a.xml: no box\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (
            RuntimeError("odd\nthing"),
            1,
            "error: RuntimeError: odd thing (unexpected error; run again with --debug for the traceback)\n",
        ),
    ],
)
def test_every_error_has_its_exit_code_and_no_traceback(
    engine: Engine, error: BaseException, code: int, said: str
) -> None:
    engine.answer = error

    result = call("train", "faster-rcnn")
    assert result.exit_code == code
    assert result.stderr.endswith(said)
    assert "Traceback" not in result.output
    as_json = call("train", "faster-rcnn", "--json")
    assert json.loads(as_json.stdout)["exit_code"] == as_json.exit_code == code


def test_debug_shows_the_traceback_of_an_unexpected_error(engine: Engine) -> None:
    engine.answer = RuntimeError("odd")

    assert "in _answer" in call("train", "faster-rcnn", "--debug").stderr


def test_dry_run_says_what_would_happen_and_writes_nothing(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = types.ModuleType("paperbench.detection.tasks.train")
    task.plan = lambda config: {"data": f"{config.data.train_images} scenes"}  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "paperbench.detection.tasks.train", task)

    result = call("train", "faster-rcnn", "optim.lr=0.5", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "2000 scenes" in result.stdout
    assert "outputs/faster-rcnn/<time>" in result.stdout
    assert "optim.lr: 0.5  # 0.001 by default" in result.stdout
    plan = json.loads(call("train", "faster-rcnn", "--dry-run", "--json", "--run-dir", "r").stdout)
    assert (plan["plan"], plan["directory"], plan["dry_run"]) == ({"data": "2000 scenes"}, "r", True)
    assert engine.resolved is None
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setenv("COLUMNS", "100")
    task.plan = lambda config: {"data": ", ".join(["a folder of photographs"] * 20)}  # pyright: ignore[reportAttributeAccessIssue]
    sizes = ", ".join(f"{number}.5" for number in range(40))
    shown = call("train", "faster-rcnn", f"model.anchors.sizes=[{sizes}]", "--dry-run").stdout.splitlines()
    assert max(map(len, shown)) <= 100


def test_what_the_plan_refuses_leaves_no_directory(engine: Engine, tmp_path: Path) -> None:
    result = call("eval", "detections", "format=voc")

    assert result.exit_code == 2
    assert "gt is empty" in result.stderr
    assert engine.resolved is None
    assert list(tmp_path.iterdir()) == []


# --- eval -------------------------------------------------------------------------------------------------------------


def test_eval_takes_over_the_trained_configuration(engine: Engine, tmp_path: Path) -> None:
    run = finished(tmp_path / "runs/a", "optim.lr=0.25", "data.train_images=7", "nproc=2")

    assert call("eval", "faster-rcnn", "checkpoint=runs/a", "evaluation.batch_size=9").exit_code == 0
    assert engine.resolved is not None
    assert engine.resolved["task"] == "detect-eval"
    assert engine.resolved["checkpoint"] == str(run)
    assert (engine.resolved["optim"]["lr"], engine.resolved["data"]["train_images"]) == (0.25, 7)
    assert (engine.resolved["evaluation"]["batch_size"], engine.resolved["nproc"]) == (9, 1)


def test_eval_takes_a_checkpoint_file(engine: Engine, tmp_path: Path) -> None:
    run = finished(tmp_path / "runs/a")
    (run / "checkpoints").mkdir()
    file = run / "checkpoints/best.pt"
    file.touch()

    assert call("eval", "faster-rcnn", f"checkpoint={file}").exit_code == 0
    assert engine.resolved is not None
    assert engine.resolved["checkpoint"] == str(file)


def test_show_explains_an_evaluation_too(tmp_path: Path) -> None:
    finished(tmp_path / "runs/a", "seed=6")

    shown = yaml.safe_load(call("show", "faster-rcnn", "checkpoint=runs/a").stdout)
    assert (shown["task"], shown["seed"]) == ("detect-eval", 6)


def test_eval_without_a_checkpoint_lists_the_newest_finished_runs(tmp_path: Path) -> None:
    finished(tmp_path / "outputs/faster-rcnn/old", updated="2024-01-01T00:00:00+00:00")
    finished(tmp_path / "outputs/faster-rcnn/new", updated="2024-06-01T00:00:00+00:00")
    finished(tmp_path / "outputs/faster-rcnn/stopped", state="stopped")
    finished(tmp_path / "outputs/detections/other", experiment="detections")

    result = call("eval", "faster-rcnn")
    assert result.exit_code == 2
    assert [line.strip() for line in result.stderr.splitlines()[1:]] == [
        "checkpoint=outputs/faster-rcnn/new",
        "checkpoint=outputs/faster-rcnn/old",
    ]
    assert "`paperbench train faster-rcnn` makes one" in call("eval", "faster-rcnn", "output.root=empty").stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("checkpoint=nowhere", "no such run or file"),
        ("checkpoint=scored", "a run of task detect-score"),
        ("checkpoint=empty", "not a run"),
        ("checkpoint=trained/checkpoints/gone.pt", "no such run or file"),
    ],
)
def test_eval_of_something_else(tmp_path: Path, given: str, said: str) -> None:
    finished(tmp_path / "scored", experiment="detections")
    (finished(tmp_path / "trained") / "checkpoints").mkdir()
    (tmp_path / "empty").mkdir()

    result = call("eval", "faster-rcnn", given)
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_evaluation_is_no_checkpoint(tmp_path: Path) -> None:
    run = finished(tmp_path / "evaluated")
    base = compose("faster-rcnn").resolved
    resolved = compose("faster-rcnn", ["checkpoint=trained"], base=base).resolved
    (run / "config.yaml").write_text(yaml.safe_dump(resolved), encoding="utf-8")

    assert "its own is checkpoint=trained" in call("eval", "faster-rcnn", "checkpoint=evaluated").stderr


# --- resume, runs -----------------------------------------------------------------------------------------------------


def test_resume_hands_the_directory_over(engine: Engine, tmp_path: Path) -> None:
    finished(tmp_path / "run")

    assert call("resume", "run").exit_code == 0
    assert engine.resumed == Path("run")


def test_resume_of_what_is_no_run(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for folder in ("nowhere", "empty"):
        result = call("resume", folder)
        assert result.exit_code == 2
        assert folder in result.stderr
    assert engine.resumed is None


def test_resume_of_a_damaged_configuration_names_the_file(engine: Engine, tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    (run / "config.yaml").write_text("a: [", encoding="utf-8")

    result = call("resume", "run")
    assert result.exit_code == 4
    assert "run/config.yaml: damaged" in result.stderr
    assert engine.resumed is None


def test_runs_are_listed_newest_first_with_dead_ones_interrupted(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    done = finished(root / "faster-rcnn/a", updated="2024-01-01T00:00:00+00:00")
    (done / "results.json").write_text(json.dumps({"metrics": {"coco/AP": 41.5, "x": 1}}), encoding="utf-8")
    finished(
        root / "faster-rcnn/b", state="running", step=3, best=7.0, updated="2024-02-01T00:00:00+00:00", pid=os.getpid()
    )
    finished(root / "faster-rcnn/c", state="stopped", updated="2024-03-01T00:00:00+00:00")
    (root / "faster-rcnn/d").mkdir()
    (root / "faster-rcnn/d/config.yaml").write_text("a: [", encoding="utf-8")
    (root / "faster-rcnn/d/status.json").touch()

    listed = json.loads(call("runs", "--json").stdout)
    assert [(Path(run["directory"]).name, run["state"]) for run in listed] == [
        ("c", "stopped"),
        ("b", "interrupted"),
        ("a", "done"),
    ]
    assert (listed[2]["metric"], listed[2]["value"]) == ("coco/AP", 41.5)
    assert (listed[1]["step"], listed[1]["steps"], listed[1]["best"]) == (3, 8, 7.0)
    text = call("runs").stdout
    assert "interrupted" in text
    assert "coco/AP 41.5" in text
    assert "best 7" in text
    assert "no runs below elsewhere" in call("runs", "elsewhere").stdout


def test_a_locked_run_is_running(tmp_path: Path) -> None:
    from paperbench.engine.rundir import RunDirectory

    run = RunDirectory(finished(tmp_path / "outputs/e/a", state="running"))
    run.acquire()
    try:
        assert [info.state for info in find_runs(tmp_path / "outputs")] == ["running"]
    finally:
        run.release()


@pytest.mark.parametrize(
    ("updated", "said"),
    [
        ("2024-05-01T12:00:00+00:00", "0 s"),
        ("2024-05-01T11:57:30+00:00", "2 min"),
        ("2024-05-01T07:00:00+00:00", "5 h"),
        ("2024-04-01T12:00:00+00:00", "30 d"),
        ("", ""),
    ],
)
def test_age(updated: str, said: str) -> None:
    from datetime import UTC, datetime

    assert age(updated, datetime(2024, 5, 1, 12, tzinfo=UTC)) == said
