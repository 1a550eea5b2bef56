"""What a launcher is: something that starts worker processes somewhere, tells when they ended, and can ask them to stop.

A launcher knows nothing of runs. Whether a run is done is written in its own directory (state, lock, results), never in
the launcher's word: a launcher that dies, or reports nonsense, costs time and no results. Imports no torch, and no
launcher's own library.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from paperbench.config.suggest import nearest
from paperbench.errors import ConfigError

REGISTRY: Mapping[str, str] = {
    "local": "paperbench.sweep.launchers.local:LocalLauncher",
    "slurm": "paperbench.sweep.launchers.slurm:SlurmLauncher",
    "ray": "paperbench.sweep.launchers.ray:RayLauncher",
}
"""Name to `module:Class`. The module can be imported without the library that the launcher stands on (submitit, ray); its
constructor imports that, and raises `EnvironmentError_` saying what to install."""


EVERYTHING = 1_000_000
"""`DEFAULT_JOBS` of a launcher with a queue of its own: all runs are handed over at once."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work for one process: `python -m paperbench.sweep.worker --threads THREADS DIRECTORY…` (`command`)."""

    directories: tuple[Path, ...]
    """Absolute, and prepared (`engine.claims`). One run, or several that are trained side by side."""
    threads: int
    """CPU threads of the job, 1 or more: its share of this machine. A launcher that works on others may replace it."""
    name: str
    """Short and for people: `vae-3f2a…`."""

    def arguments(self) -> list[str]:
        """What `paperbench.sweep.worker.main` takes."""
        return ["--threads", str(self.threads), *map(str, self.directories)]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a job's process ended, as far as the launcher knows."""

    exit_code: int | None
    """The worker's own (see `paperbench.errors`); None if it was killed or nobody knows."""
    signal: int | None
    """The number of the signal that killed it, if one did and that is known."""
    reason: str = ""
    """In words, for the summary: `killed by SIGKILL`, `the node was lost`."""
    lost: bool = False
    """The machinery's doing and not the run's: preemption, a dead node, a restarted server. The run is submitted again."""


def ending_of(code: int, where: str = "") -> Ending:
    """Return the ending that an exit code, or minus the signal that killed a process, says; `where` names the node or job."""
    place = f" {where}" if where else ""
    if code >= 0:
        return Ending(exit_code=code, signal=None, reason=f"exit code {code}{place}" if code and place else "")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return Ending(exit_code=None, signal=-code, reason=f"killed by {name}{place}")


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in processes that are started meanwhile: the terminal sends it to all, and the sweep alone answers it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Handle(Protocol):
    """One submitted job."""

    def poll(self) -> Ending | None:
        """None while the job waits or works. Never blocks, and once it has given an `Ending` gives the same again."""
        ...

    def stop(self) -> None:
        """Asks the job to save and end (SIGTERM or its like); a job that has not begun is withdrawn. Returns at once."""
        ...

    def kill(self) -> None:
        """Ends the job at once. May be called from a signal handler."""
        ...


class Launcher(Protocol):
    """Made by `create`, with an instance of its `Settings` and a `Context`."""

    Settings: ClassVar[type]
    """Dataclass schema of `conf/launcher/<name>.yaml` and of `launcher.KEY=VALUE`; inherits from `config.schema.Schema`."""
    DEFAULT_JOBS: ClassVar[int]
    """What `--jobs` is unless it is given."""

    def __init__(self, settings: Any, context: Context) -> None: ...

    def submit(self, job: Job) -> Handle:
        """Starts the job, or puts it where it will be started. Raises `EnvironmentError_` if that cannot be done at all."""
        ...

    def wait(self, seconds: float) -> None:
        """Returns after `seconds`, or earlier when the answer of some handle's `poll` may have changed."""
        ...

    def close(self) -> None:
        """Lets go of everything; called once, after the last handle ended or when the sweep gives up."""
        ...


@runtime_checkable
class Warms(Protocol):
    """A launcher whose start takes seconds, which may pass while the sweep is still being checked."""

    def warm(self) -> None:
        """Begins what takes long, and returns at once. Nothing is written yet; `close` undoes it."""
        ...


@runtime_checkable
class Rejoins(Protocol):
    """A launcher whose jobs outlive the sweep that submitted them."""

    def rejoin(self, job: Job) -> Handle | None:
        """The job that an earlier sweep submitted for the same runs, if it still waits or works."""
        ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a launcher is told about the sweep it works for."""

    name: str
    """Of the sweep."""
    directory: Path
    """Absolute: the sweep's folder, made before the first job is submitted. A launcher keeps its logs in its `launcher/`."""
    jobs: int
    """How many jobs the scheduler keeps submitted at most."""
    threads: int = 1
    """What each job is going to have; see `Job`."""
    modules: tuple[str, ...] = ()
    """Modules of the tasks, which a process that stays warm may import beforehand."""


def known() -> Sequence[str]:
    """Names that `--launcher` takes."""
    return tuple(REGISTRY)


def launcher_class(name: str) -> type[Launcher]:
    """The class behind a name; `ConfigError` with the nearest ones if there is none."""
    if name not in REGISTRY:
        near = nearest(name, REGISTRY)
        raise ConfigError(
            f"--launcher {name}: no such launcher. {'Nearest' if near else 'Launchers'}: {', '.join(near or REGISTRY)}"
        )
    module, _, attribute = REGISTRY[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def create(name: str, settings: Any, context: Context) -> Launcher:
    """A launcher ready for jobs. Raises `EnvironmentError_` where its library is missing or its cluster is not reached."""
    return launcher_class(name)(settings, context)
