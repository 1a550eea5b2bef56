"""Runs of the package, without the command line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from paperbench.config.compose import compose
from paperbench.config.validate import config_hash
from paperbench.engine import metriclog
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import JsonLines, MetricLog
from paperbench.engine.metrics import METRICS as ENGINE_METRICS
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.records.metrics import MetricRegistry
from paperbench.vae.config import VaeTrain
from paperbench.vae.metrics import METRICS

DECLARED = MetricRegistry((*METRICS, *ENGINE_METRICS))
"""Every metric that a run of the package may write."""

QUICK = (
    "scale=smoke", "device=cpu", "precision=float32", "threads=1", "train.log_every=1", "evaluation.importance_samples=0",
    "evaluation.pictures=false",
)  # fmt: skip


@cache
def configured(*overrides: str, experiment: str = "vae") -> tuple[VaeTrain, dict[str, Any]]:
    """Return a small configuration in float32 and its resolved form; callers must not change them."""
    composed = compose(experiment, [*QUICK, *overrides])
    return composed.config, composed.resolved


def make_run(
    folder: Path, config: VaeTrain, resolved: dict[str, Any], *, stop: StopFlag | None = None, again: bool = False
) -> Run:
    """Create a run in `folder`, or with `again` reopen the one there."""
    directory = RunDirectory.open(folder) if again else RunDirectory.create(folder, "vae", resolved, folder)
    reporter = SilentReporter()
    run = Run(
        directory=directory,
        device=torch.device("cpu"),
        precision="float32",
        ranks=Ranks(),
        reporter=reporter,
        stop=StopFlag() if stop is None else stop,
        log=MetricLog([JsonLines(directory.metrics_file)]),
        checkpoints=CheckpointStore(directory.checkpoints, reporter),
        seed=config.seed,
        config_hash=config_hash(resolved),
    )
    OPEN.append(run)
    return run


OPEN: list[Run] = []
"""Open runs; a fixture closes them."""


class StopAfter(StopFlag):
    """A flag that is set after it was read so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def __bool__(self) -> bool:
        self._looks -= 1
        if self._looks < 0:
            self.set("SIGTERM")
        return super().__bool__()


def losses(run: Run) -> list[dict[str, float]]:
    """Return the logged losses and gradient norms of every step."""
    names = ("train/loss", "train/grad_norm")
    records = [record for record in metriclog.read(run.directory.metrics_file) if all(name in record for name in names)]
    return [
        {name: value for name, value in record.items() if name.startswith(("train/loss", "train/grad"))}
        for record in records
    ]


def state(run: Run) -> dict[str, Any]:
    """Return the last checkpoint."""
    loaded = CheckpointStore(run.directory.checkpoints, sweep=False).load()
    assert loaded is not None
    return loaded[0]
