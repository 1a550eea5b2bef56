"""The interface of a launcher: it starts worker processes somewhere, reports their exit, and can ask them to stop.

A launcher knows nothing of runs. The state of a run stands in its own directory (state, lock, results) and is never taken from
the launcher: a launcher that dies, or reports nonsense, costs time and no results. Imports no torch, and no launcher's own
library.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from paperbench.config.suggest import nearest
from paperbench.engine.processes import require_posix
from paperbench.errors import ConfigError, EnvironmentError_
from paperbench.records.place import Place

REGISTRY: Mapping[str, str] = {
    "local": "paperbench.sweeps.launchers.local:LocalLauncher",
    "slurm": "paperbench.sweeps.launchers.slurm:SlurmLauncher",
    "ray": "paperbench.sweeps.launchers.ray:RayLauncher",
}
"""Name to `module:Class`. The module can be imported without the library that the launcher stands on (submitit, ray); the
constructor imports it, and raises `EnvironmentError_` with the command that installs it."""

DEFAULT = "local"
"""The launcher of a sweep that names none."""

_NEEDS_POSIX = frozenset({"slurm", "ray"})
"""Launchers whose jobs are asked to save by signals that Windows lacks."""

UNLIMITED = 1_000_000
"""`DEFAULT_JOBS` of a launcher with a queue of its own: it gets all jobs at once."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work for one process: `python -m paperbench.sweeps.worker --threads THREADS DIRECTORY…`."""

    directories: tuple[Path, ...]
    """Absolute, and prepared (`engine.claims`). One run, or several that are trained stacked."""
    threads: int
    """CPU threads of the job, 1 or more: its share of this machine. A launcher that works on others may replace it."""
    name: str
    """Short and for people: `vae-3f2a…`."""
    device: str = "auto"
    """Of each run's configuration."""
    processes: int = 1
    """Of each run: its configuration's `nproc`. On GPUs each process needs one of its own."""
    last_step: int = 0
    """Step after which a longer training saves and stops; 0: none."""

    def arguments(self) -> list[str]:
        """Return the arguments of `paperbench.sweeps.worker`."""
        last = ["--last-step", str(self.last_step)] if self.last_step else []
        return ["--threads", str(self.threads), *last, *map(str, self.directories)]


@dataclass(frozen=True, kw_only=True)
class ExitStatus:
    """The end of a job's process, as far as the launcher knows."""

    exit_code: int | None
    """The worker's own (see `paperbench.errors`); None if it was killed or nobody knows."""
    signal: int | None
    """The number of the signal that killed it, if one did and that is known."""
    reason: str = ""
    """In words, for the summary: `killed by SIGKILL`, `the node was lost`."""
    lost: bool = False
    """The machinery is to blame and not the run: preemption, a dead node, a restarted server. The run is submitted again."""
    log_tail: tuple[str, ...] = ()
    """The last lines that the job's own process wrote, for a run that left no log."""
    unreported: bool = False
    """The job ended and left no word on its run, which is submitted again if it had begun."""

    @classmethod
    def from_code(cls, code: int, where: str = "") -> Self:
        """Return the status for an exit code, or for minus the signal that killed a process; `where` is the node or job."""
        place = f" {where}" if where else ""
        if code >= 0:
            return cls(exit_code=code, signal=None, reason=f"exit code {code}{place}" if code and place else "")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return cls(exit_code=None, signal=-code, reason=f"killed by {name}{place}")


class RunRefused(EnvironmentError_):
    """The cluster is never going to take this job; it may well take others."""


class LauncherLost(EnvironmentError_):
    """The cluster itself is gone: nothing can be started, and nothing that ran can be asked any more."""


class Handle(Protocol):
    """One submitted job."""

    def poll(self) -> ExitStatus | None:
        """Return None while the job waits or runs, and its exit status ever after. Never blocks."""
        ...

    def stop(self) -> None:
        """Ask the job to save and end (SIGTERM or its like); withdraw a job that has not begun. Returns at once."""
        ...

    def kill(self) -> None:
        """End the job at once. May be called from a signal handler."""
        ...


class Launcher(Protocol):
    """Created by `create`, with an instance of its `Settings` and a `Context`."""

    Settings: ClassVar[type]
    """Dataclass schema of `conf/launcher/<name>.yaml` and of `launcher.KEY=VALUE`; inherits from `config.schema.Schema`."""
    DEFAULT_JOBS: ClassVar[int]
    """`--jobs` where it is not given."""

    def __init__(self, settings: Any, context: Context) -> None: ...

    def submit(self, job: Job) -> Handle:
        """Start the job, or put it into a queue. Raises `EnvironmentError_` if that is not possible at all."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or earlier when the answer of some handle's `poll` may have changed.

        Raises `LauncherLost` when the cluster is gone, and `EnvironmentError_` for jobs that it does not take at all.
        """
        ...

    def close(self) -> None:
        """Release everything; called once, after the last handle ended or when the sweep gives up."""
        ...


@runtime_checkable
class SupportsWarmUp(Protocol):
    """A launcher whose start takes seconds, which may pass while the sweep is still being checked."""

    def warm_up(self) -> None:
        """Begin the slow part of the start, and return at once. Writes nothing; `close` undoes it."""
        ...


@runtime_checkable
class ReportsPlace(Protocol):
    """A handle of a job that may wait, or run elsewhere. A job of any other handle runs while it has not ended."""

    def place(self) -> Place | None:
        """Return where the job is, as far as is known without asking anybody; None once it has ended."""
        ...


@runtime_checkable
class ReportsNotices(Protocol):
    """A launcher that has something to say to the user meanwhile."""

    def notices(self) -> list[str]:
        """Return the sentences since the last call."""
        ...


@runtime_checkable
class SupportsPreview(Protocol):
    """A launcher that can say what it would ask its cluster for. `--dry-run` prints it, and nothing is submitted."""

    @classmethod
    def preview(cls, settings: Any, name: str, jobs: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        """Return lines about jobs, each the resolved configurations of its runs, of the sweep `name`."""
        ...


@runtime_checkable
class SharesRuns(Protocol):
    """A launcher that knows the jobs which other sweeps have submitted for the same runs."""

    def is_elsewhere(self, job: Job) -> bool:
        """Return True while a job of another sweep waits or runs for one of the runs."""
        ...


@runtime_checkable
class SupportsDetach(Protocol):
    """A launcher whose jobs go on when the sweep leaves them."""

    def all_submitted(self) -> bool:
        """Return True if the cluster has every job that was submitted."""
        ...


@runtime_checkable
class SupportsReattach(Protocol):
    """A launcher whose jobs outlive the sweep that submitted them."""

    def reattach(self, job: Job) -> Handle | None:
        """Return the job that an earlier sweep submitted for the same runs, if it still waits or runs."""
        ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """Facts about the sweep, for its launcher."""

    name: str
    """Of the sweep."""
    directory: Path
    """Absolute: the sweep's folder, created before the first job is submitted. A launcher writes its logs to `launcher/` in it."""
    jobs: int
    """The largest number of jobs that the scheduler keeps submitted."""
    threads: int = 1
    """Of each job; see `Job`."""
    modules: tuple[str, ...] = ()
    """Modules of the tasks, which a launcher may import beforehand."""


def launcher_class(name: str) -> type[Launcher]:
    """Return the class behind a name. Raises `ConfigError` with the nearest names if there is none.

    Raises `EnvironmentError_` for one that this system cannot run.
    """
    if name not in REGISTRY:
        near = nearest(name, REGISTRY)
        raise ConfigError(
            f"--launcher {name}: no such launcher. {'Nearest' if near else 'Launchers'}: {', '.join(near or REGISTRY)}"
        )
    if name in _NEEDS_POSIX:
        require_posix(f"--launcher {name}", instead="take --launcher local")
    module, _, attribute = REGISTRY[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def create(name: str, settings: Any, context: Context) -> Launcher:
    """Return a launcher ready for jobs. Raises `EnvironmentError_` without its library or its cluster."""
    return launcher_class(name)(settings, context)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in processes that are started meanwhile: the terminal sends it to all, and the sweep alone answers it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
