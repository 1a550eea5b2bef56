"""Plain lines: what a run tells a pipe, a file, or stderr under `--json`. Imports neither rich nor torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from paperbench.cli.output import duration

if TYPE_CHECKING:
    from paperbench.cli.summary import Line

INTERVAL = 10.0
"""Seconds between two lines of one phase."""

# --- progress, as both reporters understand it ------------------------------------------------------------------------


@dataclass
class Phase:
    """Progress of one phase since it began in this process; a resumed run begins somewhere in the middle."""

    began: float
    first: int
    done: int
    total: int
    values: Mapping[str, float]
    printed: float = -math.inf

    def left(self, now: float) -> float:
        """Seconds until the end at the mean pace so far; NaN before there is a pace."""
        gained = self.done - self.first
        return (now - self.began) / gained * (self.total - self.done) if gained > 0 else math.nan

    @property
    def complete(self) -> bool:
        return self.done >= self.total


class Phases:
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
    """`{"loss": 1.5, "lr": .001, "samples_per_second": 12.3}` -> `["loss 1.5", "lr 0.001", "12.3 samples/s"]`."""
    return [_describe(name, value) for name, value in values.items()]


def _describe(name: str, value: float) -> str:
    if name.endswith("/s"):
        return f"{value:.1f} {name}"
    if name.endswith("_per_second"):
        return f"{value:.1f} {name.rpartition('/')[2].removesuffix('_per_second')}/s"
    if name.startswith("best"):
        return f"{name.replace('_', ' ')} {value:.2f}"
    return f"{name} {value:.4g}"


# --- the reporter -----------------------------------------------------------------------------------------------------


class PlainReporter:
    """Lines without colour or cursor movement, one per phase every `interval` seconds besides its first and last.

    A reader that goes away (`| head`) or a full disk behind a redirection silences it; a run is worth more than its
    report.
    """

    def __init__(
        self, stream: TextIO, *, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._phases = Phases(clock)
        self._silenced = False

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
        widths = [
            max((len(text) for text in column), default=0) for column in zip(*map(_cells, summary.lines), strict=True)
        ]
        for line in summary.lines:
            padded = [cell.ljust(width) for cell, width in zip(_cells(line), widths, strict=True)]
            self._print(("  " + "  ".join(padded)).rstrip())
        for remark in summary.remarks:
            self._print(remark)
        self._pairs([*summary.facts, *summary.commands])

    def close(self) -> None:
        if not self._silenced:
            self._guarded(self._stream.flush)

    def _pairs(self, pairs: list[tuple[str, str]]) -> None:
        width = max((len(key) for key, _ in pairs), default=0)
        for key, text in pairs:
            self._print(f"  {key.ljust(width)}  {text}")

    def _print(self, text: str) -> None:
        if self._silenced:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        readable = text.encode(encoding, "replace").decode(encoding)  # an ASCII terminal shows ? instead of failing
        self._guarded(lambda: self._stream.write(readable + "\n"))
        self._guarded(self._stream.flush)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._silenced = True


def _cells(line: Line) -> tuple[str, str, str, str]:
    verdict = {True: "agrees", False: "differs", None: ""}[line.agrees]
    paper = f"paper {line.paper} ({line.where})" if line.paper else ""
    return line.metric, line.result, paper, verdict
