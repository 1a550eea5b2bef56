"""The run as its task sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from paperbench.config.commands import command
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.device import autocast
from paperbench.engine.metriclog import MetricLog
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import Reporter
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
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

    def stop_error(self, where: str) -> Stopped:
        """Return the error that ends a run which was asked to stop."""
        reason = f" on {self.stop.reason}" if self.stop.reason else ""
        return Stopped(f"stopped{reason} {where}; `{command('resume', self.directory.path)}` continues")
