"""Jobs of `--launcher slurm` as submitit has them: the code that runs inside a job, and the queue that holds the jobs.

submitit pickles a `RunJob`, and calls it in the job. When Slurm is about to end the job, at its time limit or for a job of higher
priority, the run saves, and submitit puts the job back into the queue; it continues there from its checkpoint. A job that the
sweep itself stops is not put back. The sweep asks through a file, since a signal would look like Slurm's.

Results are read from the files that submitit leaves. The state of a job without a result is asked of `squeue`, which needs no
accounting database, once for all jobs.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from paperbench.errors import EXIT_STOPPED, EnvironmentError_
from paperbench.sweeps.launchers.base import interrupts_blocked
from paperbench.sweeps.launchers.cluster import WorkerProcess
from paperbench.sweeps.launchers.orders import KILL, STOP, read_order

_LIVE = frozenset({
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT",
    "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT",
})  # fmt: skip
"""States of jobs that may still do something; every other one is final."""

_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})

LOST = frozenset({"NODE_FAIL", "BOOT_FAIL", "PREEMPTED"})
"""Final states for which the run is not to blame."""

GONE = "gone from the queue"

_IDS_PER_COMMAND = 500


# --- inside a job -----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class RunJob:
    """The function of one job."""

    arguments: tuple[str, ...]
    """Of `paperbench.sweeps.worker`."""
    folder: str
    """Where the sweep was started: relative paths in configurations begin there."""
    order: Path
    """The file through which the sweep asks for an end."""
    seconds_to_save: float
    """Before the end of the job: Slurm announces it so much earlier."""
    _run: WorkerProcess | None = field(default=None, init=False, repr=False)
    _last_order: str = field(default="", init=False, repr=False)

    def __call__(self) -> dict[str, Any]:
        """Do the runs; return `exit_code`, and `refused`: submitit's reason not to put the job back into the queue."""
        from submitit.core.utils import UncompletedJobError

        signal.signal(signal.SIGTERM, self._on_sigterm)  # Slurm sends it first; submitit's own handler does nothing
        refused = ""
        with WorkerProcess(self.arguments, folder=self.folder) as self._run:
            try:
                self._run.wait(meanwhile=self._handle_order)
                if self._run.exit_code == EXIT_STOPPED and not self._last_order:
                    self._requeue()
            except UncompletedJobError as error:  # by submitit's handler, where it does not queue the job again
                refused = str(error)
            code = self._run.wait()
        return {"exit_code": code, "refused": "" if self._last_order else refused}

    def checkpoint(self) -> Any:
        """Save, and return the job to run later, or None. submitit calls this when Slurm announces the end of the job."""
        from submitit.helpers import DelayedSubmission

        run = self._run
        if run is not None:
            self._handle_order()
            run.stop()
            if run.wait(seconds=0.8 * self.seconds_to_save) is None:
                run.kill()  # what was saved before stands
                run.wait()
        if self._last_order or (run is not None and run.exit_code is not None and 0 <= run.exit_code != EXIT_STOPPED):
            return None
        again = RunJob(
            arguments=self.arguments, folder=self.folder, order=self.order, seconds_to_save=self.seconds_to_save
        )
        return DelayedSubmission(again)

    def _handle_order(self) -> None:
        """Do what the sweep has written into `order`."""
        assert self._run is not None
        order = read_order(self.order)
        if order in ("", self._last_order):
            return
        self._last_order = order
        if order == KILL:
            self._run.kill()
        elif order == STOP:
            self._run.stop()

    def _requeue(self) -> None:
        """Do for a run that got SIGTERM alone what Slurm's own announcement would have done.

        That is right before a preemption, while Slurm still counts the job as running. It is wrong if somebody cancelled the
        job, or if Slurm itself puts it back: then this process exits without a result, and the queue has the job's state.
        """
        from submitit.core.job_environment import JobEnvironment

        if not _counts_as_running():
            raise SystemExit(EXIT_STOPPED)
        try:
            signal.raise_signal(JobEnvironment._usr_sig())  # leaves the process if the job is put back
        except subprocess.CalledProcessError:
            raise SystemExit(EXIT_STOPPED) from None  # Slurm was faster

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._run is not None:
            self._run.stop()


def _counts_as_running() -> bool:
    """Return True while Slurm counts this job as running, and where there is no Slurm."""
    job_id = os.environ.get("SLURM_JOB_ID")
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or job_id is None:
        return True
    command = ["squeue", "--noheader", f"--jobs={job_id}", "--format=%T"]
    try:
        states = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return states.split() == ["RUNNING"]


# --- the queue ---------------------------------------------------------------------------------------------------------


class SlurmQueue:
    """Slurm itself: sbatch, squeue and scancel of this machine."""

    def __init__(self, folder: Path, parameters: Mapping[str, Any], *, max_timeouts: int, poll_seconds: float) -> None:
        """`parameters` are those of submitit's `SlurmExecutor`."""
        import submitit

        self._executor = submitit.SlurmExecutor(folder, max_num_timeout=max_timeouts)
        self._parameters = dict(parameters)
        self._poll_seconds = poll_seconds
        self._states: dict[str, str] | None = None
        self._states_read_at = float("-inf")
        self._to_cancel: list[str] = []
        self._scancels: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def check_commands() -> None:
        """Raise `EnvironmentError_` on a machine without Slurm."""
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise EnvironmentError_(
                f"--launcher slurm: no {', '.join(missing)} on this machine; run the sweep on a login node of the cluster "
                "(launcher.executor=local tries the same out without Slurm)"
            )

    def submit(self, work: Sequence[RunJob], *, cpus: int, gpus: int) -> list[str]:
        """Submit one array of jobs, or a single job; return their ids. Raises `EnvironmentError_` with sbatch's own message."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        resources: dict[str, Any] = {"cpus_per_task": cpus, **({"gpus_per_node": gpus} if gpus else {})}
        # Since Slurm 22.05, srun no longer takes the number over from sbatch.
        self._executor.update_parameters(**self._parameters, **resources, srun_args=[f"--cpus-per-task={cpus}"])
        try:
            jobs = self._executor.submit_array(list(work))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            text = " ".join(str(error).split())
            raise EnvironmentError_(f"Slurm refused the jobs: {text}; the settings are launcher.KEY=VALUE") from error
        self._states_read_at = float("-inf")
        return [job.job_id for job in jobs]

    def result(self, job_id: str) -> Mapping[str, Any] | str | None:
        """Return what the `RunJob` returned, or the traceback of submitit's own error; None while there is neither."""
        import submitit

        return _result(submitit.SlurmJob(self._executor.folder, job_id))

    def state(self, job_id: str) -> str | None:
        """Return a final state of Slurm, `GONE`, or None if the job waits or runs, or Slurm does not answer."""
        states = self._read_states()
        if states is None:
            return None
        # Jobs of an array that were cancelled while they waited are listed under the array's own id.
        state = states.get(job_id) or states.get(job_id.partition("_")[0], GONE)
        return None if state in _LIVE else state

    def cancel_if_waiting(self, job_id: str) -> None:
        """Take the job out of the queue if it has not begun: all such jobs at once, at the next `flush`."""
        self._to_cancel.append(job_id)

    def flush(self) -> None:
        """Cancel the waiting jobs that were named."""
        self._scancels = [process for process in self._scancels if process.poll() is None]
        if not self._to_cancel:
            return
        # By its id alone: with `--state=PENDING`, scancel takes all of an array that waits for one of its jobs.
        self._states_read_at = float("-inf")
        states = self._read_states() or {}
        waiting = [job_id for job_id in self._to_cancel if states.get(job_id) in _WAITING]
        self._to_cancel = []
        for begin in range(0, len(waiting), _IDS_PER_COMMAND):
            with suppress(OSError, subprocess.SubprocessError):
                command = ["scancel", *waiting[begin : begin + _IDS_PER_COMMAND]]
                subprocess.run(command, check=False, capture_output=True, timeout=60)

    def cancel(self, job_id: str) -> None:
        """End the job, begun or not. Returns at once."""
        with suppress(OSError):
            nothing = subprocess.DEVNULL
            self._scancels.append(subprocess.Popen(["scancel", job_id], stdin=nothing, stdout=nothing, stderr=nothing))

    def log(self, job_id: str) -> Path:
        """Return the file with the output of the job's own process."""
        import submitit

        return submitit.SlurmJob(self._executor.folder, job_id).paths.stdout

    def _read_states(self) -> Mapping[str, str] | None:
        """Return the state by job id of all jobs of this user, at most `poll_seconds` old; None if Slurm does not answer."""
        if time.monotonic() - self._states_read_at < self._poll_seconds:
            return self._states
        self._states_read_at = time.monotonic()
        command = ["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T"]
        try:
            output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError):
            self._states = None  # a server that restarts knows nothing about the jobs
        else:
            pairs = (line.strip().partition("|") for line in output.splitlines())
            self._states = {job_id: state for job_id, _, state in pairs}
        return self._states


class LocalQueue:
    """Processes of this machine, under submitit's own controller, which has time limits and a requeue as Slurm does."""

    def __init__(self, folder: Path, parameters: Mapping[str, Any], *, max_timeouts: int) -> None:
        """Use the time limit, the warning before it and the set-up of `parameters`; the others do not apply."""
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
        """Start all of them at once; return their ids."""
        self._executor.update_parameters(gpus_per_node=gpus)
        with interrupts_blocked():
            jobs = self._executor.submit_array(list(work))
        self._jobs.update((job.job_id, job) for job in jobs)
        return [job.job_id for job in jobs]

    def result(self, job_id: str) -> Mapping[str, Any] | str | None:
        """Return the same as `SlurmQueue.result`."""
        return _result(self._job(job_id))

    def state(self, job_id: str) -> str | None:
        """Return `GONE`, or None while its process runs."""
        if job_id in self._jobs:
            return None if self._jobs[job_id].get_info()["jobState"] == "RUNNING" else GONE
        # Of an earlier sweep, whose jobs outlive it here as they do on a cluster.
        try:
            command = Path(f"/proc/{int(job_id)}/cmdline").read_bytes()
        except OSError:
            return GONE
        return None if os.fsencode(self._executor.folder) in command.split(b"\0") else GONE

    def cancel_if_waiting(self, job_id: str) -> None:
        """Do nothing: no job waits here."""

    def flush(self) -> None:
        """Do nothing."""

    def cancel(self, job_id: str) -> None:
        """Do nothing: the job's own process obeys the order file."""

    def log(self, job_id: str) -> Path:
        """Return the file with the output of the job's own process."""
        return self._job(job_id).paths.stdout

    def _job(self, job_id: str) -> Any:
        import submitit

        return self._jobs.get(job_id) or submitit.LocalJob(self._executor.folder, job_id)


Queue = SlurmQueue | LocalQueue


def _result(job: Any) -> Mapping[str, Any] | str | None:
    if not job.paths.result_pickle.exists():
        return None
    error = job.exception()
    return job.result() if error is None else str(error)
