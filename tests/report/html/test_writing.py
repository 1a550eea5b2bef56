"""Where a report goes, and what it never writes over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from paperbench.errors import ConfigError, EnvironmentError_
from paperbench.report.html.writing import write_report
from tests.report.html import made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made.run(tmp_path / "run", steps=5)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


FILES = {"report.html", "report.md", "report-metrics.csv", "report-classes.csv", "report-checkpoints.csv"}


def test_by_default_it_lies_in_the_folder_itself(run: Path) -> None:
    report = write_report(run)

    assert report.html == run / "report/report.html"
    assert names(run / "report") == FILES
    assert report.size == report.html.stat().st_size


def test_a_folder_is_made(run: Path, tmp_path: Path) -> None:
    write_report(run, tmp_path / "deep/er")

    assert names(tmp_path / "deep/er") == FILES


def test_a_file_names_all_that_lies_beside_it(run: Path, tmp_path: Path) -> None:
    write_report(run, tmp_path / "out/mine.html")

    assert names(tmp_path / "out") == {name.replace("report", "mine") for name in FILES}


def test_a_second_report_replaces_the_first_and_what_it_lacks(run: Path) -> None:
    write_report(run)
    (run / "report/report-runs.csv").touch()
    (run / "report/notes.csv").touch()
    (run / "checkpoints/manifest.json").unlink()
    write_report(run)

    assert names(run / "report") == FILES - {"report-checkpoints.csv"} | {"notes.csv"}


@pytest.mark.parametrize("name", ["mine.html", "mine.md", "mine-runs.csv"])
def test_a_file_of_somebody_else_is_left_alone(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")

    with pytest.raises(ConfigError, match=name):
        write_report(run, tmp_path / "mine.html")
    assert (tmp_path / name).read_text() == "precious"
    assert names(tmp_path) == {"run", name}


def test_an_output_that_is_a_file_of_another_kind(run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(ConfigError, match=r"ends in \.html"):
        write_report(run, tmp_path / "notes.txt")


def test_a_place_that_cannot_be_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EnvironmentError_, match=r"cannot write the report: .*file.*--output"):
        write_report(run, tmp_path / "file/below")


def test_nothing_is_made_for_what_cannot_be_reported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigError):
        write_report(tmp_path / "empty", tmp_path / "out")
    assert names(tmp_path) == {"empty"}


def test_an_interrupted_report_does_not_stand_in_the_way_of_the_next(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("paperbench.report.html.writing.to_document", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_report(run)
    write_report(run)

    assert names(run / "report") == FILES


def _interrupted(*_: object, **__: object) -> str:
    raise KeyboardInterrupt


def test_a_picture_whose_name_is_no_text_does_not_stand_in_the_way(run: Path) -> None:
    (run / "figures").mkdir(exist_ok=True)
    Image.new("L", (8, 8)).save(run / "figures" / os.fsdecode(b"caf\xe9.png"))

    report = write_report(run)
    assert rb"caf\udce9" in report.html.read_bytes()
    assert report.size == report.html.stat().st_size


def test_pipes_and_folders_in_the_place_of_a_report_are_left_alone(run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.html")
    with pytest.raises(ConfigError, match="is a pipe"):
        write_report(run, tmp_path / "mine.html")
    (tmp_path / "mine.html").unlink()
    os.mkfifo(tmp_path / "mine.md")
    with pytest.raises(ConfigError, match="is a pipe"):
        write_report(run, tmp_path / "mine.html")
    assert not (tmp_path / "mine.html").exists()
