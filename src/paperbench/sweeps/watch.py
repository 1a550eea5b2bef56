"""The members of a sweep while it runs and at its end, and who watches them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from paperbench.records.place import Place
from paperbench.sweeps.plan import Member, Sweep

MemberState = Literal["to do", "elsewhere", "queued", "running", "requeued", "done", "failed", "stopped", "not started"]


@dataclass(kw_only=True)
class MemberStatus:
    """One member of a sweep. The scheduler changes it, a display reads it at any moment, from any thread; when the sweep ends
    it is the member's result.

    `elsewhere`: another process works on the run, or another sweep has a job for it. `queued`, `requeued`: its job waits for
    the scheduler of the cluster, which `place` names. `reused`: it was done or had failed before the sweep. `began` is the
    monotonic time at which the present session began, or None; `best` is the best value so far of the metric that the run
    watches, `values` are shown beside its progress. `results` is the content of results.json of a run that is done.
    """

    member: Member
    state: MemberState = "to do"
    reused: bool = False
    phase: str = ""
    done: int = 0
    total: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    best: float | None = None
    results: Mapping[str, Any] | None = None
    message: str = ""
    log_tail: tuple[str, ...] = ()
    began: float | None = None
    place: Place | None = None
    """The job that has not ended, where the launcher has a queue of its own."""
    seconds: float = 0.0
    """Wall time of the run over all its sessions, once the present one has ended."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics of a run that is done."""
        return (self.results or {}).get("metrics") or {}

    def stop_clock(self) -> None:
        """End the present session."""
        if self.began is not None:
            self.seconds, self.began = time.monotonic() - self.began, None

    def elapsed(self, clock: Callable[[], float] = time.monotonic) -> float:
        """Return the seconds of the present session until now, or of a finished one."""
        return clock() - self.began if self.began is not None else self.seconds


class Watcher(Protocol):
    """Called from the thread that runs the sweep."""

    def begin(self, sweep: Sweep, statuses: Sequence[MemberStatus], jobs: int) -> None:
        """Once, before the first run starts; the statuses stay the same objects."""
        ...

    def changed(self, status: MemberStatus) -> None:
        """A member is in another state."""
        ...

    def looked(self) -> None:
        """The progress of the runs was read anew; a few times a second."""
        ...

    def message(self, text: str) -> None:
        """A line worth keeping."""
        ...

    def close(self) -> None:
        """Leaves the terminal as it was; called more than once, also when the sweep fails."""
        ...


class SilentWatcher:
    """Says nothing."""

    def begin(self, sweep: Sweep, statuses: Sequence[MemberStatus], jobs: int) -> None:
        pass

    def changed(self, status: MemberStatus) -> None:
        pass

    def looked(self) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass
