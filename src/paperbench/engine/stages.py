"""Several trainings in one run, each by a `Trainer` of its own: a checkpoint folder, a seed and a name for each.

A stage is a view of the run. Its checkpoints lie in a folder of its own, its steps count towards those of the run, and what it
logs carries its name. `Trainer.fit` on a finished stage loads the final weights and takes no step, so a task that always goes
through all of its stages resumes in the middle of any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import MetricLog
from paperbench.engine.reporter import Reporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory


def stage(
    run: Run,
    name: str,
    *,
    before: int = 0,
    total: int = 0,
    seed: int | None = None,
    checkpoints: Path | None = None,
    identity: str | None = None,
    log_prefix: str | None = None,
    log_offset: int = 0,
) -> Run:
    """Return `run` as its stage `name` sees it.

    before, total: steps of the stages before this one and of all together, for the run's status. checkpoints: the stage's
    folder, by default `checkpoints/<name>` of the run. identity: what its checkpoints must belong to in place of the run's
    configuration, for a folder that several runs share. log_prefix: of the names in the metric log, by default `<name>/`.
    log_offset: added to the steps in the metric log, for stages that continue one curve.
    """
    sink = _StageLog(run.log, f"{name}/" if log_prefix is None else log_prefix, log_offset)
    return replace(
        run,
        directory=_StageDirectory(run.directory, before=before, total=total),
        reporter=_StageReporter(run.reporter, name),
        log=MetricLog([sink]) if run.ranks.is_main else MetricLog(),
        checkpoints=CheckpointStore(
            checkpoints or run.directory.checkpoints / name, run.reporter, sweep=run.ranks.is_main
        ),
        seed=run.seed if seed is None else seed,
        config_hash=run.config_hash if identity is None else identity,
    )


class _StageDirectory(RunDirectory):
    """The same directory and status; a stage's step is one of the whole run's."""

    def __init__(self, whole: RunDirectory, *, before: int, total: int) -> None:
        self.__dict__.update(vars(whole))  # the lock, the status and its clock are shared, not copied
        self._before = before
        self._total = total

    def update_status(self, **changes: Any) -> None:
        if "step" in changes:
            changes["step"] += self._before
        if "steps" in changes:
            changes["steps"] = max(self._total, self._before + changes["steps"])
        super().update_status(**changes)


class _StageReporter:
    """Names the stage in place of the phase `train`, and before messages."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter = reporter
        self._name = name

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        self._reporter.start(title, facts)

    def message(self, text: str) -> None:
        self._reporter.message(f"{self._name}: {text}")

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        self._reporter.progress(self._name if phase == "train" else f"{self._name}, {phase}", done, total, values)

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        self._reporter.finish(results, directory)

    def close(self) -> None:
        """The run's own reporter outlives its stages."""


class _StageLog:
    """Writes to the log of the run, under the names and steps of the stage."""

    def __init__(self, log: MetricLog, prefix: str, offset: int) -> None:
        self._log = log
        self._prefix = prefix
        self._offset = offset

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._log.write(step + self._offset, {f"{self._prefix}{name}": value for name, value in values.items()})

    def close(self) -> None:
        """The run's own log outlives its stages."""
