"""`--launcher slurm`: runs as jobs of a Slurm cluster, through submitit.

Jobs with the same resources are submitted together, as one array. They outlive the sweep that submitted them: their ids are
recorded below the sweep's folder, and the same command given again takes up the jobs that still wait or run.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from paperbench.config.schema import NonNegativeInt, PositiveFloat, PositiveInt, Schema
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.engine.jsonlines import JsonLinesWriter, read_json_lines
from paperbench.errors import EXIT_FAILED, EXIT_STOPPED
from paperbench.records.place import Place, read_place
from paperbench.sweeps.launchers.base import UNLIMITED, Context, ExitStatus, Job, RunRefused
from paperbench.sweeps.launchers.cluster import Resources, import_library, resources_for, resources_of, worker_arguments
from paperbench.sweeps.launchers.orders import KILL, STOP, order_file
from paperbench.sweeps.launchers.refusals import Refused
from paperbench.sweeps.launchers.slurm_jobs import (
    CANCELLED,
    GONE,
    LOST,
    LocalQueue,
    Queue,
    RunJob,
    SlurmQueue,
    largest_node,
    test_only,
)

Text = Annotated[str, Field(min_length=1)]

_SECONDS_BETWEEN_TRIES, _MOST_SECONDS_BETWEEN_TRIES = 5.0, 60.0
"""Between two tries to submit what Slurm did not take, doubled each time, and at most."""


@dataclass(kw_only=True)
class SlurmSettings(Schema):
    """Options of sbatch; null leaves the cluster's own default."""

    executor: Literal["slurm", "local"] = "slurm"
    """`local` does the same on this machine, without Slurm."""
    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    minutes: PositiveInt = 240
    save_seconds: PositiveInt = 120
    """Before the end of a job: its run is asked to save so much earlier."""
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
        if minutes is not None and 2 * value > 60 * minutes:
            raise ValueError(
                f"{value} seconds leave less than half of launcher.minutes={minutes} for the run; give fewer, or more minutes"
            )
        return value

    def parameters(self, name: str) -> dict[str, Any]:
        """Return keyword arguments of submitit's `SlurmExecutor.update_parameters`, without CPUs and GPUs."""
        optional = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "mem": None if self.memory_gb is None else f"{round(1024 * self.memory_gb)}M",
            "setup": list(self.setup) or None,
        }
        return {
            **{key: value for key, value in optional.items() if value is not None},
            "job_name": name,
            "time": self.minutes,
            "signal_delay_s": self.save_seconds,
            "array_parallelism": self.jobs_at_once,
            "stderr_to_stdout": True,
            # A job that Slurm ends before its time goes back into the queue by itself.
            "additional_parameters": {"requeue": True, **self.sbatch},
        }

    def options(self, resources: Resources, gpus: int) -> list[str]:
        """Return the options of sbatch that say what a job asks for."""
        pairs: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "mem": None if self.memory_gb is None else f"{round(1024 * self.memory_gb)}M",
            "time": self.minutes,
            "cpus-per-task": resources.cpus,
            "gpus-per-node": gpus or None,
            **self.sbatch,
        }
        return [
            f"--{key}" if value is True else f"--{key}={value}"
            for key, value in pairs.items()
            if value is not None and value is not False
        ]


class SlurmLauncher:
    """Arrays of Slurm jobs; see `base.Launcher`."""

    Settings: ClassVar[type] = SlurmSettings
    DEFAULT_JOBS: ClassVar[int] = UNLIMITED

    def __init__(self, settings: SlurmSettings, context: Context) -> None:
        def load() -> Any:
            import submitit

            return submitit

        import_library("slurm", load)
        if settings.executor == "slurm":
            SlurmQueue.check_commands()
        logging.getLogger("submitit").handlers.clear()  # it would print to stdout; warnings still reach stderr
        self._settings = settings
        self._name = context.name
        self._folder = context.directory / "launcher"
        self._records = self._folder / "jobs.jsonl"
        self._waiting: list[SlurmHandle] = []
        self._array_size = settings.array_size
        self._accepted = False
        """True once Slurm has taken a job of this sweep, or has one of an earlier one."""
        self._refusals = 0
        self._postponed = False
        self._not_before = 0.0
        self._notices: list[str] = []
        self._last_notice = ""

    def submit(self, job: Job) -> SlurmHandle:
        """Take up the job of an earlier sweep if it is still in the queue; else put this one into the next array.

        Raises `RunRefused` if no node of the partition has as many CPUs.
        """
        handle = self.reattach(job)
        if handle is None:
            resources = resources_of(job, self._settings.threads)
            if self._largest_node and resources.cpus > self._largest_node:
                raise RunRefused(
                    f"--launcher slurm: a run asks for {resources.cpus} CPUs, and no node has more than {self._largest_node}; "
                    "give less with launcher.threads="
                )
            handle = self._handle(job)
            self._waiting.append(handle)
        return handle

    def reattach(self, job: Job) -> SlurmHandle | None:
        """Return the job that an earlier sweep submitted for the same runs, if it still waits or runs."""
        handle = self._handle(job)
        job_id = self._recorded_ids.get(handle.order.stem)
        if job_id is None or self._queue.result(job_id) is not None or self._queue.state(job_id) is not None:
            return None
        handle.job_id = job_id
        self._accepted = True
        return handle

    def all_submitted(self) -> bool:
        """Return True if Slurm has every job."""
        return not self._waiting

    @cached_property
    def _largest_node(self) -> int:
        return 0 if self._settings.executor == "local" else largest_node(self._settings.partition)

    @classmethod
    def preview(cls, settings: SlurmSettings, name: str, jobs: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        """Return a line for each array, and what Slurm itself says to it (`sbatch --test-only`)."""
        counts = Counter(resources_for(configs, settings.threads) for configs in jobs)
        lines = []
        for resources, count in counts.items():
            gpus = settings.gpus * resources.processes
            arrays = -(-count // settings.array_size)
            parts = [
                f"{count} jobs, {arrays} array{'s' if arrays > 1 else ''}" if count > 1 else "1 job",
                f"{resources.cpus} CPUs, {gpus} GPUs and "
                + ("the cluster's own memory" if settings.memory_gb is None else f"{settings.memory_gb:g} GB")
                + " each",
                f"{settings.minutes} minutes",
                f"partition {settings.partition or 'by default'}",
            ]
            lines.append(f"Slurm: {'; '.join(parts)}")
            if settings.executor == "slurm":
                lines.append(f"  sbatch --test-only: {test_only(settings.options(resources, gpus))}")
        return lines

    def is_elsewhere(self, job: Job) -> bool:
        """Return True while a job that another sweep submitted for one of the runs is in the queue."""
        if self._settings.executor != "slurm":
            return False
        own = set(self._recorded_ids.values())
        places = [place for directory in job.directories if (place := read_place(directory)) is not None]
        others = [place.job for place in places if place.job and place.job not in own]
        return any(self._queue.result(job_id) is None and self._queue.state(job_id) is None for job_id in others)

    def wait(self, seconds: float) -> None:
        """Submit what is waiting, then sleep. Raises `EnvironmentError_` if Slurm refuses the very first jobs."""
        self.submit_waiting()
        self._queue.flush()
        time.sleep(seconds)

    def close(self) -> None:
        """Forget the jobs that were not submitted; the others are Slurm's."""
        self._waiting.clear()

    def notices(self) -> list[str]:
        """Return the sentences since the last call."""
        said, self._notices = self._notices, []
        return said

    def submit_waiting(self) -> None:
        """Submit everything that is waiting: one array for each kind of resources, or several if it would be too large.

        What Slurm cannot take now is kept for later; what it will never take has ended as refused.
        """
        if time.monotonic() < self._not_before:
            return
        groups: dict[Resources, list[SlurmHandle]] = defaultdict(list)
        for handle in self._waiting:
            groups[resources_of(handle.job, self._settings.threads)].append(handle)
        for resources, handles in groups.items():
            size = self._array_size
            while handles and not self._postponed:
                part = handles[:size]
                size = self._submit_or_refuse(part, resources)
                handles = [handle for handle in handles if handle in self._waiting]
            if self._postponed:
                break
        self._postponed = False

    def _submit_or_refuse(self, handles: Sequence[SlurmHandle], resources: Resources) -> int:
        """Submit an array, or do with the refusal as it deserves; return the largest size to try next."""
        try:
            self._submit_array(handles, resources)
        except Refused as refused:
            return self._on_refusal(refused, handles)
        for handle in handles:
            self.drop(handle)
        self._refusals = 0
        return self._array_size

    def _on_refusal(self, refused: Refused, handles: Sequence[SlurmHandle]) -> int:
        half = max(1, len(handles) // 2)
        if refused.kind == "array" and len(handles) > 1:
            self._array_size = half
            self._notice(f"Slurm takes no array of {len(handles)} jobs; trying {half} (launcher.array_size)")
            return half
        if refused.kind == "limit" and len(handles) > 1:
            return half
        if refused.kind in ("final", "array") or (refused.kind == "unreachable" and not self._accepted):
            if not self._accepted:
                raise refused
            for handle in handles:
                handle.refuse(refused.text)
                self.drop(handle)
            return self._array_size
        self._postponed = True
        self._refusals += 1
        seconds = min(_SECONDS_BETWEEN_TRIES * 2 ** (self._refusals - 1), _MOST_SECONDS_BETWEEN_TRIES)
        self._not_before = time.monotonic() + seconds
        why = "cannot be reached" if refused.kind == "unreachable" else "takes no further job at present"
        self._notice(f"Slurm {why} ({refused.text}): {len(self._waiting)} jobs wait to be submitted; trying again")
        return half

    def _notice(self, text: str) -> None:
        """Keep a sentence for `notices`, unless it is the one that was said last."""
        if text != self._last_notice:
            self._notices.append(text)
        self._last_notice = text

    def drop(self, handle: SlurmHandle) -> None:
        """Do not submit a job that is still waiting."""
        self._waiting = [other for other in self._waiting if other is not handle]

    @property
    def _interval(self) -> float:
        # On one machine a look costs next to nothing.
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
    def _recorded_ids(self) -> dict[str, str]:
        return _read_ids(self._records, self._settings.executor)

    def _handle(self, job: Job) -> SlurmHandle:
        order = order_file(self._folder, job)
        order.unlink(missing_ok=True)  # an order of an earlier sweep was for its own jobs
        return SlurmHandle(self, self._queue, job, order, self._interval)

    def _submit_array(self, handles: Sequence[SlurmHandle], resources: Resources) -> None:
        work = [
            RunJob(
                arguments=worker_arguments(handle.job, resources),
                folder=str(Path.cwd()),
                order=handle.order,
                seconds_to_save=self._settings.save_seconds,
                seconds=60 * self._settings.minutes,
            )
            for handle in handles
        ]
        job_ids = self._queue.submit(work, cpus=resources.cpus, gpus=self._settings.gpus * resources.processes)
        self._accepted = True
        for handle, job_id in zip(handles, job_ids, strict=True):
            handle.job_id = job_id
            self._record(handle.order.stem, job_id)

    def _record(self, name: str, job_id: str) -> None:
        self._recorded_ids[name] = job_id
        with closing(JsonLinesWriter(self._records)) as file:
            file.write({"order": name, "job": job_id, "executor": self._settings.executor})


class SlurmHandle:
    """One job; see `base.Handle`."""

    def __init__(self, launcher: SlurmLauncher, queue: Queue, job: Job, order: Path, interval: float) -> None:
        self.job = job
        self.order = order
        self.job_id: str | None = None
        self._launcher = launcher
        self._queue = queue
        self._interval = interval
        self._next_poll = 0.0
        self._times_final = 0
        self._stopping = False
        self._has_run = False
        self._last_place: Place | None = None
        self._exit_status: ExitStatus | None = None

    def poll(self) -> ExitStatus | None:
        if self._exit_status is not None or self.job_id is None or time.monotonic() < self._next_poll:
            return self._exit_status
        self._next_poll = time.monotonic() + self._interval
        result = self._queue.result(self.job_id)
        if result is not None:
            self._exit_status = self._from_result(result)
            return self._exit_status
        state = self._queue.state(self.job_id)
        # One poll more: on a shared file system a file may show up later than the end of its writer.
        self._times_final = self._times_final + 1 if state is not None else 0
        if state is not None and self._times_final > 1:
            self._exit_status = self._from_state(state)
        return self._exit_status

    def place(self) -> Place | None:
        """Return where squeue last saw the job; None before it has."""
        if self._exit_status is not None or self.job_id is None:
            return None
        entry = self._queue.entry(self.job_id)
        if entry is None and isinstance(self._queue, SlurmQueue):
            return self._last_place
        if entry is None or not entry.waiting:
            self._has_run = True
            self._last_place = Place(state="running", job=self.job_id, node=entry.node if entry else "")
        else:
            requeued = entry.requeued or self._has_run
            self._last_place = Place(state="requeued" if requeued else "queued", job=self.job_id, reason=entry.reason)
        return self._last_place

    def refuse(self, text: str) -> None:
        """End the job, which Slurm does not take."""
        self._exit_status = ExitStatus(exit_code=None, signal=None, reason=f"Slurm refused its job: {text}")

    def stop(self) -> None:
        if (job_id := self._give_order(STOP)) is not None:
            self._queue.cancel_if_waiting(job_id)

    def kill(self) -> None:
        if (job_id := self._give_order(KILL)) is not None:
            self._queue.cancel(job_id)

    def _give_order(self, order: str) -> str | None:
        """Write the order and return the job's id; withdraw a job that was not submitted yet, and return None."""
        self._stopping = True
        if self.job_id is None:
            self._launcher.drop(self)
            self._exit_status = self._exit_status or _WITHDRAWN
            return None
        write_atomic(self.order, order)
        return self.job_id

    def _from_result(self, result: Any) -> ExitStatus:
        if isinstance(result, str):
            last = result.strip().splitlines()[-1]
            return ExitStatus(exit_code=None, signal=None, reason=f"{self._title} failed outside the run: {last}")
        code, refused = result["exit_code"], result["refused"]
        if result.get("stuck"):
            return ExitStatus(exit_code=EXIT_FAILED, signal=None, reason=f"{self._title} {result['stuck']}")
        if code == EXIT_STOPPED and refused:
            return ExitStatus(exit_code=code, signal=None, reason=f"{self._title}: {refused} (launcher.max_timeouts)")
        if code == EXIT_STOPPED and not self._stopping:  # by the order of an earlier sweep, withdrawn too late
            return ExitStatus(
                exit_code=code, signal=None, reason=f"{self._title} was asked to stop by an earlier sweep", lost=True
            )
        return ExitStatus.from_code(code, f"in {self._title}")

    def _from_state(self, state: str) -> ExitStatus:
        if self._stopping:
            return _WITHDRAWN
        if state == CANCELLED:
            return ExitStatus(
                exit_code=EXIT_STOPPED, signal=None, reason=f"{self._title} was cancelled, not by this sweep"
            )
        log = self._queue.log(str(self.job_id))
        reason = f"{self._title} {state if state == GONE else f'ended as {state}'}, without a result"
        if account := self._queue.account(str(self.job_id)):
            reason += f" ({account})"
        said = last_lines(log)
        return ExitStatus(
            exit_code=None,
            signal=None,
            reason=f"{reason}: {said[-1]} (in {log})" if said else f"{reason}; its log is {log}",
            log_tail=said,
            lost=state in LOST,
            unreported=state != OUT_OF_MEMORY,
        )

    @property
    def _title(self) -> str:
        return f"Slurm job {self.job_id}"


OUT_OF_MEMORY = "OUT_OF_MEMORY"
_LOG_BYTES = 16 << 10


def last_lines(log: Path, lines: int = 5) -> tuple[str, ...]:
    """Return the last lines that a job's own process wrote and that are not blank."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line.strip() for line in text.splitlines() if line.strip())[-lines:]


_WITHDRAWN = ExitStatus(exit_code=EXIT_STOPPED, signal=None, reason="withdrawn from the queue")


def _read_ids(path: Path, executor: str) -> dict[str, str]:
    """Return the job ids of earlier sweeps by the name of their order, the latest of each."""
    records = [record for record in read_json_lines(path) if record.get("executor") == executor]
    return {str(record["order"]): str(record["job"]) for record in records if {"order", "job"} <= record.keys()}
