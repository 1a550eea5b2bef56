"""Keeps `jobs` jobs going until every member of a sweep has ended, and believes only the runs' own files.

A member is looked at, in its directory, before it is started and after its job has ended. What is done is never started,
what another process works on is waited for, and a job that was lost through no fault of its run is submitted again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from paperbench.engine.claims import confirm_done_if_free, prepare
from paperbench.engine.signals import StopFlag
from paperbench.errors import EXIT_ENVIRONMENT, DiskFullError, EnvironmentError_, PaperbenchError, RunLockedError
from paperbench.runs.record import RunStatus, log_tail, read_status
from paperbench.sweep import progress
from paperbench.sweep.launchers.base import Ending, Handle, Job, Launcher, Rejoins
from paperbench.sweep.plan import Member, Sweep
from paperbench.sweep.record import Events
from paperbench.sweep.watch import View, Watcher

MemberState = Literal["done", "failed", "stopped", "not started"]

SECONDS_BETWEEN_LOOKS = 0.25
"""At progress files, and at runs that another process works on."""
MOST_LOSSES = 5
"""Times in a row that a run may be lost without a step gained, before it counts as failed."""


@dataclass(frozen=True, kw_only=True)
class MemberResult:
    """How a member stands at the end. `reused`: it was so before; `results`: the content of results.json if it is done.

    `seconds` is the run's own time over all its sessions.
    """

    member: Member
    state: MemberState
    results: dict[str, Any] | None = None
    message: str = ""
    log_tail: tuple[str, ...] = ()
    reused: bool = False
    seconds: float = 0.0


class _Entry:
    """A member while the sweep runs."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.view = View(member=member)
        self.result: MemberResult | None = None
        self.started = False
        self.retry = False
        """Whether a failure that was found may be tried again: once, and not one of this sweep."""
        self.losses = 0
        self.step = -1
        self.waits_until = 0.0


@dataclass
class _Running:
    handle: Handle
    entries: list[_Entry]


class Scheduler:
    """One sweep being carried out; see `run.run` for the arguments."""

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
    ) -> None:
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
        self._pending = deque([entries[member.hash] for member in group] for group in groups)
        self._running: list[_Running] = []
        self._ending = False
        """Whether the runs were asked to stop, and none is started any more."""
        self._shown = 0.0
        self.asked_to_stop = False
        self.environment: PaperbenchError | None = None
        """What no other run would get past, such as a full disk."""

    def run(self) -> tuple[MemberResult, ...]:
        """Returns when nothing is left to do, or everything that ran has ended after a stop was asked for."""
        self._events.write("sweep began", jobs=self._jobs, runs=len(self._entries))
        self._watcher.begin(self._sweep, [entry.view for entry in self._entries], self._jobs)
        try:
            self._sort_out()
            while self._running or (self._pending and not self._ending):
                if self._stop and not self.asked_to_stop:
                    self.asked_to_stop = True
                    self._end(f"stopping on {self._stop.reason}: every run saves and ends; Ctrl-C once more kills them")
                self._collect()
                self._fill()
                self._prepare_next()
                self._look()
                if self._running or self._pending:
                    self._launcher.wait(SECONDS_BETWEEN_LOOKS)
        except BaseException:
            self._abandon()
            raise
        for entry in self._entries:
            if entry.result is None:
                self._conclude(entry, "stopped" if entry.started else "not started")
        return tuple(entry.result for entry in self._entries if entry.result is not None)

    def kill(self) -> None:
        """Ends every run at once. Called from a signal handler."""
        for running in self._running:
            with suppress(Exception):
                running.handle.kill()

    # --- before a run -------------------------------------------------------------------------------------------------

    def _sort_out(self) -> None:
        """What is done or failed already needs no job."""
        for entry in self._entries:
            entry.retry = True
            self._settled(entry, read_status(entry.member.directory))
        self._pending = deque(left for group in self._pending if (left := [e for e in group if e.result is None]))

    def _settled(self, entry: _Entry, now: RunStatus) -> bool:
        """Whether the member needs no job, as it stands."""
        if now.state == "done":
            confirm_done_if_free(entry.member.directory)
            self._conclude(entry, "done", now)
            return True
        # A failure for want of a disk or of data is tried again by the same command: somebody has seen to that.
        again = entry.retry and (self._retry_failed or now.by_environment)
        if now.state == "failed" and not again:
            self._conclude(entry, "failed", now)
            return True
        return False

    def _fill(self) -> None:
        """Starts jobs while there is room. A group with a run that another process works on goes to the back."""
        now = time.monotonic()
        for _ in range(len(self._pending)):
            if self._ending or len(self._running) >= self._jobs:
                return
            group = self._pending.popleft()
            if any(entry.waits_until > now for entry in group):
                self._pending.append(group)
                continue
            found = [(entry, read_status(entry.member.directory)) for entry in group]
            open_ = [(entry, stand) for entry, stand in found if not self._settled(entry, stand)]
            elsewhere = [entry for entry, stand in open_ if stand.state == "running"]
            left = [entry for entry, _ in open_]
            if elsewhere and self._rejoined(left):
                continue
            for entry in elsewhere:
                entry.waits_until = now + SECONDS_BETWEEN_LOOKS
                self._show(entry, "elsewhere")
            if elsewhere:
                self._pending.append(left)
            elif left:
                self._submit(left)

    def _rejoined(self, group: list[_Entry]) -> bool:
        """Whether the runs are at work in a job of an earlier sweep that the launcher still has: it is watched from now on."""
        handle = self._launcher.rejoin(self._job(group)) if isinstance(self._launcher, Rejoins) else None
        if handle is not None:
            self._watch(handle, group, "found at work")
        return handle is not None

    def _submit(self, group: list[_Entry]) -> None:
        ready = [entry for entry in group if self._prepared(entry)]
        if not ready or self._ending:
            return
        self._watch(self._launcher.submit(self._job(ready)), ready, "started")

    def _job(self, group: list[_Entry]) -> Job:
        name = f"{group[0].member.request.experiment}-{group[0].member.hash}"
        directories = tuple(entry.member.directory.absolute() for entry in group)
        return Job(directories=directories, threads=self._threads, name=name)

    def _watch(self, handle: Handle, group: list[_Entry], event: str) -> None:
        self._running.append(_Running(handle, group))
        for entry in group:
            entry.started, entry.retry = True, False
            entry.view.began = time.monotonic()
            self._events.write(event, run=entry.member.hash, step=max(entry.step, 0), losses=entry.losses)
            self._show(entry, "running")

    def _prepared(self, entry: _Entry) -> bool:
        try:
            prepare(entry.member.directory, entry.member.composed.resolved)
        except PaperbenchError as error:
            self._fail(entry, RunStatus(state="failed", message=str(error)), error)
            return False
        return True

    def _prepare_next(self) -> None:
        """Makes the next run's directory while others compute, so that its job can start as soon as there is room."""
        if self._pending and not self._ending and len(self._running) >= self._jobs:
            for entry in self._pending[0]:
                if not (entry.member.directory / "config.yaml").is_file():
                    self._prepared(entry)
            self._pending[0][:] = [entry for entry in self._pending[0] if entry.result is None]
            if not self._pending[0]:
                self._pending.popleft()

    # --- after a run --------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for running in list(self._running):
            ending = running.handle.poll()
            if ending is None:
                continue
            self._running.remove(running)
            for entry in running.entries:
                self._after(entry, ending, alone=len(running.entries) == 1)

    def _after(self, entry: _Entry, ending: Ending, *, alone: bool) -> None:
        now = read_status(entry.member.directory)
        self._events.write(
            "ended",
            run=entry.member.hash,
            state=now.state,
            step=now.step,
            exit_code=ending.exit_code,
            signal=ending.signal,
            reason=ending.reason,
        )
        if entry.view.began is not None:
            entry.view.seconds, entry.view.began = time.monotonic() - entry.view.began, None
        if now.state == "done":
            self._conclude(entry, "done", now)
        elif now.state == "failed":
            self._fail(entry, now)
        elif self._ending:
            self._conclude(entry, "stopped" if now.state == "continues" else "not started", now)
        elif now.state == "running":
            self._again(entry, now, ending.reason or "another process works on it")
        elif ending.lost:
            self._again(entry, now, ending.reason or "its process was lost")
        elif not alone:
            self._again(entry, now, "trained alone, since its job ended early")
        elif now.state == "continues" and not now.killed:
            self._conclude(entry, "stopped", now)
        else:
            unwritten = ending.exit_code == EXIT_ENVIRONMENT  # or it would have said why in its directory
            error = EnvironmentError_(f"{entry.member.directory} cannot be written") if unwritten else None
            self._fail(entry, now, error, how=str(error) if error else _in_words(ending))

    def _again(self, entry: _Entry, now: RunStatus, why: str) -> None:
        """Submits a run anew, from where it stands, unless that has led nowhere too often."""
        entry.losses = entry.losses + 1 if now.step <= entry.step else 1
        entry.step = max(entry.step, now.step)
        if entry.losses > MOST_LOSSES:
            self._fail(entry, now, how=f"{why}, {entry.losses} times without a step gained")
            return
        entry.waits_until = time.monotonic() + SECONDS_BETWEEN_LOOKS * (entry.losses - 1)
        self._pending.append([entry])
        self._watcher.message(f"{entry.member.hash}: {why}; it continues")
        self._show(entry, "to do")

    def _fail(self, entry: _Entry, now: RunStatus, error: PaperbenchError | None = None, *, how: str = "") -> None:
        self._conclude(entry, "failed", now, how=how)
        unwritable = isinstance(error, EnvironmentError_) and not isinstance(error, RunLockedError)
        if unwritable or now.error == DiskFullError.__name__:
            self.environment = error or DiskFullError(now.message)
            self._end("no further run is started, and those that run save if they can: " + str(self.environment))
        elif self._fail_fast:
            self._end("a run has failed: the others save and end (--fail-fast)")

    def _conclude(self, entry: _Entry, state: MemberState, now: RunStatus | None = None, *, how: str = "") -> None:
        now = now or read_status(entry.member.directory)
        failed = state == "failed"
        results = now.results if state == "done" else None
        message = how or now.message
        seconds = float((results or {}).get("seconds") or now.seconds or entry.view.seconds)
        entry.result = MemberResult(
            member=entry.member,
            state=state,
            results=results,
            message="" if state == "done" else message,
            log_tail=log_tail(entry.member.directory) if failed else (),
            reused=not entry.started,
            seconds=seconds,
        )
        view = entry.view
        view.reused, view.message, view.seconds = entry.result.reused, entry.result.message, seconds
        view.metrics = (results or {}).get("metrics") or {}
        view.done, view.total = (now.step, now.steps) if now.steps else (view.done, view.total)
        self._show(entry, state)

    # --- all of them --------------------------------------------------------------------------------------------------

    def _end(self, why: str) -> None:
        """Asks everything that runs to save and end; nothing is started any more."""
        if self._ending:
            return
        self._ending = True
        for running in self._running:
            running.handle.stop()
        self._watcher.message(why)
        with suppress(EnvironmentError_):  # a full disk may be the reason
            self._events.write("stopping", reason=why)

    def _abandon(self) -> None:
        """The sweep cannot go on: what runs is asked to save, and given a moment for it."""
        deadline = time.monotonic() + 30
        for running in self._running:
            with suppress(Exception):
                running.handle.stop()
        with suppress(Exception):
            while time.monotonic() < deadline and any(running.handle.poll() is None for running in self._running):
                self._launcher.wait(SECONDS_BETWEEN_LOOKS)
        self.kill()

    def _look(self) -> None:
        """Takes over the progress of the runs, not more often than anybody could read it."""
        now = time.monotonic()
        if now - self._shown < SECONDS_BETWEEN_LOOKS:
            return
        self._shown = now
        for running in self._running:
            for entry in running.entries:
                found, view = progress.read(entry.member.directory), entry.view
                if found is not None:
                    view.phase, view.done, view.total, view.values = found.phase, found.done, found.total, found.values
                    view.best = found.values.get("best", view.best)
        self._watcher.looked()

    def _show(self, entry: _Entry, state: Any) -> None:
        if entry.view.state != state:
            entry.view.state = state
            self._watcher.changed(entry.view)


def _in_words(ending: Ending) -> str:
    """How a process ended that left no word in its directory."""
    if ending.signal == 9:
        return "killed by SIGKILL, as when memory runs out"
    if ending.reason:
        return ending.reason
    return "its process ended without a word" + (
        f" (exit code {ending.exit_code})" if ending.exit_code is not None else ""
    )
