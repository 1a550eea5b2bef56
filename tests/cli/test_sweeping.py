"""`paperbench sweep` as a person meets it; its runs are those of the engine's toy, in the test's own process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import DataError
from paperbench.sweeps.launchers import base
from tests.engine import toy
from tests.sweeps import toys


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    monkeypatch.setitem(base.REGISTRY, "local", "tests.sweeps.toys:InThisProcess")  # type: ignore[arg-type]
    toys.conf(tmp_path / "conf")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["sweep", *arguments])


def told(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout)


def test_a_dry_run_shows_every_run_and_writes_nothing(tmp_path: Path) -> None:
    result = call("toy", "seed=0,1", "width=4,8", "train.samples=12", "--dry-run")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "4 runs, sweep " in lines[0]
    assert lines[1] == "every run: train.samples=12"
    assert lines[2].split() == ["seed", "width", "run", "state"]
    assert [line.split()[:2] for line in lines[3:7]] == [["0", "4"], ["0", "8"], ["1", "4"], ["1", "8"]]
    assert all(line.endswith("  to do") for line in lines[3:7])
    assert lines[7] == "4 to run, 0 not"
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_runs_are_done_and_the_same_command_finds_them_done() -> None:
    result = call("toy", "seed=0,1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("sweep toy (")
    assert lines[0].endswith("): 2 runs")
    assert lines[1] == "[0/2]  running  seed=0"
    assert lines[2].startswith("[1/2]  done  seed=0  test/error ")
    assert lines[5].split() == ["seed", "run", "test/error"]
    assert [line.split()[0] for line in lines[6:8]] == ["0", "1"]
    assert lines[6].split()[2] in lines[2]  # the result that was printed when the run ended
    assert lines[8] == "toy: 2 of 2 runs done"
    again = call("toy", "seed=0,1").stdout.splitlines()
    assert again[1:4] == lines[5:8]
    assert again[4] == "toy: 2 of 2 runs done (2 of them before)"
    states = [line.split()[-1] for line in call("toy", "seed=0,1,2", "--dry-run").stdout.splitlines()[2:5]]
    assert states == ["done", "done", "do"]


def test_states_in_a_dry_run() -> None:
    assert call("toy", 'fault="",term@4,data@3,nan@3,inf@0').exit_code == 1
    result = call("toy", 'fault="",term@4,data@3,nan@3,inf@0', "--dry-run")
    states = [line.split("  ")[-1] for line in result.stdout.splitlines()[2:7]]
    assert states[0] == "done"
    assert states[1] == "continues at step 5 of 9"
    assert states[2].startswith("failed, tried again: points.txt: no sample")
    assert states[3].startswith("failed: ")
    assert result.stdout.splitlines()[-1] == "2 to run, 3 not"
    retried = call("toy", 'fault="",term@4,data@3,nan@3,inf@0', "--dry-run", "--retry-failed")
    assert retried.stdout.splitlines()[-1] == "4 to run, 1 not"
    runs = told(call("toy", 'fault="",term@4', "--dry-run", "--json"))["runs"]
    assert [(run["state"], run["step"], run["labels"]) for run in runs] == [
        ("done", 9, {"fault": '""'}),
        ("continues", 5, {"fault": "term@4"}),
    ]


def test_a_failure_is_named_with_the_end_of_its_log_and_what_to_type() -> None:
    result = call("toy", 'fault="",nan@3', "--jobs", "2")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("toy: "))
    assert lines[at] == "toy: 1 of 2 runs done, 1 failed"
    assert lines[at + 1].startswith("failed: fault=nan@3, after 0:0")
    assert any(line.startswith("  | ") and "raise not_finite_error" in line for line in lines[at:])
    assert sum("not finite at step 3" in line for line in lines[at:]) == 1, "said once"
    command = lines[-1].split("  ")[-1].removeprefix(" ").split()
    assert command[:3] == ["paperbench", "sweep", "--resume"]
    assert command[4:] == ["--jobs", "2", "--retry-failed"]
    again = call(*command[2:], "--json")
    assert again.exit_code == 0
    assert [(run["state"], run["reused"]) for run in told(again)["runs"]] == [("done", True), ("done", False)]


def test_a_stopped_run_ends_in_3_and_continues_by_id() -> None:
    result = call("toy", 'fault="",term@4', "--json")
    assert result.exit_code == 3
    document = told(result)
    assert document["exit_code"] == 3
    assert [run["state"] for run in document["runs"]] == ["done", "stopped"]
    assert document["runs"][0]["results"]["metrics"]["test/error"] > 0
    assert Path(document["runs"][0]["directory"]) == Path("outputs/toy") / document["runs"][0]["hash"]
    again = call("--resume", document["sweep"][:8])
    assert again.exit_code == 0
    assert "toy: 2 of 2 runs done (1 of them before)" in again.stdout


def test_a_sweep_elsewhere_is_found_below_its_root() -> None:
    document = told(call("toy", "seed=0", "output.root=there/deep", "--json"))
    assert Path(document["directory"]).parts[:2] == ("there", "deep")
    assert call("--resume", document["sweep"], "output.root=there/deep").exit_code == 0
    assert call("--resume", document["directory"]).exit_code == 0
    missing = call("--resume", document["sweep"])
    assert (missing.exit_code, "no sweep of that id below outputs" in missing.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name an experiment"),
        (("--resume", "x", "toy", "seed=1"), "leave out toy seed=1"),
        (("--resume", "x", "--smoke"), "leave out scale=smoke"),
        (("toy", "seed=1", "--launcher", "slrm"), "Nearest: slurm"),
        (("toy", "seed=1", "--stacked"), "task toy cannot train several runs stacked"),
        (("toy", "launcher.x=1", "sed=1"), "launcher.x: no such key"),
        (("toy", "launcher.x=1", "sed=1"), "sed: no such key"),
        (("toy", "seed=1", "--seed", "2"), "seed: given twice"),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_a_launcher_that_was_begun_is_closed_when_a_task_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(toys.InThisProcess, "warm_up", lambda self: done.append("warm_up"), raising=False)
    monkeypatch.setattr(toys.InThisProcess, "close", lambda self: done.append("close"))

    def refusing(config: toy.ToyConfig) -> dict[str, str]:
        done.append("asked")
        raise DataError("points.txt: no such file")

    with monkeypatch.context() as patch:
        patch.setattr(toy, "plan", refusing)
        result = call("toy", "seed=1,2")
    assert (result.exit_code, result.stderr) == (4, "error: points.txt: no such file\n")
    assert done == ["warm_up", "asked", "close"]
    assert call("toy", "sed=1,2").exit_code == 2
    assert call("toy", "seed=1,2", "--dry-run").exit_code == 0
    assert done == ["warm_up", "asked", "close"], "nothing is begun for a mistake or a dry run"
    assert call("toy", "seed=1,2").exit_code == 0
    assert call("toy", "seed=1,2").exit_code == 0
    assert done[3:] == ["warm_up", "close", "close"], "nothing is warmed for what is done"


def test_the_options_stand_for_overrides() -> None:
    document = told(call("toy", "width=4,8", "--seed", "5", "--device", "cpu", "--dry-run", "--json"))
    assert document["overrides"] == ["width=4,8", "seed=5", "device=cpu"]


def test_the_plain_commands_point_to_sweep() -> None:
    result = CliRunner().invoke(app, ["train", "toy", "seed=1,2"])
    assert result.exit_code == 2
    assert "run each of them with `paperbench sweep`" in result.stderr


def test_runs_of_a_sweep_are_runs_like_any_other() -> None:
    call("toy", "seed=0,1")
    listed = json.loads(CliRunner().invoke(app, ["runs", "--json"]).stdout)
    assert sorted(run["seed"] for run in listed) == [0, 1]
    assert {run["state"] for run in listed} == {"done"}
    assert all(RunDirectory.open(run["directory"]).results() for run in listed)
