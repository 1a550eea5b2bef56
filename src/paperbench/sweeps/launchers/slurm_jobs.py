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
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from paperbench.errors import EXIT_STOPPED, EnvironmentError_
from paperbench.records.place import read_place, write_place
from paperbench.records.record import read_status
from paperbench.sweeps.launchers.base import interrupts_blocked
from paperbench.sweeps.launchers.cluster import WorkerProcess
from paperbench.sweeps.launchers.orders import KILL, STOP, read_order
from paperbench.sweeps.launchers.refusals import RETRIES, Refused

_LIVE = frozenset({
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT",
    "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT",
})  # fmt: skip
"""States of jobs that may still do something; every other one is final."""

_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})

CANCELLED = "CANCELLED"
GONE = "gone from the queue"
"""Of a job that squeue does not know, as after a controller has lost its state."""

_REQUEUED = _WAITING - {"PENDING"}

LOST = frozenset({"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", GONE})
"""Final states for which the run is not to blame."""

_IDS_PER_COMMAND = 500


_MOST_IDLE_JOBS = 2
"""Jobs in a row that reach their time limit at the same step."""

_SECONDS_FOR_SBATCH = 120.0


@dataclass(frozen=True, kw_only=True)
class QueueEntry:
    """A job as squeue lists it; `node` and `reason` are empty where there is none."""

    state: str
    node: str = ""
    reason: str = ""

    @property
    def waiting(self) -> bool:
        return self.state in _WAITING

    @property
    def requeued(self) -> bool:
        """True if the state itself says that the job has run before."""
        return self.state in _REQUEUED


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
    seconds: float = 0.0
    """The time limit of the job; 0: none."""
    idle: tuple[int, int] = (-1, 0)
    """The step at which the job before this one reached its time limit, and how many in a row did so there."""
    _began: float = field(default=0.0, init=False, repr=False)
    _stuck: str = field(default="", init=False, repr=False)
    _run: WorkerProcess | None = field(default=None, init=False, repr=False)
    _last_order: str = field(default="", init=False, repr=False)

    def __call__(self) -> dict[str, Any]:
        """Do the runs; return `exit_code`, `refused`: submitit's reason not to put the job back into the queue, and `stuck`:
        ours."""
        from submitit.core.utils import UncompletedJobError

        signal.signal(signal.SIGTERM, self._on_sigterm)  # Slurm sends it first; submitit's own handler does nothing
        refused = ""
        self._began = time.monotonic()
        with WorkerProcess(self.arguments, folder=self.folder) as self._run:
            try:
                self._run.wait(meanwhile=self._handle_order)
                if self._run.exit_code == EXIT_STOPPED and not self._last_order:
                    self._requeue()
            except UncompletedJobError as error:  # by submitit's handler, where it does not queue the job again
                refused = str(error)
            code = self._run.wait()
        said = "" if self._last_order else refused
        return {"exit_code": code, "refused": said, "stuck": self._stuck}

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
        idle = self._idle_now()
        if idle[1] >= _MOST_IDLE_JOBS:
            self._stuck = (
                f"reached its time limit at step {idle[0]}, as {'the one' if idle[1] == 2 else 'those'} before it: no step is "
                f"gained in {self.seconds - self.seconds_to_save:.0f} s. Give more launcher.minutes, or fewer "
                "launcher.save_seconds"
            )
            return None
        again = RunJob(
            arguments=self.arguments,
            folder=self.folder,
            order=self.order,
            seconds_to_save=self.seconds_to_save,
            seconds=self.seconds,
            idle=idle,
        )
        return DelayedSubmission(again)

    def _idle_now(self) -> tuple[int, int]:
        """Return the new `idle`. A job that ended long before its limit, in favour of another one, does not count."""
        step = sum(read_status(Path(self.folder, text)).step for text in self._directories())
        if step > self.idle[0]:
            return step, 1
        used = time.monotonic() - self._began
        return step, self.idle[1] + (2 * used > self.seconds - self.seconds_to_save)

    def _directories(self) -> tuple[str, ...]:
        from paperbench.sweeps.worker import directories_of

        return directories_of(self.arguments)

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

        self._folder = folder
        self._executor = submitit.SlurmExecutor(folder, max_num_timeout=max_timeouts)
        self._parameters = dict(parameters)
        self._poll_seconds = poll_seconds
        self._states: dict[str, QueueEntry] | None = None
        self._states_read_at = float("-inf")
        self._last_seen: dict[str, QueueEntry] = {}
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
        """Submit one array of jobs, or a single job; return their ids. Raises `Refused` with sbatch's own message."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        resources: dict[str, Any] = {"cpus_per_task": cpus, **({"gpus_per_node": gpus} if gpus else {})}
        # Since Slurm 22.05, srun no longer takes the number over from sbatch.
        self._executor.update_parameters(**self._parameters, **resources, srun_args=[f"--cpus-per-task={cpus}"])
        before = self._loose_files()
        try:
            with _impatient_commands():
                jobs = self._executor.submit_array(list(work))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            for file in self._loose_files() - before:
                file.unlink(missing_ok=True)
            raise Refused(str(error)) from error
        self._states_read_at = float("-inf")
        return [job.job_id for job in jobs]

    def _loose_files(self) -> set[Path]:
        """Return the files that submitit names by a job's id once there is one."""
        found = [*self._folder.glob("*.pkl"), *self._folder.glob(".submission_file_*.sh")]
        return {file for file in found if "_submitted" not in file.name and "_result" not in file.name}

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
        array = job_id.partition("_")[0]
        entry = states.get(job_id) or states.get(array)
        if entry is not None:
            return None if entry.state in _LIVE else entry.state
        # A cancelled job of an array that goes on, or whose others are still remembered, is not listed at all.
        remembered = array != job_id and any(other.partition("_")[0] == array for other in states)
        waited = job_id not in self._last_seen or self._last_seen[job_id].waiting
        return CANCELLED if remembered and waited else GONE

    def entry(self, job_id: str) -> QueueEntry | None:
        """Return what squeue last said of a job; None if that is unknown."""
        return (self._states or {}).get(job_id)

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
        waiting = [job_id for job_id in self._to_cancel if (entry := states.get(job_id)) and entry.waiting]
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

    def account(self, job_id: str) -> str:
        """Return the exit code and the memory of a job that has ended, by `sacct`; empty where accounting is off."""
        words = ["sacct", f"--jobs={job_id}", "--noheader", "--parsable2", "--format=ExitCode,MaxRSS"]
        try:
            said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout
        except (OSError, subprocess.SubprocessError):
            return ""
        rows = [line.split("|") for line in said.splitlines() if line.count("|") == 1]
        codes = [code for code, _ in rows if code not in ("", "0:0")]
        memory = max((size for _, size in rows if size), key=_kilobytes, default="")
        parts = [f"exit code {codes[0]}" if codes else "", f"{memory} of memory at most" if memory else ""]
        return ", ".join(part for part in parts if part)

    def log(self, job_id: str) -> Path:
        """Return the file with the output of the job's own process."""
        import submitit

        return submitit.SlurmJob(self._executor.folder, job_id).paths.stdout

    def _read_states(self) -> Mapping[str, QueueEntry] | None:
        """Return by job id all jobs of this user, at most `poll_seconds` old; None if Slurm does not answer."""
        if time.monotonic() - self._states_read_at < self._poll_seconds:
            return self._states
        self._states_read_at = time.monotonic()
        self._states = read_queue()
        self._last_seen.update(self._states or {})
        return self._states


def read_queue() -> dict[str, QueueEntry] | None:
    """Return by job id all jobs of this user, those that have just ended included; None if Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}"]
    command += ["--format=%i|%T|%N|%r"]
    try:
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # a server that restarts knows nothing about the jobs
    return dict(_read_line(line) for line in output.splitlines())


def refresh_places(directories: Sequence[Path]) -> None:
    """Bring the places of runs up to date that no sweep watches. Does nothing where Slurm does not answer."""
    places = {directory: place for directory in directories if (place := read_place(directory)) is not None}
    states = read_queue() if places else None
    if states is None:
        return
    for directory, place in places.items():
        entry = states.get(place.job)
        if entry is None or entry.state not in _LIVE:
            write_place(directory, None)
        elif not entry.waiting:
            write_place(directory, replace(place, state="running", node=entry.node, reason=""))
        else:
            again = entry.requeued or place.state != "queued"
            write_place(
                directory, replace(place, state="requeued" if again else "queued", node="", reason=entry.reason)
            )


def _read_line(line: str) -> tuple[str, QueueEntry]:
    job_id, state, node, reason = [*line.strip().split("|", 3), "", "", ""][:4]
    return job_id, QueueEntry(state=state, node=node, reason="" if reason in ("None", "(null)") else reason)


@contextmanager
def _impatient_commands() -> Iterator[None]:
    """End each sbatch that submitit starts meanwhile when it says that it is going to wait, or after two minutes.

    By itself sbatch waits for minutes where there are too many jobs, and the sweep would notice nothing else.
    """
    from submitit.core import utils

    before = utils.CommandFunction

    class Impatient(before):
        def __call__(self, *args: Any, **kwargs: Any) -> str:
            return _run_impatiently(list(self.command))

    utils.CommandFunction = Impatient
    try:
        yield
    finally:
        utils.CommandFunction = before


def _run_impatiently(command: Sequence[str]) -> str:
    """Return the output of sbatch. Raises `FailedJobError` with its messages."""
    from submitit.core.utils import FailedJobError

    pipe = subprocess.PIPE
    with interrupts_blocked():
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    timer = threading.Timer(_SECONDS_FOR_SBATCH, process.kill)
    timer.start()
    try:
        for line in process.stderr:
            said.append(line)
            if RETRIES.search(line):
                process.kill()
        output = process.stdout.read()
        code = process.wait()
    finally:
        timer.cancel()
        process.stdout.close()
        process.stderr.close()
    if code != 0:
        raise FailedJobError("".join(said) or f"Socket timed out: sbatch did not end in {_SECONDS_FOR_SBATCH:.0f} s")
    return output


def _kilobytes(size: str) -> float:
    """Return a size as sacct writes it, `308144K`, as a number."""
    units = {"K": 1.0, "M": 1024.0, "G": 1024.0**2, "T": 1024.0**3}
    try:
        return float(size.rstrip("KMGT")) * units.get(size[-1:], 1 / 1024)
    except ValueError:
        return 0.0


def largest_node(partition: str | None) -> int:
    """Return the most CPUs that a node of the partition has, of any where none is named; 0 where Slurm does not say."""
    words = ["sinfo", "--noheader", "--Node", "--format=%c", *([f"--partition={partition}"] if partition else [])]
    try:
        said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return max((int(text) for line in said.splitlines() if (text := line.strip().rstrip("+")).isdigit()), default=0)


def test_only(options: Sequence[str]) -> str:
    """Return what Slurm says to a job with these options of sbatch, which is not submitted."""
    words = ["sbatch", "--test-only", *options, "--wrap=true"]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"not asked: {error}"
    said = " ".join(f"{done.stderr} {done.stdout}".split()).removeprefix("sbatch: ")
    return said or ("accepted" if done.returncode == 0 else f"exit code {done.returncode}")


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

    def entry(self, job_id: str) -> QueueEntry | None:
        """Return None: no job waits here, and this machine is the only node."""
        return None

    def account(self, job_id: str) -> str:
        """Return nothing: nobody keeps accounts here."""
        return ""

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
