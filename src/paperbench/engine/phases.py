"""Several trainings one after the other in one run, each with checkpoints of its own: a finished one is taken up at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import MetricLog, MetricSink
from paperbench.engine.run import Run


def phase(run: Run, name: str, *, steps_before: int = 0) -> Run:
    """`run` for the training called `name`: checkpoints in a folder of that name, the record's steps counted on.

    `steps_before`: steps of the phases before it. A trainer with this run resumes the phase at the step it had reached; of a
    phase that is over it loads the final weights and makes no step.
    """
    store = CheckpointStore(run.checkpoints.directory / name, run.reporter, sweep=run.ranks.is_main)
    return replace(run, checkpoints=store, log=counted_on(run.log, steps_before))


def counted_on(log: MetricLog, steps_before: int) -> MetricLog:
    """`log` for a phase that begins after so many steps."""
    return MetricLog((_Shifted(log, steps_before),))


class _Shifted(MetricSink):
    """Passes records on to a log that is somebody else's to close."""

    def __init__(self, log: MetricLog, steps: int) -> None:
        self._log = log
        self._steps = steps

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._log.write(step + self._steps, values)

    def close(self) -> None:
        pass
