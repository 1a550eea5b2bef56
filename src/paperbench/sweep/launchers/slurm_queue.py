"""Where submitit puts jobs: into Slurm's queue, or, to try things out, into processes of this machine.

Outcomes are read from the files that submitit leaves. Whether a job that has left none is still to come is asked of
`squeue`, which needs no accounting database, once for all jobs.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from paperbench.errors import EnvironmentError_
from paperbench.sweep.launchers.base import interrupts_blocked
from paperbench.sweep.launchers.slurm_job import RunJob

_LIVE = frozenset({
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT",
    "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT",
})  # fmt: skip
"""States of jobs that may still do something; every other one is final."""

_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})

LOST = frozenset({"NODE_FAIL", "BOOT_FAIL", "PREEMPTED"})
"""Final states that are not the run's doing."""

_IDS_OF_ONE_COMMAND = 500

GONE = "gone from the queue"


class SlurmQueue:
    """Slurm itself: sbatch, squeue and scancel of this machine."""

    def __init__(self, folder: Path, parameters: Mapping[str, Any], *, max_timeouts: int, poll_seconds: float) -> None:
        """`parameters` are those of submitit's `SlurmExecutor`."""
        import submitit

        self._executor = submitit.SlurmExecutor(folder, max_num_timeout=max_timeouts)
        self._parameters = dict(parameters)
        self._poll_seconds = poll_seconds
        self._states: dict[str, str] | None = None
        self._looked = float("-inf")
        self._withdrawn: list[str] = []
        self._cancelling: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def refuse_if_absent() -> None:
        """Raises `EnvironmentError_` on a machine without Slurm."""
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise EnvironmentError_(
                f"--launcher slurm: no {', '.join(missing)} on this machine; run the sweep on a login node of the cluster "
                "(launcher.executor=local tries the same out without Slurm)"
            )

    def submit(self, work: Sequence[RunJob], *, cpus: int, gpus: int) -> list[str]:
        """One array of jobs (or a single job); their ids. Raises `EnvironmentError_` with what sbatch said."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        resources: dict[str, Any] = {"cpus_per_task": cpus, **({"gpus_per_node": gpus} if gpus else {})}
        # Since Slurm 22.05, srun no longer takes the number over from sbatch.
        self._executor.update_parameters(**self._parameters, **resources, srun_args=[f"--cpus-per-task={cpus}"])
        try:
            jobs = self._executor.submit_array(list(work))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            said = " ".join(str(error).split())
            raise EnvironmentError_(f"Slurm refused the jobs: {said}; the settings are launcher.KEY=VALUE") from error
        self._looked = float("-inf")
        return [job.job_id for job in jobs]

    def outcome(self, job_id: str) -> Mapping[str, Any] | str | None:
        """What a `RunJob` returned, or the traceback of what submitit itself met; None while there is neither."""
        import submitit

        return _outcome(submitit.SlurmJob(self._executor.folder, job_id))

    def state(self, job_id: str) -> str | None:
        """A final state of Slurm, `GONE`, or None: it waits, works, or nothing is known at the moment."""
        states = self._snapshot()
        if states is None:
            return None
        # Jobs of an array that were cancelled while they waited are listed under the array's own id.
        state = states.get(job_id) or states.get(job_id.partition("_")[0], GONE)
        return None if state in _LIVE else state

    def withdraw(self, job_id: str) -> None:
        """Takes the job out of the queue if it has not begun: all of them at once, at the next `flush`."""
        self._withdrawn.append(job_id)

    def flush(self) -> None:
        """Does what was put off."""
        self._cancelling = [process for process in self._cancelling if process.poll() is None]
        if not self._withdrawn:
            return
        # By its id alone: with `--state=PENDING`, scancel takes all of an array that waits for one of its jobs.
        self._looked = float("-inf")
        states = self._snapshot() or {}
        waiting = [job_id for job_id in self._withdrawn if states.get(job_id) in _WAITING]
        self._withdrawn = []
        for begin in range(0, len(waiting), _IDS_OF_ONE_COMMAND):
            with suppress(OSError, subprocess.SubprocessError):
                command = ["scancel", *waiting[begin : begin + _IDS_OF_ONE_COMMAND]]
                subprocess.run(command, check=False, capture_output=True, timeout=60)

    def cancel(self, job_id: str) -> None:
        """Ends the job, begun or not. Waits for nothing."""
        with suppress(OSError):
            nothing = subprocess.DEVNULL
            self._cancelling.append(
                subprocess.Popen(["scancel", job_id], stdin=nothing, stdout=nothing, stderr=nothing)
            )

    def log(self, job_id: str) -> Path:
        """What the job's own process printed."""
        import submitit

        return submitit.SlurmJob(self._executor.folder, job_id).paths.stdout

    def _snapshot(self) -> Mapping[str, str] | None:
        """State by job id of all jobs of this user, at most `poll_seconds` old; None if Slurm does not answer."""
        if time.monotonic() - self._looked < self._poll_seconds:
            return self._states
        self._looked = time.monotonic()
        command = ["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T"]
        try:
            said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError):
            self._states = None  # a server that restarts says nothing about the jobs
        else:
            pairs = (line.strip().partition("|") for line in said.splitlines())
            self._states = {job_id: state for job_id, _, state in pairs}
        return self._states


class LocalQueue:
    """Processes of this machine, by submitit's own controller, which knows time limits and putting back as Slurm does."""

    def __init__(self, folder: Path, parameters: Mapping[str, Any], *, max_timeouts: int) -> None:
        """Of `parameters` only the time limit, the warning before it and the set-up apply."""
        import submitit

        self._executor = submitit.LocalExecutor(folder, max_num_timeout=max_timeouts)
        self._executor.update_parameters(
            timeout_min=parameters["time"],
            signal_delay_s=parameters["signal_delay_s"],
            setup=parameters.get("setup", []),
            stderr_to_stdout=True,
        )
        self._jobs: dict[str, Any] = {}

    def submit(self, work: Sequence[RunJob], *, cpus: int, gpus: int) -> list[str]:
        """Starts all of them at once; their ids."""
        self._executor.update_parameters(gpus_per_node=gpus)
        with interrupts_blocked():
            jobs = self._executor.submit_array(list(work))
        self._jobs.update((job.job_id, job) for job in jobs)
        return [job.job_id for job in jobs]

    def outcome(self, job_id: str) -> Mapping[str, Any] | str | None:
        """As of `SlurmQueue`."""
        return _outcome(self._job(job_id))

    def state(self, job_id: str) -> str | None:
        """`GONE`, or None while its process works."""
        if job_id in self._jobs:
            return None if self._jobs[job_id].get_info()["jobState"] == "RUNNING" else GONE
        # Of an earlier sweep, whose jobs outlive it here as they do on a cluster.
        try:
            command = Path(f"/proc/{int(job_id)}/cmdline").read_bytes()
        except OSError:
            return GONE
        return None if os.fsencode(self._executor.folder) in command.split(b"\0") else GONE

    def withdraw(self, job_id: str) -> None:
        """Nothing waits here."""

    def flush(self) -> None:
        """Nothing is put off here."""

    def cancel(self, job_id: str) -> None:
        """The job's own process ends it, on the order that was written."""

    def log(self, job_id: str) -> Path:
        """What the job's own process printed."""
        return self._job(job_id).paths.stdout

    def _job(self, job_id: str) -> Any:
        import submitit

        return self._jobs.get(job_id) or submitit.LocalJob(self._executor.folder, job_id)


Queue = SlurmQueue | LocalQueue


def _outcome(job: Any) -> Mapping[str, Any] | str | None:
    if not job.paths.result_pickle.exists():
        return None
    error = job.exception()
    return job.result() if error is None else str(error)
