"""The display of a sweep: a live table on a terminal, plain lines anywhere else. Both implement `sweeps.watch.Watcher`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from paperbench.cli.output import duration
from paperbench.config.words import counted
from paperbench.records.metrics import metrics_of
from paperbench.sweeps.plan import Member, Sweep
from paperbench.sweeps.watch import MemberStatus, Watcher

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

REFRESH_PER_SECOND = 4
INTERVAL = 60.0
"""Seconds between two lines about the progress of runs whose state does not change."""
_ORDER = ("running", "requeued", "queued", "failed", "elsewhere", "stopped", "not started", "done", "to do")
"""The states by the priority of their rows, where there are more rows than the window holds."""
_STYLES = {
    "running": "cyan",
    "failed": "red",
    "stopped": "yellow",
    "done": "green",
    "elsewhere": "yellow",
    "requeued": "yellow",
}


def make_watcher(*, json_output: bool = False) -> Watcher:
    """Return a live watcher on a terminal, one of plain lines in a pipe or file, on stderr with `--json`."""
    if json_output:
        return PlainWatcher(sys.stderr)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return RichWatcher()
    return PlainWatcher(sys.stdout)


# --- words ------------------------------------------------------------------------------------------------------------


def title(member: Member) -> str:
    """Return the swept values of the run, `seed=1 data=voc`; its hash where nothing was swept."""
    return labelled(member.request.labels) or member.hash


def labelled(labels: Mapping[str, str]) -> str:
    """Return `seed=1 data=voc`."""
    return " ".join(f"{key}={value}" for key, value in labels.items())


def progress(status: MemberStatus) -> str:
    """Return `train 40/200` for a run in progress, `40/200` for a stopped one, else nothing."""
    if status.state == "running" and status.total:
        return f"{status.phase} {status.done}/{status.total}".strip()
    return f"{status.done}/{status.total}" if status.state in ("stopped", "failed") and status.total else ""


def result(status: MemberStatus) -> str:
    """Return the headline of the results, else the best value so far."""
    metric, value = metrics_of(status.member.composed.task.name).headline(status.metrics)
    if value is not None:
        return f"{metric} {value:.4g}"
    return f"best {status.best:.4g}" if status.best is not None else ""


def state(status: MemberStatus) -> str:
    """Return the state in words."""
    return f"{status.state} before" if status.reused and status.state in ("done", "failed") else status.state


def waiting(status: MemberStatus) -> str:
    """Return the job of a run that a cluster has, its node, and the scheduler's reason."""
    in_queue = status.state in ("queued", "requeued", "running")
    return status.place.describe() if in_queue and status.place is not None else ""


def counts(statuses: Sequence[MemberStatus]) -> str:
    """Return `3 done, 1 failed, 2 running, 6 to do`."""
    known = ("done", "failed", "stopped", "running", "requeued", "queued", "elsewhere", "not started", "to do")
    numbers = {name: sum(status.state == name for status in statuses) for name in known}
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number)


# --- plain lines ------------------------------------------------------------------------------------------------------


class PlainWatcher:
    """A line for each run that starts or ends, and one a minute for those that run. A closed pipe silences it."""

    def __init__(
        self, stream: TextIO, *, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._statuses: Sequence[MemberStatus] = ()
        self._spoke = 0.0
        self._silent = False

    def begin(self, sweep: Sweep, statuses: Sequence[MemberStatus], jobs: int) -> None:
        self._statuses = statuses
        at_once = f", {jobs} at a time" if 1 < jobs < len(statuses) else ""
        self._print(f"{sweep.kind} {sweep.name} ({sweep.id}): {counted(len(statuses), 'runs')}{at_once}")

    def changed(self, status: MemberStatus) -> None:
        if status.reused and status.state == "done":
            return  # counted at the end; a sweep that is given again would list them all
        if status.state == "to do":
            return
        ended = sum(other.state in ("done", "failed") for other in self._statuses)
        parts = [
            f"[{ended}/{len(self._statuses)}]",
            state(status),
            title(status.member),
            waiting(status),
            progress(status),
            result(status),
        ]
        if status.state in ("done", "failed", "stopped"):
            parts.append(duration(status.seconds))
        if status.state in ("failed", "stopped", "not started") and status.message:
            parts.append(status.message.splitlines()[0])
        self._print("  ".join(part for part in parts if part))

    def looked(self) -> None:
        if self._clock() - self._spoke < self._interval:
            return
        for status in self._statuses:
            if status.state == "running" and status.total:
                self._print(f"  {title(status.member)}  {progress(status)}  {result(status)}".rstrip())

    def message(self, text: str) -> None:
        self._print(text)

    def close(self) -> None:
        pass

    def _print(self, text: str) -> None:
        self._spoke = self._clock()
        if self._silent:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._silent = True


# --- live table -------------------------------------------------------------------------------------------------------


class RichWatcher:
    """A table that a thread redraws a few times a second, so that watching costs the sweep nothing."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(highlight=False)
        self._statuses: Sequence[MemberStatus] = ()
        self._name = ""
        self._live: Live | None = None

    def begin(self, sweep: Sweep, statuses: Sequence[MemberStatus], jobs: int) -> None:
        from rich.live import Live

        self._statuses = statuses
        self._name = f"{sweep.kind} {sweep.name} ({sweep.id})"
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=REFRESH_PER_SECOND,
            vertical_overflow="crop",
        )
        self._live.start()

    def changed(self, status: MemberStatus) -> None:
        pass

    def looked(self) -> None:
        pass

    def message(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style="yellow"))  # above the live part, where it stays

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()  # draws the last state, leaves it standing, and shows the cursor again
            self._live = None

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        rows, hidden = self._rows()
        grid = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), expand=False)
        for name in ("run", "state", "progress", "", "result", "time"):
            grid.add_column(name, no_wrap=True, justify="right" if name == "time" else "left")
        for status in rows:
            bar: RenderableType = ""
            if status.state == "running" and status.total:
                bar = ProgressBar(total=status.total, completed=status.done, width=20)
            elapsed = status.elapsed()
            grid.add_row(
                Text(title(status.member)),
                Text(state(status), style=_STYLES.get(status.state, "dim")),
                Text(progress(status) or waiting(status)),
                bar,
                Text(result(status)),
                duration(elapsed) if elapsed else "",
            )
        parts: list[RenderableType] = [Text(f"{self._name}: {counts(self._statuses)}", style="bold"), grid]
        if hidden:
            parts.append(Text(f"and {hidden} more", style="dim"))
        return Group(*parts)

    def _rows(self) -> tuple[list[MemberStatus], int]:
        """Return the rows that fit into the window, by the priority of their states and in the sweep's order; and the number
        of the others."""
        room = max(3, self._console.size.height - 5)
        statuses = list(self._statuses)
        chosen = sorted(range(len(statuses)), key=lambda i: (_ORDER.index(statuses[i].state), i))[:room]
        return [statuses[i] for i in sorted(chosen)], len(statuses) - len(chosen)
