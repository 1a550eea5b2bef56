"""Parts shared by the launchers of clusters: the resources of a job, and its run as a child of the process on the node.

The process that the cluster started only watches its child. A run that crashes, or is killed for its memory, takes nothing of
the cluster along, and a run can save when the cluster ends the job.
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
from typing import Any, Self

from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EnvironmentError_
from paperbench.sweeps.launchers.base import Job

_SECONDS_BETWEEN_POLLS = 0.1
_SECONDS_TO_SAVE = 60.0
"""For a run to save and end when the job is over before the run is."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Processes of one job, and CPU threads of each."""

    processes: int
    threads: int

    @property
    def cpus(self) -> int:
        return self.processes * self.threads


def resources_of(job: Job, threads: int) -> Resources:
    """Return `nproc` of the job's runs, and their `threads`, or the launcher's own number where they name none.

    The launcher's number, not this machine's: a run shall compute the same on every node. Stacked runs share one process.
    """
    return resources_for([RunDirectory(directory).config() for directory in job.directories], threads)


def resources_for(configs: Sequence[Mapping[str, Any]], threads: int) -> Resources:
    """`resources_of` for the resolved configurations of a job's runs."""
    return Resources(
        processes=max(int(config.get("nproc", 1)) for config in configs),
        threads=max(int(config.get("threads", 0)) for config in configs) or threads,
    )


def worker_arguments(job: Job, resources: Resources) -> tuple[str, ...]:
    """Return the arguments of `paperbench.sweeps.worker` on a machine that gives the job its `resources`."""
    return tuple(replace(job, threads=resources.cpus).arguments())


def import_library(launcher: str, load: Callable[[], ModuleType]) -> ModuleType:
    """Return the module that `load` imports. Raises `EnvironmentError_` with the command that installs it."""
    try:
        return load()
    except ImportError as error:
        raise EnvironmentError_(
            f'--launcher {launcher}: {error}; install it with: pip install "paperbench[{launcher}]"'
        ) from None


class WorkerProcess:
    """`python -m paperbench.sweeps.worker ARGUMENTS…`, started on entering the context and ended on leaving it.

    SIGUSR2, with which submitit and Slurm announce the end of a job to all of its processes, is blocked in the child: this
    process answers it, and sends SIGTERM to the child. The worker ends by itself when this process dies.
    """

    def __init__(self, arguments: Sequence[str], *, folder: str, environment: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "paperbench.sweeps.worker", "--parent", str(os.getpid()), *self._arguments]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        try:
            self._process = subprocess.Popen(command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
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
    def exit_code(self) -> int | None:
        """The exit code, or minus the signal that killed it; None while it runs."""
        return self._started.returncode

    def wait(self, *, seconds: float | None = None, meanwhile: Callable[[], None] = lambda: None) -> int | None:
        """Wait for the end and return `exit_code`, or None after `seconds`. Calls `meanwhile` several times a second."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.exit_code is None:
            if deadline is not None and time.monotonic() > deadline:
                return None
            meanwhile()
            time.sleep(_SECONDS_BETWEEN_POLLS)
        return self.exit_code

    def stop(self) -> None:
        """Ask the run to save and end, if it has not ended."""
        self._started.terminate()

    def kill(self) -> None:
        """End the run at once."""
        self._started.kill()

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the context is open"
        return self._process
