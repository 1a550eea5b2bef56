"""`paperbench sweeps`: every sweep below a folder, with the states of its runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.output import line, table
from paperbench.cli.runlist import age
from paperbench.config.paths import short
from paperbench.errors import PaperbenchError
from paperbench.records.record import RunRecord
from paperbench.records.sweeps import SweepRecord, find_sweeps, read_sweep
from paperbench.sweeps.launchers.slurm_jobs import refresh_places

_SHOWN_JOBS = 3


def print_sweeps(root: Path, *, json_output: bool = False) -> None:
    """Print the sweeps below `root`, the latest first. One that cannot be read is named on stderr."""
    found = []
    for folder in find_sweeps(root):
        try:
            found.append(read_sweep(folder))
        except PaperbenchError as error:
            print_error(str(error))
    on_slurm = [sweep for sweep in found if sweep.launcher == "slurm"]
    refresh_places([entry.directory for sweep in on_slurm for entry in sweep.entries])
    read = sorted(((sweep, list(sweep.runs)) for sweep in found), key=lambda pair: _updated(pair[1]), reverse=True)
    if json_output:
        emit_json([_document(sweep, runs) for sweep, runs in read])
    elif read:
        rows = ([sweep.id, sweep.name, sweep.launcher, str(len(runs)), _states(runs), _jobs(runs), age(_updated(runs)),
                 short(sweep.directory)] for sweep, runs in read)  # fmt: skip
        table(("sweep", "name", "launcher", "runs", "states", "jobs", "age", "directory"), rows)
    else:
        line(f"no sweeps below {root}")


def _document(sweep: SweepRecord, runs: list[RunRecord]) -> dict[str, Any]:
    return {
        "sweep": sweep.id,
        "name": sweep.name,
        "kind": sweep.kind,
        "launcher": sweep.launcher,
        "directory": str(sweep.directory),
        "states": dict(Counter(run.state for run in runs)),
        "runs": [{"hash": run.name, "labels": dict(run.labels), **run.facts()} for run in runs],
    }


def _states(runs: list[RunRecord]) -> str:
    return ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in runs).most_common())


def _jobs(runs: list[RunRecord]) -> str:
    """Return the jobs that wait or run, as they were last seen."""
    jobs = [run.place.job for run in runs if run.place is not None and run.place.job]
    more = len(jobs) - _SHOWN_JOBS
    return ", ".join([*jobs[:_SHOWN_JOBS], *([f"and {more} more"] if more > 0 else [])])


def _updated(runs: list[RunRecord]) -> str:
    return max((run.updated for run in runs), default="")
