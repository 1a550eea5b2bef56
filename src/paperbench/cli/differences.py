"""The text of `paperbench compare`: a few runs as columns, many as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paperbench.cli.output import duration, line, scalar, table
from paperbench.config.difference import ABSENT
from paperbench.records.comparison import SECONDS, Comparison, Row
from paperbench.records.grouping import repeated_settings
from paperbench.records.metrics import all_metrics
from paperbench.records.statistics import Summary

MOST_COLUMNS = 6
"""More runs than this are listed one in a row."""


def print_comparison(comparison: Comparison, remarks: Sequence[str]) -> None:
    """Print remarks, what differs, and the statistics over seeds."""
    for text in remarks:
        line(f"note: {text}")
    if len(comparison.runs) > MOST_COLUMNS:
        _print_rows(comparison)
    else:
        _print_columns(comparison)
    line()
    _print_end(comparison)
    _print_settings(comparison)


def _print_columns(comparison: Comparison) -> None:
    """One run a column."""
    names = [run.name for run in comparison.runs]
    for title, rows in (("configuration", comparison.config), ("environment", comparison.environment)):
        if rows:
            line()
            table((title, *names), ([row.key, *map(_written, row.values)] for row in rows))
    for row in comparison.data:  # sentences: as columns they would be too wide
        line()
        table(("run", row.key), ([name, _written(value)] for name, value in zip(names, row.values, strict=True)))
    if comparison.metrics:
        line()
        rows = sorted(comparison.metrics, key=lambda row: not _is_headline(row.key))
        table(("metric", "better", *names), ([row.key, _better(row.key), *_with_deltas(row)] for row in rows))


def _print_rows(comparison: Comparison) -> None:
    """One run a row; of the metrics, those that a summary shows."""
    shown = [row for row in comparison.metrics if _is_headline(row.key)]
    shown = [*(shown or comparison.metrics), *(row for row in comparison.metrics if row.key == SECONDS and shown)]
    facts = [*comparison.config, *comparison.environment, *comparison.data]
    cells = [[*map(_written, row.values)] for row in facts] + [_with_deltas(row) for row in shown]
    table(
        ("run", "state", *(row.key for row in [*facts, *shown])),
        ([run.name, run.state, *(column[index] for column in cells)] for index, run in enumerate(comparison.runs)),
    )
    if hidden := len(comparison.metrics) - len(shown):
        line(f"{hidden} more metrics differ; --json has them all")


def _print_end(comparison: Comparison) -> None:
    same = f"{comparison.same_metrics} metrics are the same" if comparison.same_metrics else ""
    if not any((comparison.config, comparison.environment, comparison.data, comparison.metrics)):
        line(f"nothing differs; {same}" if same else "nothing differs")
        return
    deltas = any(delta for row in comparison.metrics for delta in row.deltas())
    said = [f"in parentheses: the difference to {comparison.runs[0].name}"] if deltas else []
    if text := "; ".join([*said, *([same] if same else [])]):
        line(text)


def _print_settings(comparison: Comparison) -> None:
    """Mean and interval of the runs that differ in their seed alone, and paired differences between such groups."""
    settings = repeated_settings(comparison.runs)
    summaries = [setting.summaries() for setting in settings]
    shown = [row.key for row in comparison.metrics if any(row.key in found for found in summaries)]
    shown = [key for key in shown if _is_headline(key)] or shown
    if not shown:
        return
    differences = [{}, *(setting.against(settings[0]) for setting in settings[1:])]
    rows = []
    for key in shown:
        rows.append([key, *(_interval(found.get(key), ".4g") for found in summaries)])
        pairs = [found.get(key) for found in differences]
        if any(pairs):
            rows.append(
                ["  less the first, seed by seed", *(_interval(p.summary if p else None, "+.3g") for p in pairs)]
            )
    line()
    table(("over seeds", *(f"{setting.overrides} (n={len(setting.by_seed)})" for setting in settings)), rows)
    kinds = dict.fromkeys(summary.kind for found in summaries for key, summary in found.items() if key in shown)
    line(f"mean [interval]; the interval is: {', '.join(kinds)}")


def _interval(summary: Summary | None, form: str) -> str:
    if summary is None:
        return ""
    mean = format(summary.mean or 0.0, form)
    return mean if summary.interval is None else f"{mean} [{', '.join(format(end, form) for end in summary.interval)}]"


def _with_deltas(row: Row) -> list[str]:
    return [
        _number(row.key, value) + (f" ({_delta(row.key, delta)})" if delta else "")
        for value, delta in zip(row.values, row.deltas(), strict=True)
    ]


def _number(key: str, value: Any) -> str:
    if value is ABSENT:
        return ""
    return duration(value) if key == SECONDS else f"{value:.4g}"


def _delta(key: str, delta: float) -> str:
    if key == SECONDS:
        return f"{'-' if delta < 0 else '+'}{duration(abs(delta))}"
    return f"{delta:+.3g}"


def _is_headline(key: str) -> bool:
    """True for a metric that the summary of a run shows."""
    return all_metrics()[key].headline


def _better(key: str) -> str:
    direction = all_metrics().direction(key)
    return "" if direction == "none" else direction


def _written(value: Any) -> str:
    if value is ABSENT:
        return ""
    return value if isinstance(value, str) and value else scalar(value)
