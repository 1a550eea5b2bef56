"""Where a run stands, by its files: those that a kill at any moment may leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paperbench.engine.claims import prepare
from paperbench.engine.rundir import RunDirectory
from paperbench.records.record import log_tail, read_status
from tests.engine import toy


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    toy.register(monkeypatch)
    prepare(tmp_path / "run", toy.config())
    return RunDirectory.open(tmp_path / "run")


def results(directory: RunDirectory, **changes: Any) -> None:
    directory.write_results(config={}, metrics={}, data="", device="cpu", precision="float32", **changes)


def test_a_run_that_was_not_begun(tmp_path: Path, directory: RunDirectory) -> None:
    assert read_status(tmp_path / "nowhere").state == "to do"
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "status.json").write_text("{}")
    assert read_status(tmp_path / "half").state == "to do"
    assert read_status(directory.path).state == "to do"


def test_a_run_that_continues(directory: RunDirectory) -> None:
    directory.update_status(state="stopped", step=4, steps=9, best=1)
    now = read_status(directory.path)
    assert (now.state, now.step, now.steps, now.best, now.killed) == ("continues", 4, 9, 1.0, False)
    directory.update_status(state="running")
    assert (read_status(directory.path).state, read_status(directory.path).killed) == ("continues", True)
    directory.status_file.unlink()
    assert (read_status(directory.path).state, read_status(directory.path).killed) == ("continues", True)


def test_a_failed_run(directory: RunDirectory) -> None:
    directory.update_status(state="failed", message="no", error="DataError", exit_code=4)
    now = read_status(directory.path)
    assert (now.state, now.message, now.error, now.by_environment) == ("failed", "no", "DataError", True)
    directory.update_status(exit_code=1)
    assert not read_status(directory.path).by_environment


def test_with_its_results_a_run_is_done_whatever_its_status_says(directory: RunDirectory) -> None:
    directory.update_status(state="running", step=9, steps=9)
    results(directory)
    now = read_status(directory.path)
    assert (now.state, now.step, now.killed) == ("done", 9, False)
    assert now.results is not None


def test_a_run_in_somebody_s_hands_is_running(directory: RunDirectory) -> None:
    results(directory)
    directory.acquire()
    now = read_status(directory.path)
    assert (now.state, now.results) == ("running", None)
    directory.release()


def test_the_end_of_a_log(directory: RunDirectory, tmp_path: Path) -> None:
    assert log_tail(tmp_path / "nowhere") == ()
    directory.log_file.write_text("x" * 10_000 + "\n\n" + "".join(f"line {i}\n\n" for i in range(100)))
    assert log_tail(directory.path, 3) == ("line 97", "line 98", "line 99")
