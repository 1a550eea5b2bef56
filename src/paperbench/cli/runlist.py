"""`paperbench runs`: the table of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.history import RunInfo, age, find_runs
from paperbench.cli.output import duration, line, scalar, table
from paperbench.cli.selection import RESULT, look, select
from paperbench.config.difference import ABSENT
from paperbench.config.paths import short

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
    """The runs below `root`, with a column for each key that they were filtered or sorted by.

    How they were sorted, and how many were left out, goes to stderr: a program reads the table.
    """
    found = find_runs(root)
    if not found:
        if json_output:
            emit_json([])
        else:
            line(f"no runs below {root}")
        return
    chosen = select(found, filters=filters, sort=sort, reverse=reverse, limit=limit, root=root)
    if chosen.said:
        print_error(chosen.said)
    if json_output:
        emit_json(
            [{**info.facts(), "metrics": dict(info.metrics), "values": chosen.values(info)} for info in chosen.runs]
        )
        return
    extra = [key for key in chosen.keys if key not in _OWN_COLUMN]
    if chosen.runs:
        table(
            ("experiment", "scale", "state", "step", "result", *extra, "age", "directory"),
            (_row(info, extra) for info in chosen.runs),
        )


def _row(info: RunInfo, extra: Sequence[str]) -> list[str]:
    return [
        f"{info.experiment} ({info.task})" if info.task.endswith("eval") else info.experiment,
        info.scale,
        info.state,
        f"{info.step}/{info.steps}" if info.steps else "",
        _result(info),
        *(_written(key, look(info, key)) for key in extra),
        age(info.updated),
        short(info.directory),
    ]


def _result(info: RunInfo) -> str:
    if info.value is not None:
        return f"{info.metric} {info.value:.4g}"
    return f"best {info.best:.4g}" if isinstance(info.best, int | float) else ""


def _written(key: str, value: Any) -> str:
    if value is ABSENT:
        return ""
    if key == "seconds":
        return duration(value)
    return f"{value:.4g}" if isinstance(value, float) else scalar(value)
