"""Jobs of small runs for launchers, and a scheduler that does no more than the launcher's own contract asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paperbench.engine.claims import prepare
from paperbench.sweeps.launchers.base import Context, ExitStatus, Handle, Job, Launcher
from tests.engine import processes
from tests.sweeps.launchers import counter


def context(folder: Path) -> Context:
    """Of a sweep in `folder`."""
    folder.mkdir(exist_ok=True)
    return Context(name="toys", directory=folder, jobs=8)


def job(run_dir: Path, **changes: Any) -> Job:
    """A prepared run of the counter's configuration with `changes`."""
    prepare(run_dir, counter.config(**changes))
    return Job(directories=(run_dir,), threads=1, name=run_dir.name)


def drive(launcher: Launcher, handles: Sequence[Handle], *, seconds: float = 200) -> list[ExitStatus]:
    """Waits for all of them; their endings."""
    until(launcher, handles, lambda: all(handle.poll() is not None for handle in handles), seconds=seconds)
    endings = [handle.poll() for handle in handles]
    return [ending for ending in endings if ending is not None]


def until(
    launcher: Launcher, handles: Sequence[Handle], condition: Callable[[], bool], *, seconds: float = 200
) -> None:
    """Waits, polling as a scheduler does, until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, [handle.poll() for handle in handles]
        launcher.wait(0.05)
        for handle in handles:
            handle.poll()


def at_work(run_dir: Path, *, after: int = 0) -> bool:
    """Whether the run has begun and made more than `after` steps."""
    status = processes.status(run_dir)
    return status.get("state") == "running" and status.get("step", 0) > after
