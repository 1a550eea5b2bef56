"""The worker: one job, whatever state its runs are in."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.engine import claims
from paperbench.engine.claims import prepare
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import ENV_LAST_STEP
from paperbench.sweeps import worker
from tests.engine import toy


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    toy.register(monkeypatch)
    monkeypatch.setattr(claims, "_SECONDS_BETWEEN_LOOKS", 0.01)
    for name in (*worker.THREAD_VARIABLES, ENV_LAST_STEP):
        monkeypatch.setenv(name, "1")  # and so put back afterwards
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def work(*arguments: object) -> int:
    return worker.main([str(argument) for argument in arguments], watch_parent=False)


def made(path: Path, **changes: Any) -> RunDirectory:
    prepare(path, toy.config(**changes))
    return RunDirectory.open(path)


def test_a_run_from_waiting_to_done(tmp_path: Path) -> None:
    directory = made(tmp_path / "run")
    assert work(directory.path) == 0
    assert (directory.current_state(), directory.is_locked()) == ("done", False)
    before = {file: file.stat().st_mtime_ns for file in directory.path.rglob("*") if file.name != "lock"}
    assert work(directory.path) == 0
    assert {file: file.stat().st_mtime_ns for file in directory.path.rglob("*") if file.name != "lock"} == before


def test_a_failure_is_told_by_exit_code_and_directory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = made(tmp_path / "run", fault="data@3")
    assert work(directory.path) == 4
    assert directory.status()["error"] == "DataError"
    assert work(tmp_path / "nowhere") == 2
    assert f"there is no run directory {tmp_path / 'nowhere'}" in capfd.readouterr().err


def test_a_stopped_run_continues(tmp_path: Path) -> None:
    directory = made(tmp_path / "run", fault="term@4")
    assert work(directory.path) == 3
    assert (directory.current_state(), directory.status()["step"]) == ("stopped", 5)
    assert work(directory.path) == 0


def test_a_run_stops_after_the_last_step_that_is_asked_for(tmp_path: Path) -> None:
    directory = made(tmp_path / "run")
    assert work("--last-step", 4, directory.path) == 3
    assert (directory.status()["state"], directory.status()["step"]) == ("stopped", 4)
    assert work(directory.path) == 0


def test_a_run_in_other_hands_is_waited_for(tmp_path: Path) -> None:
    directory = made(tmp_path / "run")
    directory.acquire()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(work(directory.path)))
    thread.start()
    time.sleep(0.2)
    assert codes == []
    directory.release()
    thread.join()
    assert codes == [0]


def test_threads_are_shared_and_a_run_that_continues_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    directory = made(tmp_path / "run", fault="term@4", threads=0)
    assert work("--threads", 2, directory.path) == 3
    assert (torch.get_num_threads(), facts(directory)["threads"]) == (2, 2)
    assert work("--threads", 1, directory.path) == 0
    assert facts(directory)["resumed"][0]["threads"] == 2, "other sums would be other weights"


def test_a_smaller_machine_does_not_take_over_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = made(tmp_path / "run", fault="term@4", threads=0)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert work("--threads", 4, directory.path) == 3
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert work("--threads", 1, directory.path) == 0
    assert facts(directory)["resumed"][0]["threads"] == 1


def facts(directory: RunDirectory) -> dict[str, Any]:
    return json.loads((directory.path / "env.json").read_text())


def test_several_runs_are_a_stack_of_those_that_are_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stacked: list[list[str]] = []

    def execute_stacked(directories: Any, reporters: Any, stop: Any) -> list[Any]:
        stacked.append([directory.path.name for directory in directories])
        assert all(directory.is_locked() for directory in directories)
        return []

    monkeypatch.setattr("paperbench.engine.stacked.execute_stacked", execute_stacked)
    paths = [made(tmp_path / name, seed=seed).path for seed, name in enumerate("cab")]
    assert work(*paths) == 0
    assert stacked == [["a", "b", "c"]], "locks are taken in one order everywhere"
    assert work(paths[0]) == 0
    assert work(*paths) == 0
    assert stacked[1] == ["a", "b"]
    assert work(*paths[:2]) == 0, "one alone is trained as always"
    assert stacked[2:] == []
    assert RunDirectory.open(paths[1]).current_state() == "done"
