"""`paperbench runs`: the table of runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.output import duration, line, scalar, table
from paperbench.config.difference import ABSENT
from paperbench.config.paths import short
from paperbench.records.record import RunRecord
from paperbench.records.selection import RESULT, find_runs, select, value_of

_OWN_COLUMN = ("experiment", "scale", "state", "step", RESULT, "updated", "directory")


def print_runs(
    root: Path,
    *,
    json_output: bool,
    filters: Sequence[str] = (),
    sort: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> None:
    """Print the runs below `root`, with a column for each key that they were filtered or sorted by.

    The order, and the number of runs left out, go to stderr: a program reads the table.
    """
    found = find_runs(root)
    if not found:
        if json_output:
            emit_json([])
        else:
            line(f"no runs below {root}")
        return
    chosen = select(found, filters=filters, sort=sort, reverse=reverse, limit=limit, root=root)
    if chosen.summary:
        print_error(chosen.summary)
    if json_output:
        emit_json([{**run.facts(), "metrics": dict(run.metrics), "values": chosen.values(run)} for run in chosen.runs])
        return
    extra = [key for key in chosen.keys if key not in _OWN_COLUMN]
    if chosen.runs:
        table(
            ("experiment", "scale", "state", "step", "result", *extra, "age", "directory"),
            (_row(run, extra) for run in chosen.runs),
        )


def _row(run: RunRecord, extra: Sequence[str]) -> list[str]:
    return [
        f"{run.experiment} ({run.task})" if run.task.endswith("eval") else run.experiment,
        run.scale,
        run.state,
        f"{run.step}/{run.steps}" if run.steps else "",
        _result(run) or (run.place.describe() if run.place is not None else ""),
        *(_text(key, value_of(run, key)) for key in extra),
        age(run.updated),
        short(run.directory),
    ]


def _result(run: RunRecord) -> str:
    metric, value = run.headline
    if value is not None:
        return f"{metric} {value:.4g}"
    return f"best {run.best:.4g}" if run.best is not None else ""


def _text(key: str, value: Any) -> str:
    if value is ABSENT:
        return ""
    if key == "seconds":
        return duration(value)
    return f"{value:.4g}" if isinstance(value, float) else scalar(value)


def age(updated: str, now: datetime | None = None) -> str:
    """`3 min`, `2 h`, `5 d` since an ISO time; empty if it is none."""
    try:
        seconds = ((now or datetime.now().astimezone()) - datetime.fromisoformat(updated)).total_seconds()
    except (ValueError, TypeError):
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
