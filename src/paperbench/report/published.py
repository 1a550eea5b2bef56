"""What the papers printed: the tables of `conf/paper/<name>.yaml` as rows that a run can be held against.

The files are data with provenance. Nothing here computes; a row applies to a run when every condition in its `when`
holds of the run's resolved configuration, and to no other run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from paperbench.config.paths import shipped_conf
from paperbench.config.schema import STRICT, NonNegativeFloat
from paperbench.errors import DataError

Direction = Literal["higher", "lower", "same"]
Unit = Literal["percent", "ms", "s", "fps", "pixels", "nats", "count", "fraction"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """One printed number.

    `value` is in `unit`; `direction` says which way is better (`same`: neither); `sample` what was measured on how
    much. `tolerance`, in the same unit, is how far a repetition may lie from it and still agree; it is stated with the
    number, before anything is measured. None: the number depends on a machine or a model that is out of reach. `metric`
    is the name in `results.json` that measures the same thing, None where nothing here does; `when` maps dotted keys of
    the configuration to the values under which it does. `note` says what differs even then.
    """

    paper: str
    table: str
    caption: str
    row: str
    column: str
    value: float
    unit: Unit
    direction: Direction
    sample: str
    tolerance: float | None
    source: str
    metric: str | None
    when: Mapping[str, Any]
    note: str

    def agrees(self, measured: float) -> bool | None:
        """Whether `measured` lies within the tolerance; None where there is none."""
        # A printed 69.9 stands for 69.85 to 69.95, and floats are not decimals: a hair of slack decides ties for
        # agreement.
        return None if self.tolerance is None else abs(measured - self.value) <= self.tolerance + 1e-9


def matching(config: Mapping[str, Any]) -> list[Published]:
    """The published numbers that apply to a run with this resolved configuration (nested mappings, as in
    `config.yaml`).

    At most one per metric, the first that is printed. Raises `DataError` when a file of published numbers is faulty.
    """
    found: dict[str, Published] = {}
    for entry in all_published():
        if entry.metric is not None and _holds(entry.when, config):
            found.setdefault(entry.metric, entry)
    return list(found.values())


@cache
def all_published() -> tuple[Published, ...]:
    """Every number of every file in `conf/paper`, in the order of files, tables, rows and columns."""
    files = sorted((shipped_conf() / "paper").glob("*.yaml"))
    return tuple(entry for path in files for entry in read(path))


def read(path: Path) -> list[Published]:
    """The numbers of one file. Raises `DataError` naming the file and every fault: an unknown key, a value of the wrong
    type, the same table, row and column twice, a metric for a column that is not there or without conditions."""
    try:
        paper = TypeAdapter(_Paper).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise DataError("\n".join(f"{path}: {fault}" for fault in faults)) from error
    entries = [entry for table in paper.tables for row in table.rows for entry in _expand(path, paper, table, row)]
    seen: set[tuple[str, str, str]] = set()
    for entry in entries:
        place = (entry.table, entry.row, entry.column)
        if place in seen:
            raise DataError(f"{path}: {', '.join(place)} stands there twice")
        seen.add(place)
    return entries


def _expand(path: Path, paper: _Paper, table: _Table, row: _Row) -> list[Published]:
    metrics = row.metrics or table.metrics
    when = {**table.when, **row.when} if metrics else {}
    unknown = sorted(set(metrics) - set(row.values))
    if unknown:
        raise DataError(f"{path}: {table.table}, {row.row}: metrics name {', '.join(unknown)}, which values lack")
    if metrics and not when:
        raise DataError(f"{path}: {table.table}, {row.row}: metrics without `when` would apply to every run")
    return [
        Published(
            paper=paper.paper,
            table=table.table,
            caption=table.caption,
            row=row.row,
            column=column,
            value=value,
            unit=table.unit,
            direction=table.direction,
            sample=table.sample,
            tolerance=table.tolerance,
            source=table.source or paper.source,
            metric=metrics.get(column),
            when=when if column in metrics else {},
            note=row.note,
        )
        for column, value in row.values.items()
    ]


# --- conditions -------------------------------------------------------------------------------------------------------


def _holds(when: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    return all(_same(expected, _lookup(config, key)) for key, expected in when.items())


_ABSENT = object()


def _lookup(config: Mapping[str, Any], dotted: str) -> Any:
    value: Any = config
    for key in dotted.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _same(expected: Any, actual: Any) -> bool:
    """Equality in which 1 equals 1.0 and lists equal tuples, but a year "2007" no number and True no 1."""
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(actual, Sequence) or isinstance(actual, str):
            return False
        return len(expected) == len(actual) and all(map(_same, expected, actual))
    return isinstance(expected, bool) == isinstance(actual, bool) and expected == actual


# --- the file's form --------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Row:
    __pydantic_config__ = STRICT

    row: str
    values: dict[str, float]
    metrics: dict[str, str] = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(kw_only=True)
class _Table:
    __pydantic_config__ = STRICT

    table: str
    caption: str
    unit: Unit
    direction: Direction
    sample: str
    tolerance: NonNegativeFloat | None
    rows: list[_Row]
    source: str = ""
    metrics: dict[str, str] = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Paper:
    __pydantic_config__ = STRICT

    paper: str
    source: str
    tables: list[_Table]
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Mappings that the file itself refers to by YAML anchors; not read from here."""
