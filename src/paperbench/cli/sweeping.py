"""`paperbench sweep`: from a command line to many runs, and what is said about them at the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from paperbench.cli.guard import emit_json
from paperbench.cli.options import RunOptions
from paperbench.cli.output import duration, line, table
from paperbench.cli.sweep_display import labelled, make_watcher, title
from paperbench.config.paths import search_path, short
from paperbench.errors import EXIT_STOPPED, ConfigError
from paperbench.runs.metrics import metrics_of
from paperbench.runs.record import RunStatus, read_status
from paperbench.sweep import record
from paperbench.sweep.launchers.base import Launcher, SupportsWarmUp, launcher_class
from paperbench.sweep.launchers.settings import compose_settings, split
from paperbench.sweep.plan import Member, Sweep, plan_overrides
from paperbench.sweep.run import MemberResult, SweepOutcome, launcher_for, run_sweep
from paperbench.sweep.stacks import grouped

OUTPUT_ROOT = "output.root"
MOST_TAILS, LINES_OF_A_TAIL = 10, 6
"""Of how many failures the end of the log is shown, and how much of it; further ones are named with their log."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What the options of `paperbench sweep` said."""

    run: RunOptions
    jobs: int | None = None
    launcher: str = "local"
    resume: str | None = None
    retry_failed: bool = False
    fail_fast: bool = False
    stacked: bool = False


def sweep(experiment: str | None, overrides: list[str] | None, options: SweepOptions) -> None:
    """Plans all runs, then does what is missing of them, or only says what that would be."""
    own, others = split(overrides or ())
    start = _Start(own, options)
    planned = _planned(experiment, others, options, start)
    if start.launcher is None:
        _print_plan(planned, options)
        return
    outcome = run_sweep(
        planned,
        launcher=start.launcher,
        jobs=options.jobs,
        watcher=make_watcher(json_output=options.run.json_output),
        retry_failed=options.retry_failed,
        fail_fast=options.fail_fast,
        stacked=options.stacked,
    )
    if options.run.json_output:
        emit_json({**_head(planned), "exit_code": outcome.exit_code, "runs": [_as_json(r) for r in outcome.members]})
    else:
        _print_end(planned, outcome, options)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


class _Start:
    """The launcher, which may take seconds to start: it does while the tasks are asked about their configurations."""

    def __init__(self, own: Sequence[str], options: SweepOptions) -> None:
        self._options = options
        self.mistakes: tuple[str, ...] = ()
        self.launcher: Launcher | None = None
        """None before `begin`, and for a dry run."""
        try:
            launcher_class(options.launcher)
            self._settings = compose_settings(options.launcher, own, search_path(options.run.conf_dir))
        except ConfigError as error:
            self.mistakes = error.mistakes

    def begin(self, planned: Sweep) -> None:
        """Called with the composed sweep. Raises `ConfigError` for runs that cannot be `--stacked`."""
        options = self._options
        grouped(planned.members, stacked=options.stacked)
        if self.mistakes or options.run.dry_run:
            return
        self.launcher = launcher_for(
            planned, options.launcher, self._settings, jobs=options.jobs, stacked=options.stacked
        )
        missing = any(read_status(member.directory).state != "done" for member in planned.members)
        if missing and isinstance(self.launcher, SupportsWarmUp):
            self.launcher.warm_up()

    def give_up(self) -> None:
        """Nothing is going to be run."""
        if self.launcher is not None:
            self.launcher.close()


# --- which runs -------------------------------------------------------------------------------------------------------


def _planned(experiment: str | None, overrides: list[str], options: SweepOptions, start: _Start) -> Sweep:
    """The sweep, its launcher begun; or one error with the mistakes in the runs and in the launcher's settings."""
    try:
        if options.resume is None:
            planned = _composed(experiment, overrides, options, start)
        else:
            planned = _recorded(options.resume, [*([experiment] if experiment else []), *overrides], options)
            start.begin(planned)
    except ConfigError as error:
        start.give_up()
        raise ConfigError(*start.mistakes, *error.mistakes) from None
    except BaseException:
        start.give_up()
        raise
    if start.mistakes:
        raise ConfigError(*start.mistakes)
    return planned


def _composed(experiment: str | None, overrides: list[str], options: SweepOptions, start: _Start) -> Sweep:
    if experiment is None:
        raise ConfigError("name an experiment (see `paperbench ls`), or a sweep to continue with --resume ID")
    given = options.run.overrides(overrides)
    return plan_overrides(experiment, given, conf_dir=options.run.conf_dir, on_composed=start.begin)


def _recorded(name: str, others: Sequence[str], options: SweepOptions) -> Sweep:
    given = [text for text in options.run.overrides(list(others)) if not text.startswith(f"{OUTPUT_ROOT}=")]
    if given:
        raise ConfigError(
            f"--resume {name}: the sweep's record says what to run; leave out {' '.join(given)} "
            "(--jobs, --launcher and launcher.KEY=VALUE may change)"
        )
    roots = [text.partition("=")[2] for text in others if text.startswith(f"{OUTPUT_ROOT}=")]
    return record.load(record.find(name, Path(roots[-1] if roots else "outputs")))


# --- what would be run ------------------------------------------------------------------------------------------------


def _print_plan(planned: Sweep, options: SweepOptions) -> None:
    """`--dry-run`: the table of runs, what tells them apart, and how each stands."""
    found = [(member, read_status(member.directory)) for member in planned.members]
    if options.run.json_output:
        runs = [
            {
                **_named(member),
                "state": now.state,
                "step": now.step,
                "steps": now.steps,
                "message": now.message,
            }
            for member, now in found
        ]
        emit_json({**_head(planned), "dry_run": True, "runs": runs})
        return
    line(
        f"{planned.name}: {len(found)} runs, sweep {planned.id} in {short(planned.directory)} (dry run, nothing is written)"
    )
    keys = list(dict.fromkeys(key for member, _ in found for key in member.request.labels))
    common = [text for text in planned.overrides if text.partition("=")[0].lstrip("+") not in keys]
    if common:
        line(f"every run: {' '.join(common)}")
    table(
        (*keys, "run", "state"),
        ([*(member.request.labels.get(key, "") for key in keys), member.hash, _in_words(now)] for member, now in found),
    )
    doing = sum(_would_run(now, options) for _, now in found)
    jobs = len(grouped(planned.members, stacked=options.stacked))
    together = f"; side by side, all of them are {jobs} jobs" if options.stacked else ""
    line(f"{doing} to run, {len(found) - doing} not{together}")


def _would_run(now: RunStatus, options: SweepOptions) -> bool:
    if now.state == "failed":
        return options.retry_failed or now.by_environment
    return now.state != "done"


def _in_words(now: RunStatus) -> str:
    if now.state == "continues":
        return f"continues at step {now.step} of {now.steps}" if now.steps else "begins anew"
    if now.state == "failed":
        again = "" if not now.by_environment else ", tried again"
        return f"failed{again}: {(now.message.splitlines() or ['?'])[0]}"
    return "running elsewhere" if now.state == "running" else now.state


# --- what became of them ----------------------------------------------------------------------------------------------


def _print_end(planned: Sweep, outcome: SweepOutcome, options: SweepOptions) -> None:
    results = outcome.members
    done = [result for result in results if result.state == "done"]
    before = sum(result.reused for result in done)
    said = [f"{len(done)} of {len(results)} runs done" + (f" ({before} of them before)" if before else "")]
    said += [
        f"{count} {state}"
        for state in ("failed", "stopped", "not started")
        if (count := sum(r.state == state for r in results))
    ]
    if not sys.stdout.isatty():  # on a terminal, the live table stands above
        _print_results(done)
    line(f"{planned.name}: {', '.join(said)}")
    failed = [result for result in results if result.state == "failed"]
    for number, result in enumerate(failed):
        _print_failure(result, tail=number < MOST_TAILS)
    line(f"  all of it    {short(planned.directory)}")
    if len(done) > 1:
        line(f"  compare      {shlex.join(['paperbench', 'compare', short(planned.directory)])}")
        line(f"  report       {shlex.join(['paperbench', 'report', short(planned.directory)])}")
    if outcome.exit_code == EXIT_STOPPED:
        line(f"  continue it  {_command(planned, options)}")
    elif failed:
        retry = "" if all(read_status(r.member.directory).state != "failed" for r in failed) else " --retry-failed"
        line(f"  try again    {_command(planned, options)}{retry}")


def _print_results(done: Sequence[MemberResult]) -> None:
    """One row a run: what was swept, and the first metric of its results in the order of a run's own summary."""
    if not done:
        return
    keys = list(dict.fromkeys(key for result in done for key in result.member.request.labels))
    found = [
        metrics_of(result.member.composed.task.name).headline((result.results or {}).get("metrics", {}))
        for result in done
    ]
    names = sorted({name for name, _ in found if name})
    rows = [
        [
            *(result.member.request.labels.get(key, "") for key in keys),
            result.member.hash,
            *(f"{value:.4g}" if value is not None and name == column else "" for column in names),
        ]
        for result, (name, value) in zip(done, found, strict=True)
    ]
    table((*keys, "run", *names), rows)


def _print_failure(result: MemberResult, *, tail: bool) -> None:
    labels = labelled(result.member.request.labels)
    when = f", after {duration(result.seconds)}" if not result.reused else ", before this sweep"
    line(f"failed: {labels or result.member.hash}{when}: {result.message}")
    if tail:
        # The message is the last line of a traceback, and was said already.
        said = result.message.splitlines() or [""]
        lines = [text for text in result.log_tail if not (said[0] and said[0] in text)]
        for text in lines[-LINES_OF_A_TAIL:]:
            line(f"  | {text}")
    line(f"  log: {short(result.member.directory / 'log.txt')}")


def _command(planned: Sweep, options: SweepOptions) -> str:
    """What to type to go on with the sweep."""
    parts = ["paperbench", "sweep", "--resume", short(planned.directory)]
    if options.jobs is not None:
        parts += ["--jobs", str(options.jobs)]
    if options.launcher != "local":
        parts += ["--launcher", options.launcher]
    if options.stacked:
        parts += ["--stacked"]
    return shlex.join(parts)


# --- for programs -----------------------------------------------------------------------------------------------------


def _head(planned: Sweep) -> dict[str, Any]:
    return {
        "sweep": planned.id,
        "name": planned.name,
        "kind": planned.kind,
        "directory": str(planned.directory),
        "experiment": planned.members[0].request.experiment,
        "overrides": list(planned.overrides),
    }


def _named(member: Member) -> dict[str, Any]:
    return {
        "run": title(member),
        "hash": member.hash,
        "directory": str(member.directory),
        "experiment": member.request.experiment,
        "overrides": list(member.request.overrides),
        "labels": dict(member.request.labels),
    }


def _as_json(result: MemberResult) -> dict[str, Any]:
    return {
        **_named(result.member),
        "state": result.state,
        "reused": result.reused,
        "seconds": round(result.seconds, 3),
        "message": result.message,
        "log_tail": list(result.log_tail),
        "results": result.results,
    }
