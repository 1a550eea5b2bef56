"""What a job needs of a cluster, read from the configurations of its runs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EnvironmentError_
from paperbench.sweep.launchers.base import Job


def processes_of(job: Job) -> int:
    """How many processes work side by side: `nproc` of the run. Runs that are trained together share one."""
    return max(int(RunDirectory(directory).config().get("nproc", 1)) for directory in job.directories)


def library(launcher: str, load: Callable[[], ModuleType]) -> ModuleType:
    """What `load` imports. Raises `EnvironmentError_` saying what to install if that is not there."""
    try:
        return load()
    except ImportError as error:
        raise EnvironmentError_(
            f'--launcher {launcher}: {error}; install it with: pip install "paperbench[{launcher}]"'
        ) from None
