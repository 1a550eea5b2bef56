"""Reading what runs left on disk, whole or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from paperbench.engine.rundir import FAILED, RUNNING, STOPPED, RunDirectory
from paperbench.records.record import DAMAGED, INTERRUPTED, NOT_STARTED, RunRecord, read_run
from tests.report.html import made


def loaded(folder: Path) -> RunRecord:
    return read_run(folder)


def test_a_run_with_everything(tmp_path: Path) -> None:
    run = loaded(made.run(tmp_path / "run", pictures=[("b.png", 8), ("a.png", 8), ("deep/c.jpg", 8)]))

    assert (run.state, run.done, run.faults) == ("done", True, ())
    assert (run.experiment, run.scale, run.seed, run.name) == ("toy", "short", 0, "run")
    assert [path.name for path in run.figures()] == ["a.png", "b.png", "c.jpg"]
    assert run.checkpoints[0].step == 40
    assert run.checkpoints[0].size == 12345678
    assert len(run.log) == 40
    assert "said while it ran" in run.log_tail()


def test_metrics_are_the_numbers_of_the_file_and_nothing_else(tmp_path: Path) -> None:
    run = loaded(made.run(tmp_path / "run"))
    stored = json.loads((tmp_path / "run/results.json").read_text())["metrics"]

    assert stored["toy/none"] is None
    assert run.metrics == {name: value for name, value in stored.items() if value is not None}


@pytest.mark.parametrize(("state", "expected"), [(FAILED, FAILED), (STOPPED, STOPPED), (RUNNING, INTERRUPTED)])
def test_an_unfinished_run_says_so(tmp_path: Path, state: str, expected: str) -> None:
    run = loaded(made.run(tmp_path / "run", state=state, message="it was so", logged=7))

    assert (run.state, run.done, run.message, run.metrics) == (expected, False, "it was so", {})


def test_a_run_at_work_is_running(tmp_path: Path) -> None:
    made.run(tmp_path / "run", state=RUNNING)
    directory = RunDirectory.open(tmp_path / "run")
    directory.acquire()
    try:
        assert loaded(tmp_path / "run").state == RUNNING
    finally:
        directory.release()


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def listed(path: Path) -> None:
    path.write_text("[1, 2]")


@pytest.mark.parametrize("damage", [remove, cut, binary, listed])
@pytest.mark.parametrize("file", ["status.json", "results.json"])
def test_damage_is_told_and_not_fatal(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    damage(made.run(tmp_path / "run") / file)
    run = loaded(tmp_path / "run")

    assert run.state == DAMAGED
    assert not run.done
    assert len(run.faults) == 1
    assert run.faults[0].startswith(file)


@pytest.mark.parametrize("damage", [cut, binary, listed])
def test_a_damaged_environment_spoils_no_results(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(made.run(tmp_path / "run") / "env.json")
    run = loaded(tmp_path / "run")

    assert run.done
    assert run.environment == {}
    assert run.faults[0].startswith("env.json")


@pytest.mark.parametrize("damage", [binary, listed])
def test_a_damaged_configuration(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(made.run(tmp_path / "run") / "config.yaml")
    run = loaded(tmp_path / "run")

    assert run.state == DAMAGED
    assert run.config == {}
    assert run.faults[0].startswith("config.yaml")
    assert run.metrics["toy/count"] == 1234


def test_a_record_of_metrics_with_rubbish_in_it(tmp_path: Path) -> None:
    folder = made.run(tmp_path / "run", steps=3)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\xff\n{"step": "x"}\n[]\n{"step": 9, "train/loss": 0.5}\n{"step": 10, "tra')

    assert [record["step"] for record in loaded(folder).log] == [1, 2, 3, 9]


def test_what_is_not_there_has_not_started(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for name in ("nothing", "empty"):
        run = read_run(tmp_path / name, name=name, labels={"seed": "4"})
        assert (run.state, run.seed, run.log, run.figures(), run.log_tail()) == (NOT_STARTED, "4", [], [], "")


def test_the_configuration_of_an_earlier_version_has_the_keys_of_this_one(tmp_path: Path) -> None:
    resolved = {"experiment": "faster-rcnn", "task": "detect-train", "seed": 4, "optim": {"name": "sgd", "lr": 0.1}}
    old = made.run(
        tmp_path / "run", resolved={**resolved, "model": {"name": "faster-rcnn", "rpn": {"post_nms_test": 300}}}
    )

    run = read_run(old)
    assert (run.done, run.seed) == (True, 4)
    assert run.flat_config["model.rpn.post_nms_topk_test"] == 300
    assert "model.rpn.post_nms_test" not in run.flat_config
