"""The loop that keeps `jobs` jobs running until every member of a sweep has ended.

It reads the state of a member from the run's own files, before its job is started and after that has ended, and trusts nothing
else. A run that is done is not started; a run that another process works on is waited for; a job that was lost through no
fault of its run is submitted again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from paperbench.engine.claims import confirm_done_if_free, prepare
from paperbench.engine.signals import StopFlag
from paperbench.errors import (
    EXIT_ENVIRONMENT,
    EXIT_FAILED,
    EXIT_STOPPED,
    DiskFullError,
    EnvironmentError_,
    PaperbenchError,
    RunLockedError,
)
from paperbench.records.place import Place, write_place
from paperbench.records.record import RunStatus, log_tail, read_status
from paperbench.sweeps import progress
from paperbench.sweeps.launchers.base import (
    ExitStatus,
    Handle,
    Job,
    Launcher,
    LauncherLost,
    ReportsNotices,
    ReportsPlace,
    RunRefused,
    SharesRuns,
    SupportsDetach,
    SupportsReattach,
)
from paperbench.sweeps.plan import Member, Sweep
from paperbench.sweeps.record import Events
from paperbench.sweeps.watch import MemberState, MemberStatus, Watcher

SECONDS_BETWEEN_POLLS = 0.25
"""Of progress files, and of runs that another process works on."""
MAX_LOSSES = 5
"""Losses of a run in a row, without a step gained, before it counts as failed."""


Targets = Mapping[str, int]
"""The members that are wanted, by hash, with the step after which each may stop; 0: its end."""


_RUNNING = Place(state="running")
"""Of a job whose handle says nothing about it."""


class _Entry:
    """A member while the sweep runs."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.status = MemberStatus(member=member)
        self.finished = False
        self.started = False
        self.retry = False
        """An earlier failure may be tried again, once; a failure in this sweep may not."""
        self.losses = 0
        self.step = -1
        self.not_before = 0.0


@dataclass
class _Running:
    handle: Handle
    entries: list[_Entry]


class Scheduler:
    """The execution of one sweep; see `run.run` for the arguments."""

    def __init__(
        self,
        sweep: Sweep,
        groups: Sequence[Sequence[Member]],
        *,
        launcher: Launcher,
        jobs: int,
        threads: int,
        watcher: Watcher,
        stop: StopFlag,
        events: Events,
        retry_failed: bool,
        fail_fast: bool,
        targets: Targets | None = None,
        detach: bool = False,
    ) -> None:
        self._detach = detach
        self._sweep = sweep
        self._launcher = launcher
        self._jobs = jobs
        self._threads = threads
        self._watcher = watcher
        self._stop = stop
        self._events = events
        self._retry_failed = retry_failed
        self._fail_fast = fail_fast
        entries = {member.hash: _Entry(member) for member in sweep.members}
        self._entries = list(entries.values())
        self._targets: Targets = dict.fromkeys(entries, 0) if targets is None else targets
        wanted = [[entries[member.hash] for member in group if member.hash in self._targets] for group in groups]
        self._pending = deque(group for group in wanted if group)
        self._running: list[_Running] = []
        self._stopping = False
        """True once the runs were asked to stop; none is started any more."""
        self._progress_read_at = 0.0
        self.asked_to_stop = False
        self.left = False
        """True if the sweep was left to the cluster."""
        self.environment: PaperbenchError | None = None
        """An error that no other run would get past, such as a full disk."""

    def run(self) -> tuple[MemberStatus, ...]:
        """Return when nothing is left to do or, after a stop was asked for, everything that ran has ended."""
        self._events.write("sweep began", jobs=self._jobs, runs=len(self._entries))
        wanted = [entry.status for entry in self._entries if entry.member.hash in self._targets]
        self._watcher.begin(self._sweep, wanted, self._jobs)
        try:
            self._skip_finished()
            while self._running or (self._pending and not self._stopping):
                if self._stop and not self.asked_to_stop:
                    self.asked_to_stop = True
                    self._stop_all(
                        f"stopping on {self._stop.reason}: every run saves and ends; Ctrl-C once more kills them"
                    )
                self._collect_exits()
                self._start_jobs()
                if self._detach and self._can_leave():
                    return self._leave()
                self._prepare_next()
                self._read_progress()
                if self._running or self._pending:
                    self._wait()
        except BaseException:
            self._abort()
            raise
        for entry in self._entries:
            if not entry.finished:
                begun = entry.started or read_status(entry.member.directory).state == "continues"
                self._finish(entry, "stopped" if begun else "not started")
        return tuple(entry.status for entry in self._entries)

    def _can_leave(self) -> bool:
        """Return True when the cluster has been seen to have, or another sweep has, everything that is not done."""
        assert isinstance(self._launcher, SupportsDetach)
        waiting = [entry for group in self._pending for entry in group if entry.status.state != "elsewhere"]
        unseen = any(entry.status.place is None for running in self._running for entry in running.entries)
        return not waiting and not unseen and self._launcher.all_submitted() and not self._stopping

    def _leave(self) -> tuple[MemberStatus, ...]:
        for running in self._running:
            self._note_place(running)
        self.left = True
        self._events.write("left", jobs=len(self._running))
        return tuple(entry.status for entry in self._entries)

    def _wait(self) -> None:
        """Let time pass, and pass on what the launcher has to say. A cluster that is gone ends the sweep, with its summary."""
        try:
            self._launcher.wait(SECONDS_BETWEEN_POLLS)
        except LauncherLost as error:
            self.environment = error
            self._stop_all(str(error))
            for running in self._running:
                for entry in running.entries:
                    entry.status.stop_clock()
            self._running = []
        if isinstance(self._launcher, ReportsNotices):
            for text in self._launcher.notices():
                self._watcher.message(text)
                self._events.write("notice", text=text)

    def kill(self) -> None:
        """End every run at once. Called from a signal handler."""
        for running in self._running:
            with suppress(Exception):
                running.handle.kill()

    # --- before a run -------------------------------------------------------------------------------------------------

    def _skip_finished(self) -> None:
        """Finish the members that are done or failed already, and so need no job."""
        for entry in self._entries:
            entry.retry = True
            self._finish_if_ended(entry, read_status(entry.member.directory))
        self._pending = deque(left for group in self._pending if (left := [e for e in group if not e.finished]))

    def _finish_if_ended(self, entry: _Entry, now: RunStatus) -> bool:
        """Finish the member and return True if it needs no job in its present state."""
        if now.state == "done":
            confirm_done_if_free(entry.member.directory)
            self._finish(entry, "done", now)
            return True
        # A failure for want of a disk or of data is tried again by the same command: somebody may have repaired that.
        again = entry.retry and (self._retry_failed or now.by_environment)
        if now.state == "failed" and not again:
            self._finish(entry, "failed", now)
            return True
        return False

    def _start_jobs(self) -> None:
        """Start jobs up to `jobs`. A group with a run that another process works on goes to the end of the queue."""
        now = time.monotonic()
        for _ in range(len(self._pending)):
            if self._stopping or len(self._running) >= self._jobs:
                return
            group = self._pending.popleft()
            if any(entry.not_before > now for entry in group):
                self._pending.append(group)
                continue
            found = [(entry, read_status(entry.member.directory)) for entry in group]
            open_ = [(entry, stand) for entry, stand in found if not self._finish_if_ended(entry, stand)]
            left = [entry for entry, _ in open_]
            shared = (
                bool(left) and isinstance(self._launcher, SharesRuns) and self._launcher.is_elsewhere(self._job(left))
            )
            elsewhere = [entry for entry, stand in open_ if shared or stand.state == "running"]
            if elsewhere and self._reattach(left):
                continue
            for entry in elsewhere:
                entry.not_before = now + SECONDS_BETWEEN_POLLS
                self._set_state(entry, "elsewhere")
            if elsewhere:
                self._pending.append(left)
            elif left:
                self._submit(left)

    def _reattach(self, group: list[_Entry]) -> bool:
        """Return True, and track the job, if the launcher still has a job of an earlier sweep for these runs."""
        handle = self._launcher.reattach(self._job(group)) if isinstance(self._launcher, SupportsReattach) else None
        if handle is not None:
            self._track(handle, group, "found at work")
        return handle is not None

    def _submit(self, group: list[_Entry]) -> None:
        ready = [entry for entry in group if self._prepare(entry)]
        if not ready or self._stopping:
            return
        try:
            handle = self._launcher.submit(self._job(ready))
        except RunRefused as refused:
            if not any(entry.started for entry in self._entries):
                raise
            for entry in ready:
                entry.started, entry.retry = True, False
                self._fail(entry, read_status(entry.member.directory), how=str(refused))
            return
        self._track(handle, ready, "started")

    def _job(self, group: list[_Entry]) -> Job:
        name = f"{group[0].member.request.experiment}-{group[0].member.hash}"
        directories = tuple(entry.member.directory.absolute() for entry in group)
        lasts = [self._targets[entry.member.hash] for entry in group]
        last_step = max(lasts) if all(lasts) else 0
        config = group[0].member.composed.config
        return Job(
            directories=directories,
            threads=self._threads,
            name=name,
            device=config.device,
            processes=config.nproc,
            last_step=last_step,
        )

    def _track(self, handle: Handle, group: list[_Entry], event: str) -> None:
        self._running.append(_Running(handle, group))
        for entry in group:
            entry.started, entry.retry = True, False
            self._events.write(event, run=entry.member.hash, step=max(entry.step, 0), losses=entry.losses)
        self._note_place(self._running[-1])

    def _note_place(self, running: _Running) -> None:
        """Copy where a job is into the statuses of its runs. The clock runs while the run does."""
        place = _RUNNING
        if isinstance(running.handle, ReportsPlace):
            found = running.handle.place()
            if found is None:
                return
            place = found
        for entry in running.entries:
            status = entry.status
            if place.state == "running" and status.began is None:
                status.began = time.monotonic()
            elif place.state != "running":
                status.stop_clock()
            known = place if place is not _RUNNING else None
            if known is not None and known != status.place:
                write_place(entry.member.directory, known)
                self._events.write("place", run=entry.member.hash, **asdict(known))
                status.place = known
            self._set_state(entry, place.state)

    def _prepare(self, entry: _Entry) -> bool:
        try:
            prepare(entry.member.directory, entry.member.composed.resolved)
        except PaperbenchError as error:
            self._fail(entry, RunStatus(state="failed", message=str(error)), error)
            return False
        return True

    def _prepare_next(self) -> None:
        """Create the directories of the next job while others compute, so that it can start at once when one of them ends."""
        if self._pending and not self._stopping and len(self._running) >= self._jobs:
            for entry in self._pending[0]:
                if not (entry.member.directory / "config.yaml").is_file():
                    self._prepare(entry)
            self._pending[0][:] = [entry for entry in self._pending[0] if not entry.finished]
            if not self._pending[0]:
                self._pending.popleft()

    # --- after a run --------------------------------------------------------------------------------------------------

    def _collect_exits(self) -> None:
        for running in list(self._running):
            status = running.handle.poll()
            if status is None:
                self._note_place(running)
                continue
            self._running.remove(running)
            for entry in running.entries:
                self._on_exit(entry, status, alone=len(running.entries) == 1)

    def _on_exit(self, entry: _Entry, status: ExitStatus, *, alone: bool) -> None:
        now = read_status(entry.member.directory)
        self._events.write(
            "ended",
            run=entry.member.hash,
            state=now.state,
            step=now.step,
            exit_code=status.exit_code,
            signal=status.signal,
            reason=status.reason,
        )
        entry.status.stop_clock()
        if entry.status.place is not None:
            write_place(entry.member.directory, None)
        if now.state == "done":
            self._finish(entry, "done", now)
        elif now.state == "failed":
            self._fail(entry, now)
        elif now.state == "continues" and 0 < self._targets[entry.member.hash] <= now.step:
            self._finish(entry, "stopped", now)
        elif self._stopping:
            self._finish(entry, "stopped" if now.state == "continues" else "not started", now)
        elif now.state == "running":
            self._resubmit(entry, now, status.reason or "another process works on it")
        elif status.lost or (status.unreported and now.state == "continues"):
            self._resubmit(entry, now, status.reason or "its process was lost")
        elif not alone:
            self._resubmit(entry, now, "trained alone, since its job ended early")
        elif status.exit_code == EXIT_STOPPED and now.state in ("continues", "to do"):
            self._finish(entry, "stopped" if now.state == "continues" else "not started", now, how=status.reason)
        elif now.state == "continues" and not now.killed and status.exit_code != EXIT_FAILED:
            self._finish(entry, "stopped", now, how=status.reason)
        else:
            unwritten = status.exit_code == EXIT_ENVIRONMENT  # or it would have said why in its directory
            error = EnvironmentError_(f"{entry.member.directory} cannot be written") if unwritten else None
            self._fail(entry, now, error, how=str(error) if error else _describe(status))
            entry.status.log_tail = entry.status.log_tail or status.log_tail

    def _resubmit(self, entry: _Entry, now: RunStatus, why: str) -> None:
        """Submit a run again, to continue from its last step, unless that has gained no step too often."""
        entry.losses = entry.losses + 1 if now.step <= entry.step else 1
        entry.step = max(entry.step, now.step)
        if entry.losses > MAX_LOSSES:
            self._fail(entry, now, how=f"{why}, {entry.losses} times without a step gained")
            return
        entry.not_before = time.monotonic() + SECONDS_BETWEEN_POLLS * (entry.losses - 1)
        self._pending.append([entry])
        self._watcher.message(f"{entry.member.hash}: {why}; it continues")
        self._set_state(entry, "to do")

    def _fail(self, entry: _Entry, now: RunStatus, error: PaperbenchError | None = None, *, how: str = "") -> None:
        self._finish(entry, "failed", now, how=how)
        unwritable = isinstance(error, EnvironmentError_) and not isinstance(error, RunLockedError)
        if unwritable or now.error == DiskFullError.__name__:
            self.environment = error or DiskFullError(now.message)
            self._stop_all("no further run is started, and those that run save if they can: " + str(self.environment))
        elif self._fail_fast:
            self._stop_all("a run has failed: the others save and end (--fail-fast)")

    def _finish(self, entry: _Entry, state: MemberState, now: RunStatus | None = None, *, how: str = "") -> None:
        now = now or read_status(entry.member.directory)
        status = entry.status
        status.results = now.results if state == "done" else None
        status.message = "" if state == "done" else how or now.message
        status.log_tail = log_tail(entry.member.directory) if state == "failed" else ()
        status.reused = not entry.started
        status.seconds = float((status.results or {}).get("seconds") or now.seconds or status.seconds)
        status.done, status.total = (now.step, now.steps) if now.steps else (status.done, status.total)
        entry.finished = True
        self._set_state(entry, state)

    # --- all of them --------------------------------------------------------------------------------------------------

    def _stop_all(self, why: str) -> None:
        """Ask everything that runs to save and end; nothing is started any more."""
        if self._stopping:
            return
        self._stopping = True
        for running in self._running:
            running.handle.stop()
        self._watcher.message(why)
        with suppress(EnvironmentError_):  # a full disk may be the reason
            self._events.write("stopping", reason=why)

    def _abort(self) -> None:
        """Ask every run to save, since the sweep cannot go on, and kill those that have not ended after 30 seconds."""
        deadline = time.monotonic() + 30
        for running in self._running:
            with suppress(Exception):
                running.handle.stop()
        with suppress(Exception):
            while time.monotonic() < deadline and any(running.handle.poll() is None for running in self._running):
                self._launcher.wait(SECONDS_BETWEEN_POLLS)
        self.kill()

    def _read_progress(self) -> None:
        """Copy the progress of the runs into their statuses, not more often than anybody could read it."""
        now = time.monotonic()
        if now - self._progress_read_at < SECONDS_BETWEEN_POLLS:
            return
        self._progress_read_at = now
        for running in self._running:
            for entry in running.entries:
                found, status = progress.read(entry.member.directory), entry.status
                if found is not None:
                    status.phase, status.values = found.phase, found.values
                    status.done, status.total = found.done, found.total
                    status.best = found.values.get("best", status.best)
        self._watcher.looked()

    def _set_state(self, entry: _Entry, state: MemberState) -> None:
        if entry.status.state != state:
            entry.status.state = state
            self._watcher.changed(entry.status)


def _describe(status: ExitStatus) -> str:
    """Return a sentence on the exit of a process that reported no status in its directory."""
    if status.signal == 9:
        return "killed by SIGKILL, as when memory runs out"
    if status.reason:
        return status.reason
    return "its process exited without reporting a status" + (
        f" (exit code {status.exit_code})" if status.exit_code is not None else ""
    )
