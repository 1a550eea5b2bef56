"""`paperbench sweep`: the output of many runs on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from paperbench.cli.apart import LibraryExitError, apart, note
from paperbench.cli.guard import emit_json
from paperbench.cli.options import RunOptions
from paperbench.cli.output import duration, folded_line, line, table
from paperbench.cli.sweep_display import labelled, make_watcher, title
from paperbench.config.commands import command
from paperbench.config.compose import output_root
from paperbench.config.paths import short
from paperbench.config.words import counted
from paperbench.errors import EXIT_ENVIRONMENT, EXIT_STOPPED, EnvironmentError_, PaperbenchError
from paperbench.records.metrics import metrics_of
from paperbench.records.place import read_place
from paperbench.records.record import RunStatus, read_status
from paperbench.records.sweeps import read_sweep
from paperbench.sweeps import record
from paperbench.sweeps.launch import SweepOptions, plan_sweep, run_planned
from paperbench.sweeps.launch import cancel as cancel_sweep
from paperbench.sweeps.launchers.base import DEFAULT
from paperbench.sweeps.plan import Member, Sweep, jobs_of
from paperbench.sweeps.run import SweepOutcome
from paperbench.sweeps.watch import MemberStatus

MOST_TAILS, LINES_OF_A_TAIL = 10, 6
"""Failures that are shown with the end of their log, and the lines of it; further ones are named with their log."""


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions):
    """The options of `paperbench sweep`."""

    run: RunOptions
    resume: str | None = None


def sweep(experiment: str | None, overrides: list[str] | None, options: Options) -> None:
    """Plan all runs, then do what is missing of them, or only print the plan."""
    run = options.run
    planned, launcher = plan_sweep(
        experiment,
        run.overrides(overrides),
        options=options,
        conf_dir=run.conf_dir,
        resume=options.resume,
        dry_run=run.dry_run,
    )
    if launcher is None:
        _print_plan(planned, options)
        return
    note(str(planned.directory.absolute()))
    note(_command(planned, options))
    watcher = make_watcher(json_output=run.json_output)
    outcome = run_planned(planned, launcher, options=options, watcher=watcher)
    if run.json_output:
        emit_json({**_head(planned), "exit_code": outcome.exit_code, "runs": [_as_json(r) for r in outcome.members]})
    else:
        _print_end(planned, outcome, options)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


@contextmanager
def process_for(launcher: str | None, resume: str | None, overrides: Sequence[str], *, dry_run: bool) -> Iterator[None]:
    """Run the body in a process of its own if the sweep's runs are Ray's, which may end it without a word: see `apart`."""
    if launcher is None and resume is not None:
        with suppress(PaperbenchError):  # the body is going to say it
            launcher = read_sweep(record.find(resume, output_root(overrides))).launcher
    if launcher != "ray" or dry_run or not hasattr(os, "fork"):
        yield
        return
    try:
        with apart():
            yield
    except LibraryExitError as ended:
        raise _lost_by_ray(ended) from None


def _lost_by_ray(ended: LibraryExitError) -> EnvironmentError_:
    why = f" ({ended.said})" if ended.said else ""
    text = (
        f"--launcher ray: Ray ended the process of this sweep, as it does when its head or its node here is lost{why}; "
    )
    if not ended.noted:
        return EnvironmentError_(f"{text}its runs save and end. Start Ray again, then the same command continues them")
    folder, again = Path(ended.noted[0]), ended.noted[-1]
    text += "its runs save and end"
    with suppress(PaperbenchError):  # of a record that could not be written either
        entries = read_sweep(folder).entries
        done = sum(read_status(entry.directory).state == "done" for entry in entries)
        text += f", {done} of {len(entries)} are done"
    text += f". Start Ray again, then continue it with `{again}`"
    with suppress(PaperbenchError), closing(record.Events(folder)) as events:
        events.write("sweep ended", exit_code=EXIT_ENVIRONMENT, reason=text)
    return EnvironmentError_(text)


def cancel(name: str, *, overrides: Sequence[str], json_output: bool) -> None:
    """Cancel the jobs of a sweep that was left to its cluster (`--cancel`); `overrides` may name the output root."""
    planned, jobs = cancel_sweep(name, output_root(overrides))
    if json_output:
        emit_json({**_head(planned), "cancelled": list(jobs)})
        return
    line(f"{planned.name}: {len(jobs)} jobs cancelled; those that ran have saved")
    line(f"  continue it  {command('sweep', '--resume', Path(short(planned.directory)))}")


# --- the plan --------------------------------------------------------------------------------------------------------


def _print_plan(planned: Sweep, options: Options) -> None:
    """Print the runs, the values that were swept, and the state of each (`--dry-run`)."""
    found = [(member, read_status(member.directory)) for member in planned.members]
    if options.run.json_output:
        runs = [
            {
                **_named(member),
                "state": now.state,
                "step": now.step,
                "steps": now.steps,
                "message": now.message,
                "job": None if (place := read_place(member.directory)) is None else asdict(place),
            }
            for member, now in found
        ]
        emit_json({**_head(planned), "dry_run": True, "launcher": list(planned.preview), "runs": runs})
        return
    line(
        f"{planned.name}: {counted(len(found), 'runs')}, sweep {planned.id} in {short(planned.directory)} "
        "(dry run, nothing is written)"
    )
    keys = list(dict.fromkeys(key for member, _ in found for key in member.request.labels))
    common = [text for text in planned.overrides if text.partition("=")[0].lstrip("+") not in keys]
    if common:
        folded_line(f"every run: {' '.join(common)}")
    table(
        (*keys, "run", "state"),
        ([*(member.request.labels.get(key, "") for key in keys), member.hash, _in_words(now)] for member, now in found),
    )
    doing = sum(_would_run(now, options) for _, now in found)
    jobs = len(jobs_of(planned.members, stacked=options.stacked))
    together = f"; stacked, all of them are {jobs} jobs" if options.stacked else ""
    for text in planned.preview:
        line(text)
    line(f"{doing} to run, {len(found) - doing} not{together}")


def _would_run(now: RunStatus, options: Options) -> bool:
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


# --- the end ---------------------------------------------------------------------------------------------------------


def _print_end(planned: Sweep, outcome: SweepOutcome, options: Options) -> None:
    results = outcome.members
    done = [result for result in results if result.state == "done"]
    before = sum(result.reused for result in done)
    said = [f"{len(done)} of {len(results)} runs done" + (f" ({before} of them before)" if before else "")]
    said += [
        f"{count} {state}"
        for state in ("failed", "stopped", "not started", "queued", "running", "requeued", "elsewhere")
        if (count := sum(r.state == state for r in results))
    ]
    if not sys.stdout.isatty():  # on a terminal, the live table stands above
        _print_results(done)
    line(f"{planned.name}: {', '.join(said)}")
    failed = [result for result in results if result.state == "failed"]
    for number, result in enumerate(failed):
        _print_failure(result, tail=number < MOST_TAILS)
    if options.detach and not outcome.exit_code:
        line(f"  look again   {command('sweep', '--resume', Path(short(planned.directory)))}")
        line(f"  cancel it    {command('sweep', '--cancel', Path(short(planned.directory)))}")
    for text in _explained_stops(results):
        line(text)
    line(f"  all of it    {short(planned.directory)}")
    if len(done) > 1:
        line(f"  compare      {command('compare', Path(short(planned.directory)))}")
        line(f"  report       {command('report', Path(short(planned.directory)))}")
    if outcome.exit_code in (EXIT_STOPPED, EXIT_ENVIRONMENT):
        line(f"  continue it  {_command(planned, options)}")
    elif failed:
        retry = any(read_status(r.member.directory).state == "failed" for r in failed)
        line(f"  try again    {_command(planned, options, *(['--retry-failed'] if retry else []))}")


def _explained_stops(results: Sequence[MemberStatus]) -> list[str]:
    """Return a line for each run that ended early for a reason which is not the sweep's own end; at most `MOST_TAILS`."""
    found = [result for result in results if result.state in ("stopped", "not started") and result.message]
    lines = [f"{result.state}: {title(result.member)}: {result.message.splitlines()[0]}" for result in found]
    more = len(lines) - MOST_TAILS
    return [*lines[:MOST_TAILS], f"and {more} more"] if more > 0 else lines


def _print_results(done: Sequence[MemberStatus]) -> None:
    """Print one row a run: the swept values, and the headline of its results."""
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


def _print_failure(result: MemberStatus, *, tail: bool) -> None:
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


def _command(planned: Sweep, options: Options, *more: str) -> str:
    """The command that continues the sweep, with the launcher's settings and options that this one was given."""
    words: list[str | Path] = ["sweep", "--resume", Path(short(planned.directory)), *planned.settings]
    if options.jobs is not None:
        words += ["--jobs", str(options.jobs)]
    if planned.launcher != DEFAULT:
        words += ["--launcher", planned.launcher]
    if options.stacked:
        words += ["--stacked"]
    if options.fail_fast:
        words += ["--fail-fast"]
    if options.run.conf_dir is not None:
        words += ["--conf-dir", options.run.conf_dir]
    return command(*words, *more)


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


def _as_json(result: MemberStatus) -> dict[str, Any]:
    return {
        **_named(result.member),
        "state": result.state,
        "reused": result.reused,
        "seconds": round(result.seconds, 3),
        "message": result.message,
        "job": None if result.place is None else asdict(result.place),
        "log_tail": list(result.log_tail),
        "results": result.results,
    }
