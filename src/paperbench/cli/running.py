"""`train`, `eval`, `estimate` and `resume`: from a command line to a run of the engine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from paperbench.catalog import TASKS
from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.options import RunOptions
from paperbench.cli.output import describe_changes, line
from paperbench.config import _hydra
from paperbench.config.compose import Composed, compose
from paperbench.config.difference import difference
from paperbench.config.paths import short
from paperbench.config.validate import dump, load_file, schema_of, validate
from paperbench.engine import torchrun
from paperbench.engine.reporter import Reporter, SilentReporter
from paperbench.engine.rundir import DONE
from paperbench.errors import EXIT_STOPPED, ConfigError
from paperbench.runs.selection import find_runs

if TYPE_CHECKING:
    from paperbench.engine.reporter import Outcome

CHECKPOINT = "checkpoint"


# --- which configuration ----------------------------------------------------------------------------------------------


def compose_for(verb: str | None, experiment: str, overrides: list[str] | None, options: RunOptions) -> Composed:
    """The configuration that `verb` is to run; with `verb` None, that of whichever verb the experiment has.

    `eval` of an experiment that is trained takes over the configuration of the run that `checkpoint=` names.
    """
    given = options.overrides(overrides)
    checkpoint, others = _take_checkpoint(given)
    if verb in ("eval", None) and checkpoint is not None:
        default = compose(experiment, conf_dir=options.conf_dir)
        if default.task.evaluated_by:
            return _evaluation(default, checkpoint, given, options)
    if verb == "eval":
        default = compose(experiment, conf_dir=options.conf_dir)
        if default.task.evaluated_by:
            raise ConfigError(*_checkpoint_missing(default, others))
    if verb is not None and verb != "eval" and checkpoint is not None:
        raise ConfigError(f"checkpoint={checkpoint}: belongs to `paperbench eval {experiment}`; training starts anew")
    composed = compose(experiment, given, conf_dir=options.conf_dir)
    if verb == "proposals" and composed.task.proposed_by:
        return _proposing(composed)
    if verb is not None and composed.task.verb != verb:
        raise ConfigError(
            f"{experiment}: runs task {composed.task.name}; use `paperbench {composed.task.verb} {experiment}`"
        )
    return composed


def _proposing(training: Composed) -> Composed:
    """The proposals that `training` would begin with."""
    task = TASKS[training.task.proposed_by or ""]
    known = {field.name for field in fields(schema_of(task))}
    own = {key: value for key, value in training.resolved.items() if key in known} | {"task": task.name}
    config = validate(task, own)
    return replace(training, task=task, config=config, resolved=dump(config), source=None)


def _take_checkpoint(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `checkpoint=`, if it is among the overrides, and the others."""
    value, others = None, []
    for text in overrides:
        if text.lstrip("+").startswith(f"{CHECKPOINT}="):
            value = str(_hydra.parse(text).value)
        else:
            others.append(text)
    return value, others


def _checkpoint_missing(default: Composed, overrides: Sequence[str]) -> list[str]:
    """What `eval` needs, and the runs that would do."""
    root = next(
        (text.partition("=")[2] for text in overrides if text.startswith("output.root=")), default.config.output.root
    )
    trained = [run for run in find_runs(Path(root)) if run.task == default.task.name and run.state == DONE]
    mistakes = [f"paperbench eval {default.experiment}: needs checkpoint=RUN, the folder of a trained run"]
    mistakes += [f"  checkpoint={short(run.directory)}" for run in trained[:5]]
    if not trained:
        mistakes.append(f"  none is finished below {root}; `paperbench train {default.experiment}` makes one")
    return mistakes


def run_of(checkpoint: str) -> Path:
    """The run directory that `checkpoint` is, or lies in."""
    path = Path(checkpoint).expanduser().absolute()
    for folder in (path, *path.parents[:2]):
        if (folder / "config.yaml").is_file():
            if not path.exists():
                break
            return folder
    if not path.exists():
        raise ConfigError(f"checkpoint={checkpoint}: no such run or file; `paperbench runs` lists the runs there are")
    raise ConfigError(f"checkpoint={checkpoint}: not a run (no config.yaml there) nor a checkpoint below one")


def _evaluation(default: Composed, checkpoint: str, given: list[str], options: RunOptions) -> Composed:
    """The trained run's own configuration, with what the command line changes."""
    run = run_of(checkpoint)
    file = run / "config.yaml"
    task, _, base = load_file(file)
    named = f"checkpoint={checkpoint}"
    if task.takes_checkpoint:
        raise ConfigError(
            f"{named}: is an evaluation, not a trained run; its own is checkpoint={base.get(CHECKPOINT, '')}"
        )
    if task.name != default.task.name:
        raise ConfigError(
            f"{named}: a run of task {task.name}, experiment {base['experiment']}, not of {default.experiment}"
        )
    trained, expected = (_model(config) for config in (base, default.resolved))
    if trained != expected:
        raise ConfigError(f"{named}: holds model {trained}, experiment {default.experiment} has {expected}")
    # How many processes trained it says nothing about how many are to evaluate it.
    return compose(default.experiment, given, conf_dir=options.conf_dir, base={**base, "nproc": 1}, base_file=file)


def _model(config: Mapping[str, Any]) -> Any:
    model = config.get("model")
    return model.get("name") if isinstance(model, Mapping) else None


# --- running it -------------------------------------------------------------------------------------------------------


def start(verb: str, experiment: str, overrides: list[str] | None, options: RunOptions) -> None:
    """Composes and runs; nothing is written before the configuration is found to be right."""
    options = _as_torchrun_has_it(options, overrides)
    composed = compose_for(verb, experiment, overrides, options)
    if options.dry_run:
        if torchrun.rank() == 0:
            _print_plan(composed, options)
        return
    from paperbench.engine import launch

    _plan(composed)  # what the task refuses at a glance must leave no run directory behind
    reporter = _reporter(options.json_output)
    try:
        outcome = launch.start(
            composed.resolved,
            run_dir=options.run_dir,
            reporter=reporter,
            worker_reporter=_worker_reporter(options.json_output),
            config=composed.config,
        )
    finally:
        reporter.close()
    _finish(outcome, json_output=options.json_output)


def resume(run: Path, *, json_output: bool) -> None:
    """Continues the run in a folder."""
    load_file(_run_directory(run) / "config.yaml")
    from paperbench.engine import launch

    reporter = _reporter(json_output)
    try:
        outcome = launch.resume(run, reporter, worker_reporter=_worker_reporter(json_output))
    finally:
        reporter.close()
    _finish(outcome, json_output=json_output)


def _as_torchrun_has_it(options: RunOptions, overrides: list[str] | None) -> RunOptions:
    """With `nproc` as torchrun has it, where torchrun started this process and nothing else is said."""
    if not torchrun.under_torchrun():
        return options
    # DDP on a CPU is told to expect unused parameters (see `trainer`) and would remark that there are none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    said = options.nproc is not None or any(text.lstrip("+").startswith("nproc=") for text in overrides or ())
    return options if said else replace(options, nproc=torchrun.world_size())


def _reporter(json_output: bool) -> Reporter:
    """Of several processes that torchrun started, the first alone speaks."""
    from paperbench.cli.display import make_reporter

    return make_reporter(json_output=json_output) if torchrun.rank() == 0 else SilentReporter()


def _worker_reporter(json_output: bool) -> tuple[str, dict[str, Any]]:
    """How rank 0 of several processes makes the display that one process would have."""
    return "paperbench.cli.display:make_reporter", {"json_output": json_output}


def _run_directory(run: Path) -> Path:
    if not run.is_dir():
        raise ConfigError(f"{run}: no such run directory; `paperbench runs` lists the runs there are")
    if not (run / "config.yaml").is_file():
        raise ConfigError(
            f"{run}: not a run directory, it has no config.yaml; `paperbench runs` lists the runs there are"
        )
    return run


def _finish(outcome: Outcome, *, json_output: bool) -> None:
    """The results for a program that reads them, and the exit code."""
    if torchrun.rank() > 0:
        pass
    elif json_output:
        results = outcome.results or {"status": outcome.status, "message": outcome.message}
        emit_json({**results, "directory": str(outcome.directory), "exit_code": outcome.exit_code})
    elif outcome.exit_code == EXIT_STOPPED:
        print_error(outcome.message)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _plan(composed: Composed) -> dict[str, str]:
    """The task's facts about the run; raises what it finds wrong."""
    return dict(importlib.import_module(composed.task.module).plan(composed.config))


def _print_plan(composed: Composed, options: RunOptions) -> None:
    """`--dry-run`: what would run, what differs from the experiment's default, where it would write."""
    facts = _plan(composed)
    default = compose(composed.experiment, conf_dir=options.conf_dir).resolved if composed.source else composed.resolved
    changes = difference(default, composed.resolved)
    where = options.run_dir or Path(composed.resolved["output"]["root"]) / composed.experiment
    if options.json_output:
        emit_json(
            {
                "experiment": composed.experiment,
                "task": composed.task.name,
                "plan": facts,
                "directory": str(where),
                "config": composed.resolved,
                "dry_run": True,
            }
        )
        return
    line(f"{composed.experiment}: {composed.task.summary} (dry run, nothing is written)")
    rows = {**facts, "directory": str(where) if options.run_dir else f"{where}/<time>"}
    width = max(map(len, rows))
    for name, text in rows.items():
        line(f"  {name.ljust(width)}  {text}")
    if changes:
        line("differs from the experiment's default in")
        for text in describe_changes(changes):
            line(f"  {text}")
