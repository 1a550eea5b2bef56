"""What runs inside a Slurm job: submitit unpickles a `RunJob` there and calls it.

When Slurm is about to end the job, at its time limit or because another job goes before it, the run saves, and submitit puts
the same job back into the queue; it continues there from its checkpoint. A job that the sweep itself asks to stop is not put
back. The sweep asks through a file, for a signal would look like Slurm's.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from paperbench.errors import EXIT_STOPPED
from paperbench.sweep.launchers.cluster import Child

STOP, KILL = "stop", "kill"
"""What a sweep writes into a job's `order`."""


@dataclass(kw_only=True)
class RunJob:
    """Does the runs of one job, and returns how that ended."""

    arguments: tuple[str, ...]
    """Of `paperbench.sweep.worker`."""
    folder: str
    """Where the sweep was started: relative paths in configurations begin there."""
    order: Path
    """The file through which the sweep asks for an end."""
    seconds_to_save: float
    """How long before its end Slurm tells the job about it."""
    _child: Child | None = field(default=None, init=False, repr=False)
    _ordered: str = field(default="", init=False, repr=False)

    def __call__(self) -> dict[str, Any]:
        """`exit_code` as of `subprocess`, and `refused`: why submitit would not put the job back into the queue."""
        from submitit.core.utils import UncompletedJobError

        signal.signal(signal.SIGTERM, self._pass_on)  # Slurm sends it first; submitit's own handler does nothing
        refused = ""
        with Child(self.arguments, folder=self.folder) as self._child:
            try:
                self._child.wait(meanwhile=self._obey)
                if self._child.ended == EXIT_STOPPED and not self._ordered:
                    self._put_back()
            except UncompletedJobError as error:  # by submitit's handler, where it does not queue the job again
                refused = str(error)
            code = self._child.wait()
        return {"exit_code": code, "refused": "" if self._ordered else refused}

    def checkpoint(self) -> Any:
        """Called by submitit when Slurm announces the end: saves, and says what is to run later; None if nothing is."""
        from submitit.helpers import DelayedSubmission

        child = self._child
        if child is not None:
            self._obey()
            child.stop()
            if child.wait(seconds=0.8 * self.seconds_to_save) is None:
                child.kill()  # what was saved before stands
                child.wait()
        if self._ordered or (child is not None and child.ended is not None and 0 <= child.ended != EXIT_STOPPED):
            return None
        again = RunJob(
            arguments=self.arguments, folder=self.folder, order=self.order, seconds_to_save=self.seconds_to_save
        )
        return DelayedSubmission(again)

    def _obey(self) -> None:
        """Does what the sweep has written into `order`."""
        assert self._child is not None
        try:
            order = self.order.read_text(encoding="ascii")
        except OSError:
            return
        if order == self._ordered:
            return
        self._ordered = order
        if order == KILL:
            self._child.kill()
        elif order == STOP:
            self._child.stop()

    def _put_back(self) -> None:
        """Slurm told the run to stop, and not this process: it asks submitit for what Slurm's own signal would have done.

        That is right before a preemption, while Slurm still counts the job as running. It is not if somebody cancelled the job,
        or if Slurm itself puts it back: then this process leaves without a word, and the queue says what becomes of the job.
        """
        from submitit.core.job_environment import JobEnvironment

        if not _counts_as_running():
            raise SystemExit(EXIT_STOPPED)
        try:
            signal.raise_signal(JobEnvironment._usr_sig())  # leaves the process if the job is put back
        except subprocess.CalledProcessError:
            raise SystemExit(EXIT_STOPPED) from None  # Slurm was faster

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._child is not None:
            self._child.stop()


def _counts_as_running() -> bool:
    """Whether Slurm wants this job to go on; where there is no Slurm, nothing else could be."""
    job_id = os.environ.get("SLURM_JOB_ID")
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or job_id is None:
        return True
    command = ["squeue", "--noheader", f"--jobs={job_id}", "--format=%T"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return said.split() == ["RUNNING"]
