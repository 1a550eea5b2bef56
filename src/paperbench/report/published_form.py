"""The form of a file in `conf/paper`: its keys, their types, and what they mean (`docs/published.md` says it at length).

Only the form stands here; `published` turns files into rows. A file holds tables, a table rows, a row values by column.
What a row states for itself replaces what its table states.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from paperbench.config.schema import NonNegativeFloat, PositiveFloat, PositiveInt, Schema

Direction = Literal["higher", "lower", "same"]
"""Which way is better; `same`: neither, the number describes and does not rank."""

Unit = Literal[
    "percent", "points", "fraction", "correlation", "factor", "number", "count", "pixels", "nats",
    "ms", "s", "min", "h", "fps",
]  # fmt: skip
"""`points` are differences of percentages, `fraction` lies in [0, 1], `correlation` in [-1, 1], `factor` is a ratio of two
like quantities, `number` anything else without a unit, `fps` images per second."""

Text = Annotated[str, Field(min_length=1)]
Tolerance = NonNegativeFloat | None | dict[str, NonNegativeFloat | None]

INHERIT = "inherit"


@dataclass(frozen=True, kw_only=True)
class Axis(Schema):
    """The horizontal axis of a table that is a curve: its columns are values of `name`, in `unit`.

    `key` is the dotted key of a run's configuration that holds the place where the run ends; empty where there is none,
    and then no run's results are held against a point by themselves.
    """

    name: Text
    unit: Unit
    scale: Literal["linear", "log"] = "linear"
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class StatementForm(Schema):
    """A sentence about the runs that stand beside a paper's numbers; with `when`, only about runs with these values."""

    text: Text
    when: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ChoiceForm(StatementForm):
    """Something that the paper leaves open, with what is taken here."""

    reason: Text
    """Why this and not another."""
    moves: str = ""
    """What another choice moves, where that was measured."""


@dataclass(kw_only=True)
class RowForm(Schema):
    """One printed row, or one curve."""

    row: Text
    values: Annotated[dict[Text, float], Field(min_length=1)]
    spread: dict[str, PositiveFloat] = field(default_factory=dict)
    """Standard deviations that are printed beside values, by column."""
    tolerance: Tolerance | Literal["inherit"] = INHERIT
    metrics: dict[str, str] | str = field(default_factory=dict)
    """Names in `results.json` by column, or one name for all, in which `{column}` stands for the column."""
    when: dict[str, Any] = field(default_factory=dict)
    deviation: str = ""
    """What differs from the paper even where `when` holds."""
    remark: str = ""
    """A sentence about what is printed; it takes nothing from a verdict."""
    doubt: str = ""
    unreproduced: str | None = None


@dataclass(kw_only=True)
class TableForm(Schema):
    """One printed table or figure, or the part of it that has one unit."""

    table: Text
    caption: Text
    unit: Unit
    direction: Direction
    sample: Text
    tolerance: Tolerance
    rows: Annotated[list[RowForm], Field(min_length=1)]
    seeds: PositiveInt | None = None
    test_size: PositiveInt | None = None
    axis: Axis | None = None
    digitisation: PositiveFloat | None = None
    source: str = ""
    metrics: dict[str, str] | str = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)
    deviation: str = ""
    remark: str = ""
    unreproduced: str = ""


@dataclass(kw_only=True)
class PaperForm(Schema):
    """One file."""

    paper: Text
    source: Text
    tables: Annotated[list[TableForm], Field(min_length=1)]
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Mappings that the file itself refers to by YAML anchors; not read from here."""
    deviations: list[StatementForm] = field(default_factory=list)
    """Where the paper says one thing and the runs here do another, wherever one of its numbers is shown."""
    choices: list[ChoiceForm] = field(default_factory=list)


def metrics_of(row: RowForm, table: TableForm) -> dict[str, str]:
    """The names in `results.json` of a row's columns, its table's where it has none of its own."""
    metrics = row.metrics or table.metrics
    if isinstance(metrics, str):
        return {column: metrics.replace("{column}", column) for column in row.values} if metrics else {}
    return metrics


def tolerance_of(row: RowForm, table: TableForm, column: str) -> float | None:
    """The tolerance of one value; a number in doubt is never held against anything."""
    if row.doubt:
        return None
    tolerance = table.tolerance if isinstance(row.tolerance, str) else row.tolerance
    return tolerance.get(column) if isinstance(tolerance, dict) else tolerance


def unreproduced_of(row: RowForm, table: TableForm) -> str:
    """Why no reproduction reaches a row; a row's empty text lifts what its table says."""
    return table.unreproduced if row.unreproduced is None else row.unreproduced


def faults_of(table: TableForm) -> list[str]:
    """What no type can say: names of columns that are not there, curves out of order, metrics without conditions."""
    found = [fault for row in table.rows for fault in _row_faults(row, table)]
    if table.digitisation is not None and table.axis is None and not table.table.startswith("Figure"):
        found.append(f"{table.table}: `digitisation` is for numbers read off a figure")
    columns = {column for row in table.rows for column in row.values}
    if isinstance(table.tolerance, dict) and (unknown := sorted(set(table.tolerance) - columns)):
        found.append(f"{table.table}: tolerance names {', '.join(unknown)}, a column that no row has")
    return found


def _row_faults(row: RowForm, table: TableForm) -> list[str]:
    place = f"{table.table}, {row.row}"
    found = []
    metrics = metrics_of(row, table)
    own = {"metrics": metrics, "spread": row.spread}
    if isinstance(row.tolerance, dict):
        own["tolerance"] = row.tolerance
    for name, columns in own.items():
        if unknown := sorted(set(columns) - set(row.values)):
            found.append(f"{place}: {name} name {', '.join(unknown)}, which values lack")
    tolerance = table.tolerance if isinstance(row.tolerance, str) else row.tolerance
    if isinstance(tolerance, dict) and not row.doubt and (missing := sorted(set(row.values) - set(tolerance))):
        found.append(f"{place}: tolerance lacks {', '.join(missing)}")
    if metrics and not (table.when or row.when):
        found.append(f"{place}: metrics without `when` would apply to every run")
    if table.axis is not None:
        found += [f"{place}: {fault}" for fault in _curve_faults(list(row.values))]
    return found


def _curve_faults(columns: list[str]) -> list[str]:
    try:
        xs = [float(column) for column in columns]
    except ValueError:
        return [f"columns of a table with an axis are numbers, not {', '.join(columns)}"]
    return [] if all(a < b for a, b in pairwise(xs)) else ["points are not in the order of the axis"]
