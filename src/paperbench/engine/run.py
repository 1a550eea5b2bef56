"""The run as its task sees it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.device import autocast
from paperbench.engine.metriclog import MetricLog
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import Reporter
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.engine.torchrun import how_to_continue
from paperbench.errors import Stopped


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process's view of a run in progress.

    `precision` is resolved: `float32`, `bfloat16`, or what the task always computes in. On ranks above 0 the reporter and the
    log are silent.
    """

    directory: RunDirectory
    device: torch.device
    precision: str
    ranks: Ranks
    reporter: Reporter
    stop: StopFlag
    log: MetricLog
    checkpoints: CheckpointStore
    seed: int
    config_hash: str

    def autocast(self) -> torch.autocast:
        """Context for forward passes in the run's precision."""
        return autocast(self.device, self.precision)

    def raise_if_stopped(self) -> None:
        """Raise `Stopped` on every rank when any was asked to stop. All ranks must call it at the same place.

        For work outside the trainer, such as a long evaluation: nothing is saved here, the last checkpoint counts.
        """
        if self.ranks.any(bool(self.stop)):
            raise self.stop_error("between two steps")

    def draw(self, figure: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Draw by `figure(*arguments, **named)`. A figure that cannot be drawn is left out, and said: it never costs a number.

        One rank alone may call it: `figure` must not exchange anything with the others.
        """
        try:
            figure(*arguments, **named)
        except Exception as error:
            name = figure.__name__.strip("_").replace("_", " ")
            reason = " ".join(str(error).split()) or type(error).__name__
            self.reporter.message(f"left out a figure ({name}), it cannot be drawn: {reason}; the numbers are complete")
            self.directory.write_log(traceback.format_exc())

    def stop_error(self, where: str) -> Stopped:
        """Return the error that ends a run which was asked to stop."""
        reason = f" on {self.stop.reason}" if self.stop.reason else ""
        return Stopped(f"stopped{reason} {where}; {how_to_continue(self.directory.path)} continues")
