"""The display of a run: live on a terminal, plain lines anywhere else.

Both show the same facts and implement `engine.reporter.Reporter`. With `--json` the lines go to stderr, so that stdout
holds nothing but the results. Rich is imported only for a terminal, torch never.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from paperbench.cli.output import duration, folded_pair, rich_table
from paperbench.report.tables import Column, Table, aligned, blank_cell

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from paperbench.cli.summary import Line, Summary
    from paperbench.engine.reporter import Reporter

INTERVAL = 10.0
"""Seconds between two plain lines of one phase."""

REFRESH_PER_SECOND = 4


def make_reporter(*, json_output: bool = False) -> Reporter:
    """Return the reporter for this process's stdout: live on a terminal, plain lines in a pipe or file, on stderr with
    `--json`."""
    if json_output:
        return PlainReporter(sys.stderr)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return RichReporter()
    return PlainReporter(sys.stdout)


# --- progress, as both reporters understand it ------------------------------------------------------------------------


@dataclass
class Phase:
    """Progress of one phase since it began in this process; a resumed run begins in the middle."""

    began: float
    first: int
    done: int
    total: int
    values: Mapping[str, float]
    printed: float = -math.inf

    def left(self, now: float) -> float:
        """Return the seconds until the end at the mean pace so far; NaN before there is a pace."""
        gained = self.done - self.first
        return (now - self.began) / gained * (self.total - self.done) if gained > 0 else math.nan

    @property
    def complete(self) -> bool:
        return self.done >= self.total


class Phases:
    """The progress of every phase, by its name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.by_name: dict[str, Phase] = {}
        self.latest: Phase | None = None

    def update(self, name: str, done: int, total: int, values: Mapping[str, float]) -> Phase:
        phase = self.by_name.get(name)
        if phase is None or done < phase.done or total != phase.total:  # new, or begun again (the next evaluation)
            phase = self.by_name[name] = Phase(began=self.clock(), first=done, done=done, total=total, values={})
        phase.done, phase.values = done, dict(values)
        self.latest = phase
        return phase


def describe(values: Mapping[str, float]) -> list[str]:
    """Return `["loss 1.5", "lr 0.001", "12.3 samples/s"]` for `{"loss": 1.5, "lr": .001, "samples_per_second": 12.3}`."""
    return [_describe(name, value) for name, value in values.items()]


def _describe(name: str, value: float) -> str:
    if name.endswith("/s"):
        return f"{value:.1f} {name}"
    if name.endswith("_per_second"):
        return f"{value:.1f} {name.rpartition('/')[2].removesuffix('_per_second')}/s"
    if name.startswith("best"):
        return f"{name.replace('_', ' ')} {value:.2f}"
    return f"{name} {value:.4g}"


# --- plain lines ------------------------------------------------------------------------------------------------------


class PlainReporter:
    """Lines without colour or cursor movement, one per phase every `interval` seconds besides its first and last.

    A closed pipe (`| head`) or a full disk silences it; the run goes on.
    """

    def __init__(
        self, stream: TextIO, *, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._phases = Phases(clock)
        self._silent = False

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        self._print(title)
        self._pairs(list(facts.items()))

    def message(self, text: str) -> None:
        self._print(text)

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        state = self._phases.update(phase, done, total, values)
        now = self._phases.clock()
        if not state.complete and now - state.printed < self._interval:
            return
        state.printed = now
        left = "" if state.complete or math.isnan(state.left(now)) else f"{duration(state.left(now))} left"
        percent = f"{100 * done // max(total, 1)}%"
        parts = [f"{phase} {done}/{total}", percent, left, *describe(values)]
        self._print("  ".join(part for part in parts if part))

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        from paperbench.cli.summary import summarise

        summary = summarise(results, directory)
        self._print(summary.title)
        for text in aligned([_cells(line) for line in summary.lines]):
            self._print(f"  {text}")
        for remark in summary.remarks:
            self._print(remark)
        width = max((len(key) for key, _ in (*summary.facts, *summary.commands)), default=0)
        self._pairs(list(summary.facts), width)
        for key, text in summary.commands:  # to be copied: never folded
            self._print(f"  {key.ljust(width)}  {text}")

    def close(self) -> None:
        if not self._silent:
            self._guarded(self._stream.flush)

    def _pairs(self, pairs: list[tuple[str, str]], width: int = 0) -> None:
        width = max(width, *(len(key) for key, _ in pairs)) if pairs else width
        for key, text in pairs:
            for part in folded_pair(key, text, 4 + width):
                self._print(part)

    def _print(self, text: str) -> None:
        if self._silent:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        readable = text.encode(encoding, "replace").decode(encoding)  # an ASCII terminal shows ? instead of failing
        self._guarded(lambda: self._stream.write(readable + "\n"))
        self._guarded(self._stream.flush)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._silent = True


def _cells(line: Line) -> tuple[str, str, str, str]:
    paper = f"paper {line.paper} ({line.where})" if line.paper else ""
    return line.metric, line.result, paper, line.verdict


def _table(summary: Summary) -> Table:
    """Return the results as a table; the paper's columns only where something is printed."""
    rows = []
    for line in summary.lines:
        result = blank_cell(line.result, tone=line.tone)
        rows.append((blank_cell(line.metric), result, *map(blank_cell, (line.paper, line.where, line.verdict))))
    columns = (
        Column(name="metric"),
        Column(name="result", numeric=True),
        Column(name="paper", numeric=True),
        Column(name="where"),
        Column(name="verdict"),
    )
    return Table(title=summary.title, columns=columns, rows=tuple(rows)).without_empty_columns()


# --- live display -----------------------------------------------------------------------------------------------------


class RichReporter:
    """A panel at the start, live progress with the messages above it, and a table at the end.

    `progress` only stores its values; a thread redraws a few times a second, so that reporting costs a step nothing.
    Rich itself handles `NO_COLOR` and narrow windows.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        self._console = console or Console(highlight=False)
        self._phases = Phases(clock)
        self._live: Live | None = None

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        from rich.panel import Panel
        from rich.text import Text

        self._console.print(
            Panel(_pairs(list(facts.items())), title=Text(title), title_align="left", border_style="cyan")
        )

    def message(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style="yellow"))  # above the live part, where it stays

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        self._phases.update(phase, done, total, values)
        if self._live is None:
            from rich.live import Live

            live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=REFRESH_PER_SECOND,
                vertical_overflow="crop",
            )
            live.start()
            self._live = live

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        from rich.text import Text

        from paperbench.cli.summary import summarise

        self.close()
        summary = summarise(results, directory)
        if summary.lines:
            self._console.print(rich_table(_table(summary)))
        for remark in summary.remarks:
            self._console.print(Text(remark, style="dim"))
        self._console.print(_pairs(list(summary.facts)))
        for what, command in summary.commands:
            line = Text.assemble((f"{what}: ", "cyan"), command)
            self._console.print(line, soft_wrap=True)  # left to the terminal to wrap, so that it can be copied whole

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()  # draws the last state, leaves it standing, and shows the cursor again
            self._live = None

    def _render(self) -> RenderableType:
        from rich.columns import Columns
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(no_wrap=True)
        rows.add_column(ratio=1)
        rows.add_column(no_wrap=True, justify="right")
        rows.add_column(no_wrap=True, justify="right")
        for name, phase in list(self._phases.by_name.items()):  # a copy: the run may add one while this is drawn
            bar = ProgressBar(total=max(phase.total, 1), completed=phase.done)
            rows.add_row(Text(name, style="bold"), bar, f"{phase.done}/{phase.total}", self._time(phase))
        latest = self._phases.latest
        values = [Text(text) for text in describe(latest.values)] if latest else []
        return Group(rows, Columns(values, padding=(0, 2)))

    def _time(self, phase: Phase) -> str:
        return "done" if phase.complete else f"{duration(phase.left(self._phases.clock()))} left"


def _pairs(pairs: list[tuple[str, str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="cyan")
    grid.add_column(overflow="fold")
    for key, text in pairs:
        grid.add_row(Text(key), Text(text))
    return grid
