"""What a person sees of a run: a live display on a terminal, plain lines anywhere else.

Both tell the same facts and implement `engine.reporter.Reporter`. With `--json` the lines go to stderr, so that stdout
holds nothing but the results. rich is imported when a terminal is really there, torch never.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from paperbench.cli.output import duration
from paperbench.cli.plain import Phase, Phases, PlainReporter, describe
from paperbench.engine.reporter import Reporter

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

REFRESH_PER_SECOND = 4


def make_reporter(*, json_output: bool = False) -> Reporter:
    """The reporter for this process's stdout: live on a terminal, plain lines in a pipe or file, on stderr with
    `--json`."""
    if json_output:
        return PlainReporter(sys.stderr)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return RichReporter()
    return PlainReporter(sys.stdout)


class RichReporter:
    """A panel at the start, live progress, kept messages above it, and a table at the end.

    `progress` only remembers what it is told; a thread redraws a few times a second, so that reporting costs a step
    nothing. `NO_COLOR` and narrow windows are rich's own business and work as everywhere.
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
        from rich.table import Table
        from rich.text import Text

        from paperbench.cli.summary import summarise

        self.close()
        summary = summarise(results, directory)
        compared = any(line.paper for line in summary.lines)
        table = Table(title=Text(summary.title, style="bold"), title_justify="left", border_style="cyan")
        table.add_column("metric")
        table.add_column("result", justify="right")
        if compared:
            table.add_column("paper", justify="right")
            table.add_column("where")
        for line in summary.lines:
            style = {True: "green", False: "red", None: ""}[line.agrees]
            verdict = {True: ", agrees", False: ", differs", None: ""}[line.agrees]
            cells = [Text(line.metric), Text(line.result, style=style or "bold")]
            table.add_row(*cells, *([line.paper, line.where + verdict] if compared else []))
        if summary.lines:
            self._console.print(table)
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
