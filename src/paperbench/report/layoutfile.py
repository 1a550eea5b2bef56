"""The form of a file in `conf/reproduce`, and what is said when one does not keep to it. `docs/reproductions.md` explains it.

Reading needs neither Hydra nor torch: a list of all reproductions is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from paperbench.config.schema import NonNegativeFloat, PositiveInt, Schema

ScaleName = Literal["smoke", "short", "paper"]
SCALES: tuple[ScaleName, ...] = ("smoke", "short", "paper")
SAME = "="
"""`published: "="`, the default: the paper calls the row or column as this file does."""


def _by_scale(value: Any) -> Any:
    """A plain list holds at every scale."""
    return {"all": value} if isinstance(value, list) else value


def _worded(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


@dataclass(kw_only=True)
class DeviationEntry(Schema):
    """What is not as in the paper, in words. With `when`, only for runs whose configuration has these values."""

    text: Annotated[str, Field(min_length=1)]
    when: dict[str, Any] = field(default_factory=dict)
    kind: Literal["data", "settings"] = "settings"
    """`data`: what is measured is something else, and no verdict is given at all."""


_When = Literal["all", "smoke", "short", "paper"]
Overrides = Annotated[dict[_When, list[str]], BeforeValidator(_by_scale)]
Deviations = Annotated[
    dict[_When, list[Annotated[DeviationEntry, BeforeValidator(_worded)]]], BeforeValidator(_by_scale)
]


@dataclass(kw_only=True)
class CostEntry(Schema):
    """What one run takes, in seconds, on which machine. Only what was measured is written here."""

    seconds: NonNegativeFloat
    machine: Annotated[str, Field(min_length=1)]


@dataclass(kw_only=True)
class ScaleEntry(Schema):
    """How a table is made at one scale."""

    seeds: PositiveInt = 1
    cost: CostEntry | Literal["not measured"] = "not measured"


@dataclass(kw_only=True)
class ColumnEntry(Schema):
    """One column: what is measured, and which column of the paper it stands beside."""

    metric: str = ""
    """Name in `results.json`; empty: that of the row, of the published number, or of the file."""
    published: str | None = SAME
    overrides: Overrides = field(default_factory=dict)
    samples: PositiveInt | None = None
    """Read the metric from the run's record when this many training samples had been seen, not at its end."""
    factor: float = 1.0
    """From the metric's unit to the paper's: 1000 for seconds beside milliseconds."""
    scales: list[ScaleName] = field(default_factory=list)
    """The scales at which the column is made; empty: all of the table's."""


@dataclass(kw_only=True)
class RowEntry(Schema):
    """One row: what is set, and which row of the paper it stands beside."""

    row: Annotated[str, Field(min_length=1)]
    published: str | None = SAME
    experiment: str = ""
    overrides: Overrides = field(default_factory=dict)
    metric: str = ""
    metrics: dict[str, str] = field(default_factory=dict)
    """Metric by column, where the row's differ."""
    columns: list[str] = field(default_factory=list)
    """The columns that this row has; empty: all."""
    scales: list[ScaleName] = field(default_factory=list)
    """The scales at which the row is made; empty: all of the table's."""
    deviations: Deviations = field(default_factory=dict)


@dataclass(kw_only=True)
class ComparisonEntry(Schema):
    """A row made of two others: `of` minus `against`, seed by seed."""

    row: Annotated[str, Field(min_length=1)]
    of: str
    against: str
    columns: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class ShownAs(Schema):
    """What a file makes where that is more than the printed table of its numbers, such as a figure of pictures."""

    caption: Annotated[str, Field(min_length=1)]
    table: str = ""
    """The figure or table it is; empty: that of the numbers."""


@dataclass(kw_only=True)
class LayoutFile(Schema):
    """One file."""

    paper: str
    table: str
    experiment: str
    columns: Annotated[dict[str, ColumnEntry], Field(min_length=1)]
    rows: Annotated[list[RowEntry], Field(min_length=1)]
    scales: Annotated[dict[ScaleName, ScaleEntry], Field(min_length=1)]
    metric: str = ""
    caption: str = ""
    """What the table shows, where the paper draws curves and prints no number: then `conf/paper` has nothing of it, and every
    row says `published: null`."""
    shown_as: ShownAs | None = None
    overrides: Overrides = field(default_factory=dict)
    comparisons: list[ComparisonEntry] = field(default_factory=list)
    deviations: Deviations = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)
    """Conditions besides those of the published numbers that a run must meet to be a reproduction."""
    absent: str = ""
    """What it means where a run that is done lacks a cell's metric, for tables in which that is no mistake."""
    left_to_user: list[str] = field(default_factory=list)
    """Keys whose values only the user can know, such as the place of weights: giving one is no deviation."""
