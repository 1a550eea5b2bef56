"""Whole sweeps in processes of their own: killed at random, interrupted, run twice at once; nothing lost, nothing done twice."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from paperbench import catalog
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.sweeps import record
from paperbench.sweeps.run import run, run_sweep
from paperbench.sweeps.watch import SilentWatcher
from tests.engine import processes, toy
from tests.sweeps import disturbed, toys
from tests.sweeps.launchers import counter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc"),
]


@pytest.fixture(autouse=True)
def _known_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog.TASKS, "counter", counter.SPEC)
    for name, value in toy.site(tmp_path / "site", counter.SPEC).items():
        monkeypatch.setenv(name, value)


LONG = {"pace": 0.05, "steps": 2000}
"""A run that does not end before it is stopped."""


def _sweep_here(root: Path, count: int, changes: dict[str, Any], environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the server that this process was forked from was started before the test's own

    catalog.TASKS["counter"] = counter.SPEC

    def work() -> int:
        sweep = toys.sweep(root, count, counter, **changes)
        return run_sweep(sweep, jobs=2, watcher=SilentWatcher()).exit_code

    processes._exit_with(work)


@dataclass
class Started:
    """A sweep in a process of its own, as `disturb` wants it."""

    process: ForkServerProcess

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode


def starter(root: Path, count: int, **changes: Any) -> Callable[[], Started]:
    environment = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    return lambda: Started(processes.spawn(_sweep_here, root, count, changes, environment))


def ended(sweep: Started) -> int:
    return processes.join(sweep.process)


def undisturbed(root: Path, count: int, **changes: Any) -> Path:
    """The same sweep, here and in peace."""
    sweep = toys.sweep(root, count, counter, **changes)
    outcome = run(sweep, launcher=toys.InThisProcess(), jobs=1, watcher=SilentWatcher(), stop=StopFlag())
    assert outcome.exit_code == 0
    return sweep.directory


def test_random_kills_of_runs_of_their_server_and_of_the_sweep(tmp_path: Path) -> None:
    count, pace = 12, 0.015
    calm = undisturbed(tmp_path / "calm", count, pace=pace)
    account = disturbed.disturb(
        starter(tmp_path / "wild", count, pace=pace), kills={"run": 3, "server": 1, "sweep": 1}, seed=4, limit=240
    )
    assert account.kills == {"run": 3, "server": 1, "sweep": 1}
    assert account.exit_codes[-1] == 0
    assert -signal.SIGKILL in account.exit_codes
    assert disturbed.differences(toys.sweep(tmp_path / "wild", count, counter, pace=pace).directory, calm) == []


def test_an_interrupt_saves_every_run_and_a_second_one_kills_them(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 3, counter, **LONG)
    directories = [RunDirectory(member.directory) for member in sweep.members]
    start = starter(tmp_path, 3, **LONG)

    def at_work() -> bool:
        return (
            sum(directory.current_state() == "running" and directory.checkpoints.exists() for directory in directories)
            == 2
        )

    first = start()
    processes.wait_for(at_work)
    refused = start()
    assert ended(refused) == 4, "the same sweep, at work elsewhere"
    os.kill(first.pid, signal.SIGINT)
    assert ended(first) == 3
    states = [directory.current_state() for directory in directories]
    assert sorted(states)[:2] == ["stopped", "stopped"]
    assert states[2] != "running"

    again = start()
    processes.wait_for(at_work)
    (server,) = disturbed.servers(again.pid)
    runs = disturbed.children(server)
    try:
        for run_ in runs:
            os.kill(run_, signal.SIGSTOP)  # it will not save
        os.kill(again.pid, signal.SIGINT)
        processes.wait_for(lambda: [event["event"] for event in record.events(sweep.directory)].count("stopping") == 2)
        assert again.poll() is None
        os.kill(again.pid, signal.SIGINT)
        assert ended(again) == 130
        # A run's lock is given up a moment after its process can no longer be seen.
        processes.wait_for(lambda: [directory.current_state() for directory in directories].count("killed") == 2)
    finally:
        for run_ in runs:  # where the sweep did not
            with suppress(ProcessLookupError):
                os.kill(run_, signal.SIGKILL)
