"""The progress of a run, passed from its process to whoever watches the sweep, wherever that is: through a small file in its
directory, gone when the run has ended. A watcher may miss any of it; what counts is in the run's own files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperbench.engine.files import finite, replace_file
from paperbench.engine.reporter import SilentReporter

FILE = ".progress.json"
INTERVAL = 0.5
"""Seconds between two writes."""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of `phase`, and the values that the run shows beside it."""

    phase: str = ""
    done: int = 0
    total: int = 0
    values: Mapping[str, float] = field(default_factory=dict)


class ProgressFile(SilentReporter):
    """A run's reporter that keeps `.progress.json` in `directory` up to date. Never fails the run: not even on a full disk."""

    def __init__(
        self, directory: Path | str, *, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = Path(directory) / FILE
        self._interval = interval
        self._clock = clock
        self._written = float("-inf")
        self._phase = ""

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        self._remove()  # of a session that was killed

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        now = self._clock()
        if phase == self._phase and now - self._written < self._interval:
            return
        self._phase, self._written = phase, now
        content = {"phase": phase, "done": done, "total": total, "values": dict(values)}
        temporary = self._file.with_name(f"{FILE}.{os.getpid()}.tmp")
        with suppress(OSError, ValueError, TypeError):
            # Not synced to the disk: after a power cut it would say nothing true anyway.
            temporary.write_text(json.dumps(finite(content)), encoding="utf-8")
            replace_file(temporary, self._file)

    def close(self) -> None:
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def read(directory: Path) -> Progress | None:
    """Read the last progress of the run in `directory`; None where there is none that can be read."""
    try:
        content: Any = json.loads((directory / FILE).read_text(encoding="utf-8"))
        values = {str(name): float(value) for name, value in content["values"].items() if value is not None}
        return Progress(str(content["phase"]), int(content["done"]), int(content["total"]), values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
