"""`--launcher slurm`: runs as jobs of a Slurm cluster, through submitit.

Jobs that want the same resources are submitted together, as one array. They outlive the sweep that submitted them: what was
submitted is recorded below the sweep's folder, and the same command given again takes up the jobs that still wait or work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from paperbench.config.schema import NonNegativeInt, PositiveFloat, PositiveInt, Schema
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.errors import EXIT_STOPPED
from paperbench.sweep.launchers.base import EVERYTHING, Context, Ending, Job, ending_of
from paperbench.sweep.launchers.cluster import Needs, arguments_of, library, needs_of
from paperbench.sweep.launchers.slurm_job import KILL, STOP, RunJob
from paperbench.sweep.launchers.slurm_queue import GONE, LOST, LocalQueue, Queue, SlurmQueue

Text = Annotated[str, Field(min_length=1)]


@dataclass(kw_only=True)
class SlurmSettings(Schema):
    """What sbatch is asked for; null leaves the cluster's own default."""

    executor: Literal["slurm", "local"] = "slurm"
    """`local` does the same on this machine, without Slurm."""
    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    minutes: PositiveInt = 240
    save_seconds: PositiveInt = 120
    """How long before the end of a job its run is asked to save."""
    max_timeouts: NonNegativeInt = 100
    memory_gb: PositiveFloat | None = None
    threads: PositiveInt = 4
    """CPUs for each process of a run; the `threads` of its configuration come first."""
    gpus: NonNegativeInt = 0
    """For each process of a run."""
    jobs_at_once: PositiveInt = 256
    array_size: PositiveInt = 1000
    setup: tuple[str, ...] = ()
    sbatch: dict[str, str | int | bool] = field(default_factory=dict)
    poll_seconds: PositiveFloat = 5.0

    @field_validator("save_seconds")
    @classmethod
    def _within(cls, value: int, info: ValidationInfo) -> int:
        minutes = info.data.get("minutes")  # absent if that is wrong itself
        if minutes is not None and value >= 60 * minutes:
            raise ValueError(
                f"{value} seconds leave nothing of launcher.minutes={minutes}; give fewer, or more minutes"
            )
        return value

    def parameters(self, name: str) -> dict[str, Any]:
        """Keyword arguments of submitit's `SlurmExecutor.update_parameters`, but for CPUs and GPUs."""
        chosen = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "mem": None if self.memory_gb is None else f"{round(1024 * self.memory_gb)}M",
            "setup": list(self.setup) or None,
        }
        return {
            **{key: value for key, value in chosen.items() if value is not None},
            "job_name": name,
            "time": self.minutes,
            "signal_delay_s": self.save_seconds,
            "array_parallelism": self.jobs_at_once,
            "stderr_to_stdout": True,
            # A job that Slurm ends before its time goes back into the queue by itself.
            "additional_parameters": {"requeue": True, **self.sbatch},
        }


class SlurmLauncher:
    """Submits jobs in arrays; see `base.Launcher`."""

    Settings: ClassVar[type] = SlurmSettings
    DEFAULT_JOBS: ClassVar[int] = EVERYTHING

    def __init__(self, settings: SlurmSettings, context: Context) -> None:
        def load() -> Any:
            import submitit

            return submitit

        library("slurm", load)
        if settings.executor == "slurm":
            SlurmQueue.refuse_if_absent()
        logging.getLogger("submitit").handlers.clear()  # it would print to stdout; warnings still reach stderr
        self._settings = settings
        self._name = context.name
        self._folder = context.directory / "launcher"
        self._records = self._folder / "jobs.jsonl"
        self._waiting: list[SlurmHandle] = []

    def submit(self, job: Job) -> SlurmHandle:
        """Takes up the job of an earlier sweep if it is still in the queue; else puts this one into the next array."""
        handle = self.rejoin(job)
        if handle is None:
            handle = self._handle(job)
            self._waiting.append(handle)
        return handle

    def rejoin(self, job: Job) -> SlurmHandle | None:
        """The job that an earlier sweep submitted for the same runs, if it still waits or works."""
        handle = self._handle(job)
        known = self._known.get(handle.order.stem)
        if known is None or self._queue.outcome(known) is not None or self._queue.state(known) is not None:
            return None
        handle.job_id = known
        return handle

    def wait(self, seconds: float) -> None:
        """Submits what is waiting, then sleeps. Raises `EnvironmentError_` if Slurm refuses it."""
        self.flush()
        self._queue.flush()
        time.sleep(seconds)

    def close(self) -> None:
        """Jobs that were submitted are Slurm's; those that were not are forgotten."""
        self._waiting.clear()

    def flush(self) -> None:
        """Submits everything that is waiting: one array for each kind of resources, or several if they get too large."""
        groups: dict[Needs, list[SlurmHandle]] = defaultdict(list)
        for handle in self._waiting:
            groups[needs_of(handle.job, self._settings.threads)].append(handle)
        self._waiting = []
        for needs, handles in groups.items():
            size = self._settings.array_size
            for begin in range(0, len(handles), size):
                self._submit_array(handles[begin : begin + size], needs)

    def forget(self, handle: SlurmHandle) -> None:
        """Does not submit what is still waiting."""
        self._waiting = [other for other in self._waiting if other is not handle]

    @property
    def _interval(self) -> float:
        # There is nothing to spare on one machine, and a look costs next to nothing.
        local = self._settings.executor == "local"
        return min(0.2, self._settings.poll_seconds) if local else self._settings.poll_seconds

    @cached_property
    def _queue(self) -> Queue:
        with explain_os_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._settings
        parameters = settings.parameters(self._name)
        if settings.executor == "local":
            return LocalQueue(self._folder, parameters, max_timeouts=settings.max_timeouts)
        return SlurmQueue(
            self._folder, parameters, max_timeouts=settings.max_timeouts, poll_seconds=settings.poll_seconds
        )

    @cached_property
    def _known(self) -> dict[str, str]:
        return _read_records(self._records, self._settings.executor)

    def _handle(self, job: Job) -> SlurmHandle:
        name = hashlib.sha256("\0".join(map(str, job.directories)).encode()).hexdigest()[:16]
        order = self._folder / f"{name}.order"
        order.unlink(missing_ok=True)  # what an earlier sweep ordered was meant for the jobs of then
        return SlurmHandle(self, self._queue, job, order, self._interval)

    def _submit_array(self, handles: Sequence[SlurmHandle], needs: Needs) -> None:
        work = [
            RunJob(
                arguments=arguments_of(handle.job, needs),
                folder=str(Path.cwd()),
                order=handle.order,
                seconds_to_save=self._settings.save_seconds,
            )
            for handle in handles
        ]
        job_ids = self._queue.submit(work, cpus=needs.cpus, gpus=self._settings.gpus * needs.processes)
        for handle, job_id in zip(handles, job_ids, strict=True):
            handle.job_id = job_id
            self._record(handle.order.stem, job_id)

    def _record(self, name: str, job_id: str) -> None:
        self._known[name] = job_id
        line = json.dumps({"order": name, "job": job_id, "executor": self._settings.executor})
        with explain_os_errors(self._records), self._records.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


class SlurmHandle:
    """One job; see `base.Handle`."""

    def __init__(self, launcher: SlurmLauncher, queue: Queue, job: Job, order: Path, interval: float) -> None:
        self.job = job
        self.order = order
        self.job_id: str | None = None
        self._launcher = launcher
        self._queue = queue
        self._interval = interval
        self._next_look = 0.0
        self._missed = 0
        self._stopping = False
        self._ending: Ending | None = None

    def poll(self) -> Ending | None:
        if self._ending is not None or self.job_id is None or time.monotonic() < self._next_look:
            return self._ending
        self._next_look = time.monotonic() + self._interval
        outcome = self._queue.outcome(self.job_id)
        if outcome is not None:
            self._ending = self._of_outcome(outcome)
            return self._ending
        state = self._queue.state(self.job_id)
        # One look more: on a shared file system a file may show up later than the end of its writer.
        self._missed = self._missed + 1 if state is not None else 0
        if state is not None and self._missed > 1:
            self._ending = self._of_state(state)
        return self._ending

    def stop(self) -> None:
        self._stopping = True
        if self.job_id is None:
            self._launcher.forget(self)
            self._ending = self._ending or _WITHDRAWN
            return
        write_atomic(self.order, STOP)
        self._queue.withdraw(self.job_id)

    def kill(self) -> None:
        self._stopping = True
        if self.job_id is None:
            self._launcher.forget(self)
            self._ending = self._ending or _WITHDRAWN
            return
        write_atomic(self.order, KILL)
        self._queue.cancel(self.job_id)

    def _of_outcome(self, outcome: Any) -> Ending:
        if isinstance(outcome, str):
            last = outcome.strip().splitlines()[-1]
            return Ending(exit_code=None, signal=None, reason=f"{self._what} failed outside the run: {last}")
        code, refused = outcome["exit_code"], outcome["refused"]
        if code == EXIT_STOPPED and refused:
            return Ending(exit_code=code, signal=None, reason=f"{self._what}: {refused} (launcher.max_timeouts)")
        if (
            code == EXIT_STOPPED and not self._stopping
        ):  # on the order of an earlier sweep, which this one took back too late
            return Ending(exit_code=code, signal=None, reason=f"{self._what} was told to stop before", lost=True)
        return ending_of(code, f"in {self._what}")

    def _of_state(self, state: str) -> Ending:
        if self._stopping:
            return _WITHDRAWN
        reason = state if state == GONE else f"ended as {state}"
        return Ending(
            exit_code=None,
            signal=None,
            reason=f"{self._what} {reason}, without a word; its log is {self._queue.log(str(self.job_id))}",
            lost=state in LOST,
        )

    @property
    def _what(self) -> str:
        return f"Slurm job {self.job_id}"


_WITHDRAWN = Ending(exit_code=EXIT_STOPPED, signal=None, reason="withdrawn from the queue")


def _read_records(path: Path, executor: str) -> dict[str, str]:
    """Job ids of earlier sweeps by the name of their order; the latest counts. A torn last line is none."""
    known: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return known
    for line in lines:
        try:
            record = json.loads(line)
            if record["executor"] == executor:
                known[str(record["order"])] = str(record["job"])
        except (ValueError, KeyError, TypeError):
            continue
    return known
