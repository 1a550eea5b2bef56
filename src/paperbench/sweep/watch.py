"""What a sweep tells whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from paperbench.sweep.plan import Member, Sweep

ViewState = Literal["to do", "elsewhere", "running", "done", "failed", "stopped", "not started"]


@dataclass
class View:
    """One member as it looks now. The scheduler changes it, a display reads it at any moment, from any thread.

    `elsewhere`: another process works on the run. `began` is the monotonic time at which the present session began, or None;
    `best` is the best value so far of the metric that the run watches, `values` what it shows beside its progress.
    """

    member: Member
    state: ViewState = "to do"
    reused: bool = False
    phase: str = ""
    done: int = 0
    total: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    best: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    began: float | None = None
    seconds: float = 0.0
    """The run's own time over all its sessions, once the present one has ended."""

    def elapsed(self, clock: Callable[[], float] = time.monotonic) -> float:
        """Seconds of the present session until now, or of a finished one."""
        return clock() - self.began if self.began is not None else self.seconds


class Watcher(Protocol):
    """Called from the thread that runs the sweep."""

    def begin(self, sweep: Sweep, views: Sequence[View], jobs: int) -> None:
        """Once, before the first run starts; the views stay the same objects."""
        ...

    def changed(self, view: View) -> None:
        """A view is in another state."""
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

    def begin(self, sweep: Sweep, views: Sequence[View], jobs: int) -> None:
        pass

    def changed(self, view: View) -> None:
        pass

    def looked(self) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass
