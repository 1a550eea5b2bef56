"""The clocks of a training: its speed, and the time for the next save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
        """Time the steps from now on."""
        self._synchronize()
        self._since = time.perf_counter()

    def count(self, samples: int) -> None:
        """Count a step over `samples`."""
        self._pending += samples

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Add up the samples counted since the start; start again when the body is done."""
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

    def metrics(self) -> dict[str, float]:
        """Return the rate as a metric; nothing before the first timed step, as of a training of one step: 0 is no speed."""
        return {"train/samples_per_second": self.rate()} if self._seconds > 0 else {}

    def state(self) -> dict[str, float]:
        """Return what a checkpoint holds."""
        return {"samples": self._samples, "seconds": self._seconds}

    def load(self, state: dict[str, float]) -> None:
        """Continue from the measurements of an earlier session."""
        self._samples, self._seconds = int(state["samples"]), float(state["seconds"])

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


_SAVING_SHARE = 0.01
"""Largest part of the time that saves by the clock take."""


class SaveTimer:
    """The time for the next save: `seconds` after the last one, later where saves are so slow that they would take over 1 % of the
    time. With `seconds` = 0 it never comes.

    `now` is the clock, in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._now = now
        self._pause = seconds
        self._since = now()

    def start(self) -> None:
        """Count from now on."""
        self._since = self._now()

    def is_due(self) -> bool:
        """Return True if the time has come."""
        return self.seconds > 0 and self._now() - self._since >= self._pause

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Time the save that the body makes; count from its end on."""
        began = self._now()
        yield
        self._since = self._now()
        self._pause = max(self.seconds, (self._since - began) / _SAVING_SHARE)
