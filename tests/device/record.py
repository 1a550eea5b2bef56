"""What happened on the pretended device: waits, copies, launches, each in its phase and with the line that asked for it."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STEP, FETCH, OUTSIDE = "step", "fetch", "outside"
"""Phases: inside a training step, in a thread that makes batches ahead, and everything else."""

WAIT = "wait"
"""The host waits for the device: a value read back, a blocking copy, an operator whose result has no fixed size."""
PAGEABLE = "pageable copy"
"""A copy to the device that is asked for without waiting, from memory that is not pinned: it overlaps nothing."""
RACE = "race"
"""A copy to the host that is read before it has arrived."""
UNORDERED = "unordered streams"
"""Two streams use one piece of memory, and neither has waited for the other (streams.py)."""
FLOAT64 = "float64"
NO_GRADIENT = "no gradient"
"""A parameter that asks for a gradient and gets none in a step: with several GPUs, ranks wait for it until they give up."""
SCALAR = "host scalar"
"""A tensor of the host without dimensions among operands of the device: legal, a kernel reads its value with the launch."""


class Record:
    """Events by (phase, kind, operator, lines), launched kernels, and both for each training step.

    roots: files and folders of the program, whose lines are named.
    """

    def __init__(self, roots: list[Path]) -> None:
        self.events: Counter[tuple[str, str, str, str]] = Counter()
        self.launches: Counter[str] = Counter()
        self.sites: Counter[tuple[str, str]] = Counter()
        self.step_launches: list[int] = []
        self.step_waits: list[int] = []
        self.with_sites = False
        self._roots = [str(root) for root in roots]
        self._local = threading.local()
        self._lock = threading.Lock()

    @property
    def phase(self) -> str:
        """The phase of this thread."""
        named: str | None = getattr(self._local, "phase", None)
        return named or (FETCH if threading.current_thread().name == "prefetch" else OUTSIDE)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count what this thread does as part of `phase`."""
        before = getattr(self._local, "phase", None)
        self._local.phase = phase
        try:
            yield
        finally:
            self._local.phase = before

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count a training step."""
        launches, waits = self.launches[STEP], self.count(STEP, WAIT)
        with self.during(STEP):
            yield
        self.step_launches.append(self.launches[STEP] - launches)
        self.step_waits.append(self.count(STEP, WAIT) - waits)

    def note(self, kind: str, operator: str) -> None:
        """Record an event of this thread."""
        with self._lock:
            self.events[self.phase, kind, operator, self.where()] += 1

    def launch(self, operator: str) -> None:
        """Record a kernel."""
        with self._lock:
            self.launches[self.phase] += 1
            if self.with_sites:
                self.sites[self.phase, f"{self.where(1)} {operator}"] += 1

    def count(self, phase: str, kind: str) -> int:
        """Return the number of events of `kind` in `phase`."""
        return sum(n for (at, what, _, _), n in self.events.items() if (at, what) == (phase, kind))

    def where(self, depth: int = 3) -> str:
        """Return the innermost lines of the program on this thread's stack, innermost first."""
        frame, lines = sys._getframe(1), []
        while frame is not None and len(lines) < depth:
            name = frame.f_code.co_filename
            root = next((root for root in self._roots if name.startswith(root)), None)
            if root is not None:
                lines.append(f"{name[len(root) :].lstrip('/') or Path(root).name}:{frame.f_lineno}")
            frame = frame.f_back
        return " < ".join(lines) or "?"

    def write(self, path: Path, *, code: int, error: str) -> None:
        """Write everything as JSON."""
        events = [[*key, count] for key, count in sorted(self.events.items())]
        found = {
            "code": code,
            "error": error,
            "events": events,
            "launches": dict(self.launches),
            "sites": [[*key, count] for key, count in self.sites.most_common()],
            "step_launches": self.step_launches,
            "step_waits": self.step_waits,
        }
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
