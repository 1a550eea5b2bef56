"""Reports of a run: its progress, to a `Reporter`, and its end, in an `Outcome`. Imports no torch.

The command line implements `Reporter` for people, for plain pipes and for `--json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paperbench.engine.rundir import RunDirectory


class Reporter(Protocol):
    """Receives what happens; called from the main process (rank 0) only, never from inside a timed region."""

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        """Report what runs where on which data; called once, before work begins."""
        ...

    def message(self, text: str) -> None:
        """Report an event: a repair, a fallback, a checkpoint that was damaged."""
        ...

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Report `done` of `total` units of a phase such as `train` or `evaluate`; `values` holds losses, rates, best so far."""
        ...

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        """Report the content of `results.json`; called once."""
        ...

    def close(self) -> None:
        """Restore the terminal; called also when a run fails."""
        ...


class SilentReporter:
    """Reports nothing: for the ranks above 0 and for tests."""

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        pass

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        pass

    def close(self) -> None:
        pass


class LoggingReporter:
    """Passes everything on to another reporter and writes everything but progress to log.txt."""

    def __init__(self, reporter: Reporter, directory: RunDirectory) -> None:
        self._reporter = reporter
        self._directory = directory

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        self._directory.write_log("\n".join([title, *(f"  {name}: {value}" for name, value in facts.items())]))
        self._reporter.start(title, facts)

    def message(self, text: str) -> None:
        self._directory.write_log(text)
        self._reporter.message(text)

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        self._reporter.progress(phase, done, total, values)

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        metrics = results.get("metrics", {})
        self._directory.write_log("\n".join(["done", *(f"  {name}: {value}" for name, value in metrics.items())]))
        self._reporter.finish(results, directory)

    def close(self) -> None:
        self._reporter.close()


@dataclass(frozen=True)
class Outcome:
    """The end of a run. `status` is `done` or `stopped`; a run that failed raises instead. `exit_code` is the program's own."""

    directory: Path
    results: dict[str, Any] | None
    """The content of results.json; None for a run that was stopped."""
    status: str
    exit_code: int
    message: str = ""
