"""Running a sweep: its lock, its record, its launcher, and its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

from paperbench.engine.files import explain_os_errors
from paperbench.engine.lock import FileLock
from paperbench.engine.processors import usable_cores
from paperbench.engine.signals import StopFlag
from paperbench.errors import (
    EXIT_DONE,
    EXIT_ENVIRONMENT,
    EXIT_FAILED,
    EXIT_STOPPED,
    EnvironmentError_,
    PaperbenchError,
    RunLockedError,
)
from paperbench.records.place import write_place
from paperbench.sweeps import record
from paperbench.sweeps.launchers.base import Context, Handle, Job, Launcher, create, launcher_class
from paperbench.sweeps.plan import Sweep, jobs_of
from paperbench.sweeps.scheduler import SECONDS_BETWEEN_POLLS, Scheduler, Targets
from paperbench.sweeps.watch import MemberStatus, Watcher

__all__ = ["SweepOutcome", "launcher_for", "run", "run_sweep", "threads_of"]


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """`members` in the sweep's order. `exit_code`: 0 all done, 1 some failed, 3 stopped, 4 the environment ended it."""

    members: tuple[MemberStatus, ...]
    exit_code: int


def run(
    sweep: Sweep,
    *,
    launcher: Launcher,
    jobs: int,
    watcher: Watcher,
    stop: StopFlag,
    retry_failed: bool = False,
    fail_fast: bool = False,
    stacked: bool = False,
    targets: Targets | None = None,
    detach: bool = False,
) -> SweepOutcome:
    """Do what is missing of the sweep, `jobs` jobs at a time, and return the status of every member.

    `detach` returns once the cluster has every job; the states are then `queued` or `running`.
    With `targets`, only these members are run, each as far as it says; the record names all.
    Nothing that a run does is raised: a run that fails, is killed or exits without reporting a status is one `MemberStatus`.
    Setting `stop` asks all runs to save and end. Raises `RunLockedError` where another process runs the same sweep,
    `ConfigError` for `stacked` runs whose task cannot be, and `EnvironmentError_` where the sweep's own files cannot be written.
    """
    groups = jobs_of(sweep.members, stacked=stacked)
    with explain_os_errors(sweep.directory):
        sweep.directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(sweep.directory / "lock")
    if not lock.acquire():
        raise RunLockedError(
            f"the sweep {sweep.directory} is in use by {lock.holder()}; wait for it, or stop it and give the command again"
        )
    with ExitStack() as held:
        held.callback(lock.release)
        record.write(sweep)
        events = held.enter_context(closing(record.Events(sweep.directory)))
        scheduler = Scheduler(
            sweep,
            groups,
            launcher=launcher,
            jobs=jobs,
            threads=threads_of(jobs, len(groups)),
            watcher=watcher,
            stop=stop,
            events=events,
            retry_failed=retry_failed,
            fail_fast=fail_fast,
            targets=targets,
            detach=detach,
        )
        stop.at_abort(scheduler.kill)
        try:
            results = scheduler.run()
        except PaperbenchError as error:
            with suppress(EnvironmentError_):  # a full disk may be the reason
                events.write("sweep ended", exit_code=error.exit_code, reason=str(error))
            raise
        outcome = SweepOutcome(members=results, exit_code=_exit_code(results, scheduler, targets))
        events.write("sweep ended", exit_code=outcome.exit_code)
    return outcome


def run_sweep(
    sweep: Sweep,
    *,
    launcher: str | Launcher = "local",
    settings: Any = None,
    jobs: int | None = None,
    watcher: Watcher,
    retry_failed: bool = False,
    fail_fast: bool = False,
    stacked: bool = False,
    targets: Targets | None = None,
    detach: bool = False,
) -> SweepOutcome:
    """`run` with a launcher of its own, listening to SIGINT, SIGTERM and SIGUSR1. A second SIGINT kills every run and exits.

    `launcher` is a name, or what `launcher_for` made for this sweep; `settings` is an instance of the launcher's `Settings`
    (default: the schema's own values); `jobs` None is its `DEFAULT_JOBS`.
    """
    if isinstance(launcher, str):
        launcher = launcher_for(sweep, launcher, settings, jobs=jobs, stacked=stacked)
    with StopFlag(on_abort=watcher.close) as stop, closing(launcher):
        try:
            return run(
                sweep,
                launcher=launcher,
                jobs=jobs or launcher.DEFAULT_JOBS,
                watcher=watcher,
                stop=stop,
                retry_failed=retry_failed,
                fail_fast=fail_fast,
                stacked=stacked,
                targets=targets,
                detach=detach,
            )
        finally:
            watcher.close()


def cancel_jobs(sweep: Sweep, launcher: Any) -> tuple[str, ...]:
    """Stop every job that an earlier sweep has submitted for these runs, wait for their ends, and return their ids.

    `launcher` supports reattaching. Raises `RunLockedError` while a process runs the sweep.
    """
    lock = FileLock(sweep.directory / "lock")
    if not lock.acquire():
        raise RunLockedError(
            f"the sweep {sweep.directory} is run by {lock.holder()}; Ctrl-C there stops it and its jobs"
        )
    handles: list[Handle] = []
    try:
        for member in sweep.members:
            name = f"{member.request.experiment}-{member.hash}"
            job = Job(directories=(member.directory.absolute(),), threads=1, name=name)
            if (member.directory / "config.yaml").is_file() and (handle := launcher.reattach(job)) is not None:
                handle.stop()
                handles.append(handle)
        with closing(record.Events(sweep.directory)) as events:
            events.write("cancelled", jobs=len(handles))
        while any(handle.poll() is None for handle in handles):
            launcher.wait(SECONDS_BETWEEN_POLLS)
        for member in sweep.members:
            write_place(member.directory, None)
    finally:
        lock.release()
    return tuple(str(getattr(handle, "job_id", "")) for handle in handles)


def launcher_for(
    sweep: Sweep, name: str, settings: Any = None, *, jobs: int | None = None, stacked: bool = False
) -> Launcher:
    """Create the launcher `name` for the sweep; see `run_sweep`. Raises `EnvironmentError_` where its library is missing."""
    kind = launcher_class(name)
    jobs = jobs or kind.DEFAULT_JOBS
    context = Context(
        name=f"{sweep.name}-{sweep.id}".replace("/", "-"),
        directory=sweep.directory.absolute(),
        jobs=jobs,
        threads=threads_of(jobs, len(jobs_of(sweep.members, stacked=stacked))),
        modules=tuple(dict.fromkeys(member.composed.task.module for member in sweep.members)),
    )
    return create(name, settings or kind.Settings(), context)


def threads_of(jobs: int, count: int) -> int:
    """Each job's share of the cores that this process may use. The same for a sweep that is given again, however much of it
    is done: other threads are other sums."""
    return max(1, usable_cores() // max(1, min(jobs, count)))


def _exit_code(results: Sequence[MemberStatus], scheduler: Scheduler, targets: Targets | None) -> int:
    if scheduler.environment:
        return EXIT_ENVIRONMENT
    wanted = results if targets is None else [result for result in results if result.member.hash in targets]
    states = {"done" if _is_reached(result, targets or {}) else result.state for result in wanted}
    if scheduler.asked_to_stop:
        return EXIT_DONE if states <= {"done"} else EXIT_STOPPED
    if "failed" in states:
        return EXIT_FAILED
    if scheduler.left:
        return EXIT_DONE
    return EXIT_DONE if states <= {"done"} else EXIT_STOPPED


def _is_reached(result: MemberStatus, targets: Targets) -> bool:
    """Return True for a run that was stopped because it had come as far as it was asked to."""
    return result.state == "stopped" and 0 < targets.get(result.member.hash, 0) <= result.done
