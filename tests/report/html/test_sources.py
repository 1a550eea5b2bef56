"""The subject of a report: a run, a sweep, a reproduction, or neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.errors import ConfigError, DataError
from paperbench.records.record import RunRecord
from paperbench.records.sweeps import SweepRecord
from paperbench.report.html.sources import ReproductionRecord, load
from tests.report.html import made


@pytest.mark.parametrize("name", ["run", "run/config.yaml", "run/results.json"])
def test_a_run_may_be_named_by_one_of_its_files(tmp_path: Path, name: str) -> None:
    made.run(tmp_path / "run")

    record = load(tmp_path / name)
    assert isinstance(record, RunRecord)
    assert record.directory == tmp_path / "run"


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
        ('{"schema_version": 9}', "has format 9"),
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
