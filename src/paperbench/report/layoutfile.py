"""The form of a file in `conf/reproduce`, and what is said when one does not keep to it. `docs/reproductions.md` explains it.

Reading needs neither Hydra nor torch: a list of all reproductions is quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from paperbench.config.paths import short
from paperbench.config.schema import NonNegativeFloat, PositiveInt, Schema
from paperbench.config.suggest import nearest
from paperbench.config.validate import one_line
from paperbench.errors import ConfigError

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
    deviations: Deviations = field(default_factory=dict)


@dataclass(kw_only=True)
class ComparisonEntry(Schema):
    """A row made of two others: `of` minus `against`, seed by seed."""

    row: Annotated[str, Field(min_length=1)]
    of: str
    against: str
    columns: list[str] = field(default_factory=list)


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
    overrides: Overrides = field(default_factory=dict)
    comparisons: list[ComparisonEntry] = field(default_factory=list)
    deviations: Deviations = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)
    """Conditions besides those of the published numbers that a run must meet to be a reproduction."""
    absent: str = ""
    """What it means where a run that is done lacks a cell's metric, for tables in which that is no mistake."""
    left_to_user: list[str] = field(default_factory=list)
    """Keys whose values only the user can know, such as the place of weights: giving one is no deviation."""


@lru_cache
def _adapter() -> TypeAdapter[LayoutFile]:
    return TypeAdapter(LayoutFile)


def read_file(file: Path) -> LayoutFile:
    """The content of a file. Raises `ConfigError` naming the file and every key that is wrong, with the nearest names."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{short(file)}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{short(file)}: not YAML: {one_line(error)}") from None
    try:
        return _adapter().validate_python(content)
    except ValidationError as error:
        raise ConfigError(
            *dict.fromkeys(f"{short(file)}: {_say(fault, content)}" for fault in error.errors())
        ) from None


# --- wording ----------------------------------------------------------------------------------------------------------

_ENTRIES: Mapping[str, type] = {
    "columns": ColumnEntry,
    "rows": RowEntry,
    "comparisons": ComparisonEntry,
    "scales": ScaleEntry,
    "cost": CostEntry,
    "deviations": DeviationEntry,
}


def _say(fault: Any, content: Any) -> str:
    loc: Sequence[str | int] = fault["loc"]
    where = _place(loc, content)
    kind = fault["type"]
    if kind == "unexpected_keyword_argument":
        near = nearest(str(loc[-1]), known := [item.name for item in fields(_entry(loc[:-1]))])
        return f"{where}: no such key. {'Nearest' if near else 'Keys'}: {', '.join(near or known)}"
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "dataclass_type":
        return f"{where}: expected keys and values, found {type(fault['input']).__name__}"
    if kind == "literal_error" and loc[-1] == "[key]":
        return f"{where}: {fault['input']} is no scale; scales are {', '.join(SCALES)}"
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    return f"{where}: {message}" + ("" if isinstance(fault["input"], dict | list) else f", not {fault['input']!r}")


def _entry(loc: Sequence[str | int]) -> type:
    """The dataclass that the place belongs to."""
    return next((_ENTRIES[name] for name in reversed(loc) if isinstance(name, str) and name in _ENTRIES), LayoutFile)


def _place(loc: Sequence[str | int], content: Any) -> str:
    """`rows.2 (128^2, 1:1).overrides.paper.0`, without the names that pydantic gives to members of a union."""
    parts: list[str] = []
    value = content
    for step in loc:
        if step == "[key]" or (
            isinstance(step, str) and step in ("CostEntry", "literal['not measured']", "DeviationEntry")
        ):
            continue
        if step == "all" and isinstance(value, list):
            continue  # the file has a plain list here
        value = _inside(value, step)
        name = value.get("row") if isinstance(value, Mapping) and isinstance(step, int) else None
        parts.append(f"{step} ({name})" if name else str(step))
    return ".".join(parts) or "the file"


def _inside(value: Any, step: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(step)
    return value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None
