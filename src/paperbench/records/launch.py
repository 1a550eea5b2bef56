"""One run, from overrides to its outcome: composed, checked by its task, started. Imports no torch until a run starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from paperbench.catalog import TASKS
from paperbench.config import _hydra
from paperbench.config.commands import command, override
from paperbench.config.compose import Composed, compose, output_root
from paperbench.config.paths import expanded, short
from paperbench.config.quoting import quoted
from paperbench.config.validate import dump, load_file, schema_of, validate
from paperbench.engine import torchrun
from paperbench.engine.reporter import Outcome, Reporter, SilentReporter
from paperbench.engine.rundir import DONE, RunDirectory
from paperbench.engine.task import task_module
from paperbench.errors import CheckpointError, ConfigError
from paperbench.records.selection import find_runs

CHECKPOINT = "checkpoint"


# --- configuration ----------------------------------------------------------------------------------------------------


def compose_for(
    verb: str | None, experiment: str, overrides: Sequence[str] = (), *, conf_dir: Path | None = None
) -> Composed:
    """Compose the configuration that `verb` is to run; with `verb` None, that of whichever verb the experiment has.

    `eval` of an experiment that is trained takes over the configuration of the run that `checkpoint=` names. Under torchrun
    `nproc` is its number of processes unless an override says otherwise. Raises `ConfigError` with every mistake.
    """
    given = _with_processes(overrides)
    checkpoint, others = _take_checkpoint(given)
    if verb in ("eval", None) and checkpoint is not None:
        default = compose(experiment, conf_dir=conf_dir)
        if default.task.evaluated_by:
            return _evaluation(default, checkpoint, given, conf_dir)
        if verb == "eval" and default.task.verb != "eval":
            able = ", ".join(task.name for task in TASKS.values() if task.evaluated_by)
            raise ConfigError(
                f"{experiment}: a run of task {default.task.name} is measured at the end of its training and not again; "
                f"runs of {able} can be evaluated"
            )
    if verb == "eval":
        default = compose(experiment, conf_dir=conf_dir)
        if default.task.evaluated_by:
            raise ConfigError(*_checkpoint_missing(default, others))
    if verb is not None and verb != "eval" and checkpoint is not None:
        raise ConfigError(f"checkpoint={checkpoint}: belongs to `{command('eval', experiment)}`; training starts anew")
    composed = compose(experiment, given, conf_dir=conf_dir)
    if verb == "proposals" and composed.task.proposed_by:
        return _proposing(composed)
    if verb is not None and composed.task.verb != verb:
        raise ConfigError(
            f"{experiment}: runs task {composed.task.name}; use `{command(composed.task.verb, experiment)}`"
        )
    return composed


def _proposing(training: Composed) -> Composed:
    """Return the configuration of the proposals that `training` would begin with."""
    task = TASKS[training.task.proposed_by or ""]
    known = {field.name for field in fields(schema_of(task))}
    own = {key: value for key, value in training.resolved.items() if key in known} | {"task": task.name}
    config = validate(task, own)
    return replace(training, task=task, config=config, resolved=dump(config), source=None)


def _take_checkpoint(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split the overrides into the value of `checkpoint=`, if it is among them, and the others."""
    value, others = None, []
    for text in overrides:
        if text.lstrip("+").startswith(f"{CHECKPOINT}="):
            value = str(_hydra.parse(text).value)
        else:
            others.append(text)
    return value, others


def _checkpoint_missing(default: Composed, overrides: Sequence[str]) -> list[str]:
    """Name what `eval` needs, and the runs that would do."""
    root = output_root(overrides, default.config.output.root)
    trained = [run for run in find_runs(root) if run.task == default.task.name and run.state == DONE]
    mistakes = [f"{command('eval', default.experiment)}: needs checkpoint=RUN, the folder of a trained run"]
    mistakes += [f"  {quoted(override(CHECKPOINT, short(run.directory)))}" for run in trained[:5]]
    if not trained:
        mistakes.append(f"  none is finished below {root}; `{command('train', default.experiment)}` makes one")
    return mistakes


def run_of(checkpoint: str) -> Path:
    """Find the run directory that `checkpoint` is, or lies in."""
    path = expanded(checkpoint).absolute()
    for folder in (path, *path.parents[:2]):
        if (folder / "config.yaml").is_file():
            if not path.exists():
                break
            return folder
    if not path.exists():
        raise ConfigError(f"checkpoint={checkpoint}: no such run or file; `paperbench runs` lists the runs there are")
    raise ConfigError(f"checkpoint={checkpoint}: not a run (no config.yaml there) nor a checkpoint below one")


def _evaluation(default: Composed, checkpoint: str, given: Sequence[str], conf_dir: Path | None) -> Composed:
    """Compose an evaluation: the trained run's own configuration, with the overrides on top."""
    run = run_of(checkpoint)
    file = run / "config.yaml"
    task, _, base = load_file(file)
    named = f"checkpoint={checkpoint}"
    if task.takes_checkpoint:
        its_own = quoted(override(CHECKPOINT, str(base.get(CHECKPOINT, ""))))
        raise ConfigError(f"{named}: is an evaluation, not a trained run; its own is {its_own}")
    if task.name != default.task.name:
        raise ConfigError(
            f"{named}: a run of task {task.name}, experiment {base['experiment']}, not of {default.experiment}"
        )
    trained, expected = (_model(config) for config in (base, default.resolved))
    if trained != expected:
        raise ConfigError(f"{named}: holds model {trained}, experiment {default.experiment} has {expected}")
    # How many processes trained it says nothing about how many are to evaluate it.
    return compose(default.experiment, given, conf_dir=conf_dir, base={**base, "nproc": 1}, base_file=file)


def _model(config: Mapping[str, Any]) -> Any:
    model = config.get("model")
    return model.get("name") if isinstance(model, Mapping) else None


def _with_processes(overrides: Sequence[str]) -> list[str]:
    """The overrides with torchrun's number of processes, in a process that torchrun started and nothing else is asked of."""
    if not torchrun.under_torchrun() or any(text.lstrip("+").startswith("nproc=") for text in overrides):
        return list(overrides)
    return [*overrides, f"nproc={torchrun.world_size()}"]


# --- running ----------------------------------------------------------------------------------------------------------


def plan_of(composed: Composed) -> dict[str, str]:
    """Ask the task for its facts about the run; raises what the task refuses."""
    return dict(task_module(composed.task).plan(composed.config))


def start(
    composed: Composed,
    *,
    run_dir: Path | None = None,
    reporter: Reporter | None = None,
    worker_reporter: tuple[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Do the run in a directory of its own, or in `run_dir`; nothing is written before its task has agreed.

    `worker_reporter` builds the reporter of rank 0 where the run has several processes (`engine.launch`). Raises an error of
    `paperbench.errors` for a run that fails; one that was asked to stop is an outcome.
    """
    from paperbench.engine import launch

    if torchrun.under_torchrun():
        # DDP on a CPU is told to expect unused parameters (see `trainer`) and would remark that there are none.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    reporter = reporter or SilentReporter()
    try:
        plan_of(composed)  # a refusal must leave no run directory behind
        return launch.start(
            composed.resolved,
            run_dir=run_dir,
            reporter=reporter,
            worker_reporter=worker_reporter,
            config=composed.config,
        )
    finally:
        reporter.close()


def resume(
    run: Path,
    *,
    from_start: bool = False,
    reporter: Reporter | None = None,
    worker_reporter: tuple[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Continue the run in a folder; of one that is done, the outcome is that of before. For errors see `start`.

    A run whose checkpoints are gone, as after a copy without them, is refused with `CheckpointError` unless `from_start` says that
    it may begin again.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: no such run directory; `paperbench runs` lists the runs there are")
    if not (run / "config.yaml").is_file():
        raise ConfigError(
            f"{run}: not a run directory, it has no config.yaml; `paperbench runs` lists the runs there are"
        )
    load_file(run / "config.yaml")
    directory = RunDirectory(run)
    step, saved = directory.lost_progress()
    if saved and not from_start and directory.results() is None:
        raise CheckpointError(
            f"{run}: had come to step {step} of {directory.status().get('steps')}, and there is no checkpoint left below "
            f"{directory.checkpoints}; copy them back, or begin again at step 0: `{command('resume', run, '--from-start')}`"
        )
    from paperbench.engine import launch

    reporter = reporter or SilentReporter()
    try:
        return launch.resume(run, reporter, worker_reporter=worker_reporter)
    finally:
        reporter.close()
