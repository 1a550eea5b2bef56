"""Where a run stands, by its files: those that a kill at any moment may leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paperbench.engine.prepared import prepare
from paperbench.engine.rundir import RunDirectory
from paperbench.sweep.progress import Progress, ProgressFile, read
from paperbench.sweep.standing import log_tail, standing
from tests.engine import toy


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    toy.register(monkeypatch)
    prepare(tmp_path / "run", toy.config())
    return RunDirectory.open(tmp_path / "run")


def results(directory: RunDirectory, **changes: Any) -> None:
    directory.write_results(config={}, metrics={}, data="", device="cpu", precision="float32", **changes)


def test_a_run_that_was_not_begun(tmp_path: Path, directory: RunDirectory) -> None:
    assert standing(tmp_path / "nowhere").state == "to do"
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "status.json").write_text("{}")
    assert standing(tmp_path / "half").state == "to do"
    assert standing(directory.path).state == "to do"


def test_a_run_that_continues(directory: RunDirectory) -> None:
    directory.update_status(state="stopped", step=4, steps=9, best=1)
    now = standing(directory.path)
    assert (now.state, now.step, now.steps, now.best, now.killed) == ("continues", 4, 9, 1.0, False)
    directory.update_status(state="running")
    assert (standing(directory.path).state, standing(directory.path).killed) == ("continues", True)
    directory.status_file.unlink()
    assert (standing(directory.path).state, standing(directory.path).killed) == ("continues", True)


def test_a_failed_run(directory: RunDirectory) -> None:
    directory.update_status(state="failed", message="no", error="DataError", exit_code=4)
    now = standing(directory.path)
    assert (now.state, now.message, now.error, now.by_environment) == ("failed", "no", "DataError", True)
    directory.update_status(exit_code=1)
    assert not standing(directory.path).by_environment


def test_with_its_results_a_run_is_done_whatever_its_status_says(directory: RunDirectory) -> None:
    directory.update_status(state="running", step=9, steps=9)
    results(directory)
    now = standing(directory.path)
    assert (now.state, now.step, now.killed) == ("done", 9, False)
    assert now.results is not None


def test_a_run_in_somebody_s_hands_is_running(directory: RunDirectory) -> None:
    results(directory)
    directory.acquire()
    now = standing(directory.path)
    assert (now.state, now.results) == ("running", None)
    directory.release()


def test_the_end_of_a_log(directory: RunDirectory, tmp_path: Path) -> None:
    assert log_tail(tmp_path / "nowhere") == ()
    directory.log_file.write_text("x" * 10_000 + "\n\n" + "".join(f"line {i}\n\n" for i in range(100)))
    assert log_tail(directory.path, 3) == ("line 97", "line 98", "line 99")


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_told_through_a_file_that_goes_with_the_run(tmp_path: Path) -> None:
    now = 0.0
    file = ProgressFile(tmp_path, clock=lambda: now)
    assert read(tmp_path) is None
    file.progress("train", 1, 9, {"loss": 0.5, "bad": float("nan")})
    assert read(tmp_path) == Progress("train", 1, 9, {"loss": 0.5})
    file.progress("train", 2, 9, {})
    assert read(tmp_path) == Progress("train", 1, 9, {"loss": 0.5}), "not written at every step"
    file.progress("evaluate", 1, 4, {})
    assert read(tmp_path) == Progress("evaluate", 1, 4, {})
    now = 1.0
    file.progress("evaluate", 2, 4, {})
    assert read(tmp_path) == Progress("evaluate", 2, 4, {})
    file.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"phase": "x"}', '{"phase": "x", "done": 1, "total": null, "values": {}}']
)
def test_progress_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / ".progress.json").write_text(content)
    assert read(tmp_path) is None
    ProgressFile(tmp_path).start("", {})
    assert list(tmp_path.iterdir()) == [], "left by a session that was killed"


def test_progress_never_fails_a_run(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "nowhere")
    file.progress("train", 1, 9, {})
    file.close()
