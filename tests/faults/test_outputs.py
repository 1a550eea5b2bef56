"""Two processes on one run directory, and places that cannot be written."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

import pytest

from paperbench.engine.launch import resume, start
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EnvironmentError_, RunLockedError, Stopped
from tests.engine import processes, toy


def test_two_processes_on_one_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    run_dir = tmp_path / "run"
    first = processes.spawn(processes.start_here, toy.config(fault="hang@4"), run_dir)
    processes.wait_for(lambda: (run_dir / "fault-struck").exists())
    before = processes.status(run_dir)
    for attempt in (
        lambda: resume(run_dir, SilentReporter()),
        lambda: RunDirectory.open(run_dir).acquire(),
    ):
        with pytest.raises(RunLockedError, match=f"in use by pid {first.pid} on {socket.gethostname()}") as caught:
            attempt()
        assert caught.value.exit_code == 4
    assert RunDirectory.open(run_dir).current_state() == "running"
    assert processes.status(run_dir) == before, "the second one touched nothing"
    first.kill()
    first.join()
    assert resume(run_dir, SilentReporter()).status == "done"


def test_two_processes_that_find_the_same_folder_empty(tmp_path: Path) -> None:
    """The second one arrives between the first one's look into the folder and its first file."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    other = RunDirectory(run_dir)
    other.acquire()
    with pytest.raises(RunLockedError):
        RunDirectory.create(tmp_path, "toy", toy.config(), run_dir)
    other.release()
    assert [file.name for file in run_dir.iterdir()] == ["lock"]


def test_an_output_root_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    root = tmp_path / "outputs"
    root.write_text("mine")
    with pytest.raises(EnvironmentError_, match=r"outputs/toy/.*--run-dir or output\.root") as caught:
        start(toy.config(output={"root": str(root)}), run_dir=None, reporter=SilentReporter())
    assert caught.value.exit_code == 4
    assert root.read_text() == "mine"
    with pytest.raises(EnvironmentError_, match="outputs is a file; choose another --run-dir"):
        start(toy.config(), run_dir=root, reporter=SilentReporter())


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
def test_a_read_only_output_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    toy.register(monkeypatch)

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(EnvironmentError_) as caught:
            start(toy.config(output={"root": str(tmp_path / "out")}), run_dir=None, reporter=SilentReporter())
    assert caught.value.exit_code == 4
    assert str(tmp_path / "out") in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert "--run-dir" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_which_no_file_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    original = Path.open

    def refuse(self: Path, mode: str = "r", *arguments: object, **options: object) -> object:
        if mode != "r" and self.is_relative_to(tmp_path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return original(self, mode, *arguments, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(EnvironmentError_, match=os.strerror(errno.EROFS)):
            start(toy.config(), run_dir=tmp_path / "deep" / "run", reporter=SilentReporter())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(EnvironmentError_, match="Permission denied"):
            start(toy.config(), run_dir=tmp_path / "run", reporter=SilentReporter())
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("ends", [OSError("what follows from it"), Stopped("stopped on SIGTERM"), None])
def test_a_run_folder_that_is_removed_while_the_run_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Exception | None
) -> None:
    toy.register(monkeypatch)
    folder = tmp_path / "run"

    def run(config: toy.ToyConfig, run: object) -> dict[str, float]:
        shutil.rmtree(folder)
        if ends is not None:
            raise ends
        return {}

    monkeypatch.setattr(toy, "run", run)
    with pytest.raises(
        EnvironmentError_, match=r"run is gone: it was removed or moved while the run worked in it"
    ) as caught:
        start(toy.config(), run_dir=folder, reporter=SilentReporter())
    assert caught.value.exit_code == 4
    assert not folder.exists()
