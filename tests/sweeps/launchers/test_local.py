"""Runs as processes of their own on this machine: however one ends, the others do not notice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from paperbench import catalog
from paperbench.engine.claims import prepare
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EnvironmentError_
from paperbench.sweeps.launchers import server
from paperbench.sweeps.launchers.base import Context, ExitStatus, Job
from paperbench.sweeps.launchers.local import LocalHandle, LocalLauncher, LocalSettings
from tests.engine import processes, toy
from tests.sweeps import disturbed, reckless
from tests.sweeps.launchers import toys

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc")


@pytest.fixture(scope="module", autouse=True)
def _known_everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalog.TASKS, "reckless", reckless.SPEC)
        for name, value in toy.site(tmp_path_factory.mktemp("site"), reckless.SPEC).items():
            patch.setenv(name, value)
        yield


def made(
    folder: Path, start: Any = "auto", modules: Sequence[str] = ("tests.sweeps.reckless", "no.such.module")
) -> LocalLauncher:
    context = Context(name="test", directory=folder, jobs=2, threads=1, modules=tuple(modules))
    return LocalLauncher(LocalSettings(start=start), context)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLauncher]:
    """One for all tests: starting its server takes seconds."""
    launcher = made(tmp_path_factory.mktemp("sweep"))
    yield launcher
    launcher.close()


def submit(launcher: LocalLauncher, path: Path, act: str = "fine", threads: int = 1, **changes: Any) -> LocalHandle:
    config = {"experiment": "reckless", "task": "reckless", "device": "cpu", "act": act, **changes}
    prepare(path, config)
    return launcher.submit(Job(directories=(path,), threads=threads, name=path.name))


def again(launcher: LocalLauncher, path: Path) -> LocalHandle:
    return launcher.submit(Job(directories=(path,), threads=1, name=path.name))


def until(launcher: LocalLauncher, condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        launcher.wait(0.05)


def ending(launcher: LocalLauncher, handle: LocalHandle) -> ExitStatus:
    until(launcher, lambda: handle.poll() is not None)
    found = handle.poll()
    assert found is not None
    assert handle.poll() is found
    return found


def facts(path: Path) -> dict[str, Any]:
    return json.loads((path / "facts.json").read_text())


def test_a_run_is_a_process_of_its_own(launcher: LocalLauncher, tmp_path: Path) -> None:
    handles = [submit(launcher, tmp_path / str(i), threads=2, seed=i) for i in range(2)]
    assert [ending(launcher, handle) for handle in handles] == [ExitStatus(exit_code=0, signal=None)] * 2
    first, second = facts(tmp_path / "0"), facts(tmp_path / "1")
    assert first["pid"] == first["session"] == handles[0].pid != second["pid"]
    assert (first["threads"], first["omp"]) == (2, "2")
    assert first["parent"] == second["parent"] != os.getpid(), "forked from the server"
    if sys.platform.startswith("linux"):
        assert first["oom"] == "500", "when memory runs out, the kernel takes a run and not the sweep"
    results = RunDirectory.open(tmp_path / "0").results()
    assert results is not None
    assert results["metrics"] == {"test/error": 1.0}
    log = (tmp_path / "0" / "log.txt").read_text()
    assert "on stdout: fine" in log
    assert "on stderr: fine" in log
    assert [file.name for file in (tmp_path / "0").glob(".*")] == []


@pytest.mark.parametrize(
    ("act", "expected", "state", "said"),
    [
        ("raise", ExitStatus(exit_code=1, signal=None), "failed", "RuntimeError: a defect"),
        ("exit", ExitStatus(exit_code=1, signal=None), "failed", "SystemExit: 7"),
        ("full", ExitStatus(exit_code=4, signal=None), "failed", "No space left on device"),
        ("kill", ExitStatus(exit_code=None, signal=9, reason="killed by SIGKILL"), "killed", ""),
        (
            "segfault",
            ExitStatus(exit_code=None, signal=11, reason="killed by SIGSEGV"),
            "killed",
            "Fatal Python error: Segm",
        ),
    ],
)
def test_however_one_ends_its_sibling_does_not_notice(
    launcher: LocalLauncher, tmp_path: Path, act: str, expected: ExitStatus, state: str, said: str
) -> None:
    sibling = submit(launcher, tmp_path / "sibling", "wait")
    until(launcher, lambda: (tmp_path / "sibling" / "facts.json").exists())
    assert ending(launcher, submit(launcher, tmp_path / "run", act)) == expected
    assert RunDirectory.open(tmp_path / "run").current_state() == state
    assert said in (tmp_path / "run" / "log.txt").read_text()
    assert sibling.poll() is None
    sibling.stop()
    assert ending(launcher, sibling) == ExitStatus(exit_code=3, signal=None)
    status = RunDirectory.open(tmp_path / "sibling").status()
    assert (status["state"], "stopped on SIGTERM" in status["message"]) == ("stopped", True)


def test_gpus_are_handed_out_to_those_that_have_none(
    launcher: LocalLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_gpus", ("2", "5"))
    first, second, third = (submit(launcher, tmp_path / str(i), "wait", seed=i) for i in range(3))
    until(launcher, lambda: all((tmp_path / str(i) / "facts.json").exists() for i in range(3)))
    assert [facts(tmp_path / str(i))["gpu"] for i in range(3)] == ["2", "5", "2"]
    second.stop()
    ending(launcher, second)
    ending(launcher, submit(launcher, tmp_path / "3", seed=3))
    assert facts(tmp_path / "3")["gpu"] == "5"
    for handle in (first, third):
        handle.stop()
        ending(launcher, handle)


def test_where_there_is_no_room_for_one_more_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ALWAYS_IMPORTED", ())
    launcher = made(tmp_path, modules=("tests.sweeps.no_fork",))
    found = submit(launcher, tmp_path / "run").poll()
    launcher.close()
    assert found is not None
    assert found.lost
    assert found.reason == (
        "no process could be started for it (BlockingIOError: [Errno 11] Resource temporarily unavailable)"
    )


def test_where_there_is_no_room_for_one_more_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_room)
    found = submit(made(tmp_path, "fresh"), tmp_path / "run").poll()
    assert found is not None
    assert found.lost
    assert found.reason == "no process could be started for it ([Errno 11] Resource temporarily unavailable)"


def test_kill_ends_a_run_at_once(launcher: LocalLauncher, tmp_path: Path) -> None:
    handle = submit(launcher, tmp_path / "run", "wait")
    until(launcher, lambda: (tmp_path / "run" / "facts.json").exists())
    handle.kill()
    assert ending(launcher, handle).signal == signal.SIGKILL


def test_a_run_with_its_own_number_of_threads_keeps_it(launcher: LocalLauncher, tmp_path: Path) -> None:
    prepare(tmp_path / "run", {"experiment": "reckless", "task": "reckless", "device": "cpu", "threads": 3})
    ending(launcher, again(launcher, tmp_path / "run"))
    assert facts(tmp_path / "run")["threads"] == 3


@linux
def test_when_the_server_is_killed_its_runs_save_and_another_takes_over(tmp_path: Path) -> None:
    launcher = made(tmp_path / "sweep")
    try:
        handle = submit(launcher, tmp_path / "run", "wait")
        until(launcher, lambda: (tmp_path / "run" / "facts.json").exists())
        pid = facts(tmp_path / "run")["parent"]
        assert pid in disturbed.servers(os.getpid())
        os.kill(pid, signal.SIGKILL)
        found = ending(launcher, handle)
        assert (found.lost, found.reason) == (True, "the process that starts the runs was killed")
        directory = RunDirectory.open(tmp_path / "run")
        until(launcher, lambda: directory.current_state() == "stopped")
        handle = again(launcher, tmp_path / "run")
        until(launcher, lambda: facts(tmp_path / "run")["parent"] != pid)
        handle.stop()
        assert ending(launcher, handle).exit_code == 3
    finally:
        launcher.close()


@linux
def test_the_end_of_the_sweep_asks_its_runs_to_save(tmp_path: Path) -> None:
    launcher = made(tmp_path / "sweep")
    submit(launcher, tmp_path / "run", "wait")
    until(launcher, lambda: (tmp_path / "run" / "facts.json").exists())
    launcher.close()
    launcher.close()
    directory = RunDirectory.open(tmp_path / "run")
    until(launcher, lambda: directory.current_state() == "stopped")


SWEEP = """
import sys
from pathlib import Path
from tests.sweeps.launchers import toys
from paperbench.sweeps.launchers import server
from paperbench.sweeps.launchers.base import Context
from paperbench.sweeps.launchers.local import LocalLauncher, LocalSettings

folder, start = Path(sys.argv[1]), sys.argv[2]
context = Context(name="test", directory=folder, jobs=1, modules=("tests.sweeps.launchers.counter",))
launcher = LocalLauncher(LocalSettings(start=start), context)
launcher.submit(toys.job(folder / "run", pace=0.05, steps=4000))
while True:
    launcher.wait(1)
"""
"""A script without `if __name__ == "__main__"`: its runs must not execute it."""


@linux
@pytest.mark.usefixtures("counter_everywhere")
@pytest.mark.parametrize("start", ["fork", pytest.param("fresh", marks=pytest.mark.slow)])
def test_when_the_sweep_is_killed_its_run_saves_and_no_process_stays(tmp_path: Path, start: str) -> None:
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)
    sweep = subprocess.Popen([sys.executable, script, tmp_path, start])
    try:
        processes.wait_for(lambda: toys.at_work(tmp_path / "run"))
        servers = disturbed.servers(sweep.pid)
        started = [*servers, *(child for pid in (sweep.pid, *servers) for child in disturbed.children(pid))]
    finally:
        sweep.kill()
        sweep.wait()
    directory = RunDirectory.open(tmp_path / "run")
    processes.wait_for(lambda: directory.current_state() == "stopped")
    processes.wait_for(lambda: not any(disturbed.command_line(pid) for pid in started))
    assert (len(servers), len(started) > 1) == ((1, True) if start == "fork" else (0, False))


@linux
def test_a_launcher_that_was_warmed_for_nothing_leaves_nothing(tmp_path: Path) -> None:
    launcher = made(tmp_path / "sweep")
    launcher.close()
    before = set(disturbed.servers(os.getpid()))
    launcher.warm_up()
    launcher.warm_up()
    (pid,) = set(disturbed.servers(os.getpid())) - before
    assert not (tmp_path / "sweep").exists()
    launcher.close()
    assert pid not in disturbed.children(os.getpid())


def test_a_fresh_interpreter_for_each_run(tmp_path: Path) -> None:
    launcher = made(tmp_path / "sweep", "fresh")
    try:
        handle = submit(launcher, tmp_path / "run", threads=2)
        assert ending(launcher, handle) == ExitStatus(exit_code=0, signal=None)
        found = facts(tmp_path / "run")
        assert (found["session"], found["threads"]) == (handle.pid, 2)
        assert "on stderr: fine" in (tmp_path / "run" / "log.txt").read_text()
    finally:
        launcher.close()


def test_a_server_that_cannot_work_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nsys.stderr.write('no luck today\\n')\nos._exit(5)\n")
    launcher = made(tmp_path / "sweep")

    submit(launcher, tmp_path / "run")

    def give_out() -> None:
        for _ in range(10):
            assert ending(launcher, again(launcher, tmp_path / "run")).lost

    with pytest.raises(
        EnvironmentError_, match=r"ends by itself \(exit code 5\): no luck today; launcher\.start=fresh"
    ):
        give_out()
    launcher.close()
