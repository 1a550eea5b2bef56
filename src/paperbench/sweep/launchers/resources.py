"""What a job needs of a cluster, read from the configurations of its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EnvironmentError_
from paperbench.sweep.launchers.base import Job


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
