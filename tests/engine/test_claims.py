"""Runs made by one process and done by another: whatever is interrupted is completed, and what is done stays done."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from paperbench.engine import claims, launch
from paperbench.engine.claims import claim, confirm_done_if_free, prepare
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.errors import ConfigError
from tests.engine import toy


@pytest.fixture(autouse=True)
def toy_task(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    monkeypatch.setattr(claims, "_SECONDS_BETWEEN_LOOKS", 0.01)


def test_a_prepared_run_waits_and_is_not_taken_for_a_killed_one(tmp_path: Path) -> None:
    prepare(tmp_path / "run", toy.config())
    directory = RunDirectory.open(tmp_path / "run")
    assert (directory.current_state(), directory.is_locked()) == ("waiting", False)
    before = {file: file.stat().st_mtime_ns for file in directory.path.iterdir() if file.name != "lock"}
    prepare(tmp_path / "run", toy.config())
    assert {file: file.stat().st_mtime_ns for file in directory.path.iterdir() if file.name != "lock"} == before
    assert launch.resume(tmp_path / "run", SilentReporter()).status == "done"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("writes", [0, 1], ids=["before the status", "before the config"])
def test_killed_while_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Each file is written by `write_atomic`; the kill leaves half of the next one under its temporary name."""
    left = writes

    def dying(path: Path, content: Any) -> None:
        nonlocal left
        if left == 0:
            path.with_name(f".{path.name}.123.tmp").write_text("half")
            raise Killed
        left -= 1
        original(path, content)

    original = claims.write_atomic
    with monkeypatch.context() as patch:
        patch.setattr("paperbench.engine.files.write_atomic", dying)
        patch.setattr(claims, "write_atomic", dying)
        with pytest.raises(Killed):
            prepare(tmp_path / "run", toy.config())
    assert not (tmp_path / "run" / "config.yaml").exists()
    prepare(tmp_path / "run", toy.config())
    assert RunDirectory.open(tmp_path / "run").current_state() == "waiting"
    assert [file.name for file in (tmp_path / "run").glob(".*")] == []


def test_two_make_the_same_run_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    other = RunDirectory(tmp_path / "run")
    assert other.lock.acquire()
    thread = threading.Thread(target=prepare, args=(tmp_path / "run", toy.config()))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive(), "the other one may be about to write the configuration"
    other.release()
    thread.join()
    assert RunDirectory.open(tmp_path / "run").current_state() == "waiting"


def test_what_is_no_run_of_this_configuration_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt without a config\.yaml; move it away"):
        prepare(tmp_path / "run", toy.config())
    prepare(tmp_path / "other", toy.config(seed=1))
    with pytest.raises(ConfigError, match="another configuration than its name says"):
        prepare(tmp_path / "other", toy.config(seed=2))
    prepare(tmp_path / "other", toy.config(seed=1, train__log_every=1))  # changes no result
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_claiming_waits_for_whoever_is_at_work(tmp_path: Path) -> None:
    prepare(tmp_path / "run", toy.config())
    other = RunDirectory.open(tmp_path / "run")
    other.acquire()
    claimed: list[RunDirectory | None] = []
    thread = threading.Thread(target=lambda: claimed.append(claim(tmp_path / "run", StopFlag())))
    thread.start()
    time.sleep(0.3)
    assert claimed == []
    other.update_status(state="stopped", step=4)
    other.release()
    thread.join()
    assert claimed[0] is not None
    assert claimed[0].is_locked()
    claimed[0].update_status(message="here")
    assert claimed[0].status()["step"] == 4, "the status is that of the moment the lock was had"
    claimed[0].release()


def test_what_was_done_while_waiting_is_not_done_again(tmp_path: Path) -> None:
    launch.start(toy.config(), run_dir=tmp_path / "run", reporter=SilentReporter())
    directory = RunDirectory.open(tmp_path / "run")
    before = (tmp_path / "run" / "results.json").stat().st_mtime_ns
    assert claim(tmp_path / "run", StopFlag()) is None
    directory.update_status(state="running")  # killed between the results and the status
    assert claim(tmp_path / "run", StopFlag()) is None
    assert directory.current_state() == "done"
    directory.update_status(state="running")
    assert launch.resume(tmp_path / "run", SilentReporter()).message == "done already"
    directory.update_status(state="running")
    confirm_done_if_free(tmp_path / "run")
    assert directory.current_state() == "done"
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns == before


def test_a_stop_ends_the_waiting(tmp_path: Path) -> None:
    prepare(tmp_path / "run", toy.config())
    other = RunDirectory.open(tmp_path / "run")
    other.acquire()
    stop = StopFlag()
    stop.set("SIGTERM")
    assert claim(tmp_path / "run", stop) is None
    other.release()
