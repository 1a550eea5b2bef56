"""What a run tells whoever watches it. The command line implements it for people, for plain pipes and for `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Reporter(Protocol):
    """Receives what happens; called from the main process (rank 0) only, never from inside a timed region."""

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        """Once, before work begins: what runs where on which data."""
        ...

    def message(self, text: str) -> None:
        """A line worth keeping: a repair, a fallback, a saved checkpoint that was damaged."""
        ...

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """`done` of `total` units of a phase such as `train` or `evaluate`; `values` holds losses, rates, best so far."""
        ...

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        """The content of `results.json`, once."""
        ...

    def close(self) -> None:
        """Leaves the terminal as it was; called also when a run fails."""
        ...


class SilentReporter:
    """Says nothing: for the ranks above 0 and for tests."""

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
