"""How fast a run trains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Samples and seconds of training alone: not the first step, not what happens between steps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._samples = 0
        self._seconds = 0.0
        self._pending = 0
        self._since = time.perf_counter()

    def start(self) -> None:
        """From now on steps are timed."""
        self._synchronize()
        self._since = time.perf_counter()

    def count(self, samples: int) -> None:
        """A step over `samples` was issued."""
        self._pending += samples

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Add up what was counted since the start, and start anew when the body is done."""
        self._synchronize()
        if self._pending:
            self._seconds += time.perf_counter() - self._since
            self._samples += self._pending
            self._pending = 0
        yield
        self._since = time.perf_counter()

    def rate(self) -> float:
        """Samples a second; 0 before the first timed step."""
        return self._samples / self._seconds if self._seconds > 0 else 0.0

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"samples": self._samples, "seconds": self._seconds}

    def load(self, state: dict[str, float]) -> None:
        """Go on from what an earlier session measured."""
        self._samples, self._seconds = int(state["samples"]), float(state["seconds"])

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
