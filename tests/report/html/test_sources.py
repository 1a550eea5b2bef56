"""Reading what runs left on disk, whole or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from paperbench.engine.rundir import FAILED, RUNNING, STOPPED, RunDirectory
from paperbench.errors import ConfigError, DataError
from paperbench.report.html.records import (
    DAMAGED,
    INTERRUPTED,
    NOT_STARTED,
    ReproductionRecord,
    RunRecord,
    SweepRecord,
)
from paperbench.report.html.sources import load, load_run
from tests.report.html import made


def loaded(folder: Path) -> RunRecord:
    record = load(folder)
    assert isinstance(record, RunRecord)
    return record


def test_a_run_with_everything(tmp_path: Path) -> None:
    run = loaded(made.run(tmp_path / "run", pictures=[("b.png", 8), ("a.png", 8), ("deep/c.jpg", 8)]))

    assert (run.state, run.done, run.faults) == ("done", True, ())
    assert (run.experiment, run.scale, run.seed, run.name) == ("toy", "short", 0, "run")
    assert [path.name for path in run.figures()] == ["a.png", "b.png", "c.jpg"]
    assert run.checkpoints[0].step == 40
    assert run.checkpoints[0].size == 12345678
    assert len(run.records) == 40
    assert "said while it ran" in run.log_tail()


def test_metrics_are_the_numbers_of_the_file_and_nothing_else(tmp_path: Path) -> None:
    run = loaded(made.run(tmp_path / "run"))
    stored = json.loads((tmp_path / "run/results.json").read_text())["metrics"]

    assert stored["toy/none"] is None
    assert run.metrics == {name: value for name, value in stored.items() if value is not None}


@pytest.mark.parametrize("name", ["run", "run/config.yaml", "run/results.json"])
def test_a_run_may_be_named_by_one_of_its_files(tmp_path: Path, name: str) -> None:
    made.run(tmp_path / "run")

    assert loaded(tmp_path / name).directory == tmp_path / "run"


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

    assert [record["step"] for record in loaded(folder).records] == [1, 2, 3, 9]


def test_what_is_not_there_has_not_started(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for name in ("nothing", "empty"):
        run = load_run(tmp_path / name, name=name, labels={"seed": "4"})
        assert (run.state, run.seed, run.records, run.figures(), run.log_tail()) == (NOT_STARTED, "4", [], [], "")


# --- sweeps and reproductions -----------------------------------------------------------------------------------------


def test_a_sweep_finds_its_runs_beside_it(tmp_path: Path) -> None:
    folder = made.sweep(tmp_path, [{"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0}])
    record = load(folder / "sweep.json")

    assert isinstance(record, SweepRecord)
    assert [run.done for run in record.runs] == [True, True]
    assert record.runs[1].labels == {"optim.lr": "0.2", "seed": "0"}
    assert ".." not in str(record.runs[0].directory)


def test_a_reproduction_comes_before_its_sweep(tmp_path: Path) -> None:
    folder = made.reproduction(tmp_path / "r", ["a"], {"x": {"a": made.cell([1.0], 1.0)}})
    made.record(folder, [made.entry(folder, made.run(tmp_path / "run"), {})])

    record = load(folder)
    assert isinstance(record, ReproductionRecord)
    assert [run.name for run in record.runs] == ["run"]
    assert isinstance(load(folder / "sweep.json"), SweepRecord)


@pytest.mark.parametrize("file", ["sweep.json", "reproduction.json"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"schema_version": 2}', "has format 2"),
        ('{"schema_version": 1}', "again"),
        ('{"schema_version": 1, "runs": [{}], "rows": [{}], "columns": []}', "again"),
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(tmp_path: Path, file: str, text: str, said: str) -> None:
    (tmp_path / file).write_text(text)

    with pytest.raises(DataError, match=said) as error:
        load(tmp_path)
    assert str(tmp_path / file) in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("verdict", None, r"rows\.0\.cells\.a\.verdict: Input should be a valid string"),
        ("mean", "9", r"cells\.a\.mean"),
        ("interval", [1.0], r"cells\.a\.interval"),
        ("values", [{"seed": 0, "value": None, "run": ""}], r"cells\.a\.values\.0\.value"),
    ],
)
def test_a_cell_that_cannot_be_drawn_is_found_before_anything_is(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    folder = made.reproduction(tmp_path / "r", ["a"], {"x": {"a": {**made.cell([1.0], 1.0), key: value}}})

    with pytest.raises(DataError, match=said):
        load(folder)


# --- neither ----------------------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        load(tmp_path / "nothing")


def test_a_folder_of_something_else_is_told_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml.*sweep\.json.*reproduction\.json.*paperbench runs"):
        load(tmp_path)


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    for name in "abcd":
        made.run(tmp_path / "outputs" / name, steps=1)

    with pytest.raises(ConfigError, match=r"below it: .*outputs/a, .*outputs/b, .*outputs/c and 1 more"):
        load(tmp_path / "outputs")


def test_a_file_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(ConfigError, match="name the folder of one"):
        load(tmp_path / "notes.txt")
