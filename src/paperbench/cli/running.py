"""`train`, `eval`, `estimate`, `proposals` and `resume`: the output of one run on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.options import RunOptions
from paperbench.cli.output import describe_changes, folded_line, line, pair_lines
from paperbench.config.compose import Composed, compose
from paperbench.config.difference import difference
from paperbench.engine import torchrun
from paperbench.engine.reporter import Outcome, Reporter, SilentReporter
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EXIT_STOPPED
from paperbench.records import launch
from paperbench.records.launch import compose_for, plan_of


def start(verb: str, experiment: str, overrides: list[str] | None, options: RunOptions) -> None:
    """Compose and run an experiment, and print its results."""
    composed = compose_for(verb, experiment, options.overrides(overrides), conf_dir=options.conf_dir)
    if options.dry_run:
        if options.run_dir is not None and not torchrun.under_torchrun():
            RunDirectory.refuse_unusable(options.run_dir)
        if torchrun.rank() == 0:
            _print_plan(composed, options)
        return
    outcome = launch.start(
        composed,
        run_dir=options.run_dir,
        reporter=_reporter(options.json_output),
        worker_reporter=_worker_reporter(options.json_output),
    )
    _finish(outcome, json_output=options.json_output)


def resume(run: Path, *, from_start: bool = False, json_output: bool) -> None:
    """Continue the run in a folder, and print its results."""
    outcome = launch.resume(
        run,
        from_start=from_start,
        reporter=_reporter(json_output),
        worker_reporter=_worker_reporter(json_output),
    )
    _finish(outcome, json_output=json_output)


def _reporter(json_output: bool) -> Reporter:
    """The display of this process; the first of several torchrun processes reports."""
    from paperbench.cli.display import make_reporter

    return make_reporter(json_output=json_output) if torchrun.rank() == 0 else SilentReporter()


def _worker_reporter(json_output: bool) -> tuple[str, dict[str, Any]]:
    """The display of rank 0 of several processes: the same that one process would have."""
    return "paperbench.cli.display:make_reporter", {"json_output": json_output}


def _finish(outcome: Outcome, *, json_output: bool) -> None:
    """Print the results for a program that reads them, and exit with the run's code."""
    if torchrun.rank() > 0:
        pass
    elif json_output:
        results = outcome.results or {"status": outcome.status, "message": outcome.message}
        emit_json({**results, "directory": str(outcome.directory), "exit_code": outcome.exit_code})
    elif outcome.exit_code == EXIT_STOPPED:
        print_error(outcome.message)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _print_plan(composed: Composed, options: RunOptions) -> None:
    """Print the task's facts, what differs from the experiment's default, and where the run would write (`--dry-run`)."""
    facts = plan_of(composed)
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
    pair_lines(rows.items())
    if changes:
        line("differs from the experiment's default in")
        for text in describe_changes(changes):
            folded_line(f"  {text}", indent=6)
