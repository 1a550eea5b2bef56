"""Launchers of clusters: what a job asks for, and its run as a child of the process that the cluster started.

That process only watches: a run that crashes, or is killed for its memory, takes nothing of the cluster's along, and a run can
save when the cluster ends the job.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Self

from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EnvironmentError_
from paperbench.sweep.launchers.base import Job

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_SAVE = 60.0
"""What a run is given to save and end when the job is over before the run is."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Of one job: `processes` work side by side, each with `threads` on the CPU."""

    processes: int
    threads: int

    @property
    def cpus(self) -> int:
        return self.processes * self.threads


def needs_of(job: Job, threads: int) -> Needs:
    """`nproc` of the job's runs, and their `threads`, or the launcher's own number where they name none.

    The launcher's, not this machine's: a run is to compute the same on every node. Runs that are trained together share one
    process.
    """
    configs = [RunDirectory(directory).config() for directory in job.directories]
    return Needs(
        processes=max(int(config.get("nproc", 1)) for config in configs),
        threads=max(int(config.get("threads", 0)) for config in configs) or threads,
    )


def arguments_of(job: Job, needs: Needs) -> tuple[str, ...]:
    """What `paperbench.sweep.worker` takes on a machine of which the job gets what it needs."""
    return tuple(replace(job, threads=needs.cpus).arguments())


def library(launcher: str, load: Callable[[], ModuleType]) -> ModuleType:
    """What `load` imports. Raises `EnvironmentError_` saying what to install if that is not there."""
    try:
        return load()
    except ImportError as error:
        raise EnvironmentError_(
            f'--launcher {launcher}: {error}; install it with: pip install "paperbench[{launcher}]"'
        ) from None


class Child:
    """`python -m paperbench.sweep.worker ARGUMENTS…`, started on entering the context and ended on leaving it.

    SIGUSR2, with which submitit and Slurm announce the end of a job to all of its processes, is blocked in the child: this
    process answers it, and passes on what follows from it as SIGTERM. The worker itself sees to it that it does not outlive
    this process.
    """

    def __init__(self, arguments: Sequence[str], *, folder: str, environment: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", "paperbench.sweep.worker", *arguments]
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        try:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # A thread waits, and everybody else reads `returncode`: a signal handler may then look as well, where a second
        # `Popen.wait` in the same thread could find the lock of the first one taken.
        threading.Thread(target=self._process.wait, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.wait(seconds=_SECONDS_TO_SAVE) is None:
            self.kill()
            self.wait()

    @property
    def ended(self) -> int | None:
        """Exit code, or minus the signal that killed it; None while it works."""
        return self._started.returncode

    def wait(self, *, seconds: float | None = None, meanwhile: Callable[[], None] = lambda: None) -> int | None:
        """Waits for the end and returns `ended`, or None after `seconds`. Calls `meanwhile` several times a second."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.ended is None:
            if deadline is not None and time.monotonic() > deadline:
                return None
            meanwhile()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return self.ended

    def stop(self) -> None:
        """Asks the run to save and end, if it has not ended."""
        self._started.terminate()

    def kill(self) -> None:
        """Ends the run at once."""
        self._started.kill()

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the context is open"
        return self._process
