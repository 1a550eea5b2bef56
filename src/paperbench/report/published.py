"""The published numbers: the tables of `conf/paper/<name>.yaml` as rows with which a run can be compared.

The files are data with provenance. A row applies to a run when every condition in its `when` holds of the run's resolved
configuration, and to no other run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from paperbench.catalog import packages
from paperbench.config.paths import installed_confs, options, shipped_conf
from paperbench.config.suggest import nearest
from paperbench.config.yamlfile import read_yaml
from paperbench.errors import ConfigError, DataError
from paperbench.report.published_form import (
    Axis,
    ChoiceForm,
    Direction,
    PaperForm,
    RowForm,
    StatementForm,
    TableForm,
    Unit,
    faults_of,
    metrics_of,
    tolerance_of,
    unreproduced_of,
)

Place = tuple[str, str, str, str]
"""Paper, table, row, column."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One printed number.

    `value` is in `unit`; `direction` says which way is better (`same`: neither); `sample` what was measured on how
    much, with `seeds` runs and `test_size` test items where the paper says so (None: it does not, or not one number).
    `tolerance`, in the same unit, is how far a repetition may lie from it and still agree; it is stated with the
    number, before anything is measured. None: the number depends on a machine or a model that is out of reach. `metric`
    is the name in `results.json` that measures the same thing, None where nothing here does; `when` maps dotted keys of
    the configuration to the values under which it does. `deviation` says what differs even then, `remark` what a reader should
    know of the print.

    `spread` is a standard deviation that the paper prints beside the number. On a curve `axis` is the horizontal axis
    and `x` this point's place on it; `digitisation` is how far, in `unit`, the reading may lie from what was drawn.
    `doubt` says why the number itself may not be what the paper printed; such a number has no tolerance.
    `unreproduced` says why no file of `conf/reproduce` reaches the row, and is empty for those that one reaches.
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
    deviation: str = ""
    remark: str = ""
    seeds: int | None = None
    test_size: int | None = None
    spread: float | None = None
    axis: Axis | None = None
    x: float | None = None
    digitisation: float | None = None
    doubt: str = ""
    unreproduced: str = ""

    @property
    def place(self) -> Place:
        """Where the number is printed."""
        return self.paper, self.table, self.row, self.column

    def agrees(self, measured: float) -> bool | None:
        """Return True where `measured` lies within the tolerance, False where not, None without a tolerance."""
        # A printed 69.9 stands for 69.85 to 69.95, and floats are not decimals: a hair of slack decides ties for
        # agreement.
        return None if self.tolerance is None else abs(measured - self.value) <= self.tolerance + 1e-9


class PaperStatements(NamedTuple):
    """What a paper's file says of all runs that stand beside its numbers."""

    deviations: tuple[StatementForm, ...] = ()
    choices: tuple[ChoiceForm, ...] = ()


class Curve(NamedTuple):
    """A published curve: `xs` ascending, `ys` in the unit of its points, `error` of the reading in that unit or None."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    error: float | None


# --- looking up -------------------------------------------------------------------------------------------------------


def matching(config: Mapping[str, Any]) -> list[Published]:
    """Return the published numbers that apply to a run with this resolved configuration (nested mappings, as in
    `config.yaml`).

    At most one per metric, the first that is printed; of a curve, the point where the run ended. Raises `DataError` when a
    file of published numbers is faulty.
    """
    found: dict[str, Published] = {}
    for entry in all_published():
        if entry.metric is not None and _holds(entry.when, config) and _ends_at(entry, config):
            found.setdefault(entry.metric, entry)
    return list(found.values())


def find(paper: str, table: str, row: str, column: str | float) -> Published:
    """Return the number that `paper` prints there. A column of a curve may be given as a number or in any spelling of it.

    Raises `DataError` with the nearest names where there is no such paper, table, row or column.
    """
    columns = _index(paper, table, row)
    name = str(column)
    if name in columns:
        return columns[name]
    at = _number(column)
    for entry in columns.values():
        if entry.x is not None and entry.x == at:
            return entry
    raise DataError(_absent(f"{_file(paper)}: {table}, {row}", "column", name, columns))


def curve(paper: str, figure: str, row: str) -> Curve:
    """Return a curve of a figure, to be drawn or interpolated. Raises `DataError` where `find` would, and for a row that is
    no curve."""
    points = list(_index(paper, figure, row).values())
    xs = tuple(point.x for point in points if point.x is not None)
    if len(xs) != len(points):
        raise DataError(f"{_file(paper)}: {figure}, {row} is a row of a table, not a curve: its table has no axis")
    return Curve(xs, tuple(point.value for point in points), points[0].digitisation)


def table(paper: str, name: str) -> dict[str, dict[str, Published]]:
    """Return the rows of a table or figure, each by its columns, in printed order. Raises `DataError` as `find`."""
    tables = _tables(paper)
    if name not in tables:
        raise DataError(_absent(_file(paper), "table", name, tables))
    return tables[name]


def tables(paper: str) -> list[str]:
    """Return the names of a paper's tables and figures, in order. Raises `DataError` for an unknown paper."""
    return list(_tables(paper))


@cache
def statements(paper: str) -> PaperStatements:
    """Return the deviations and choices that hold for a paper's runs. None for a paper that has no file."""
    file = _files().get(paper)
    if file is None:
        return PaperStatements()
    form = _form(file)
    return PaperStatements(tuple(form.deviations), tuple(form.choices))


@cache
def all_published() -> tuple[Published, ...]:
    """Return every number of every file in `conf/paper`, in the order of files, tables, rows and columns.

    A file of an installed package that cannot be read is left out (`notices`).
    """
    return tuple(entry for entries in _readable()[0].values() for entry in entries)


def notices() -> tuple[str, ...]:
    """Return what is wrong with the published numbers of installed packages, a sentence for each file that is left out."""
    return _readable()[1]


@cache
def _readable() -> tuple[dict[str, list[Published]], tuple[str, ...]]:
    """Read every file; a faulty one of an installed package is left out with a notice, one of the program is an error."""
    entries: dict[str, list[Published]] = {}
    left_out: list[str] = []
    for name, path in _files().items():
        try:
            entries[name] = read(path)
        except DataError as error:
            if path.is_relative_to(shipped_conf()):
                raise
            package = next((item for item in packages() if item.conf and path.is_relative_to(item.conf)), None)
            owner = f"package {package.package.name} ({package.source})" if package else "an installed package"
            left_out.append(f"published numbers of {owner} are left out: {error}")
    return entries, tuple(left_out)


def _index(paper: str, name: str, row: str) -> dict[str, Published]:
    rows = table(paper, name)
    if row not in rows:
        raise DataError(_absent(f"{_file(paper)}: {name}", "row", row, rows))
    return rows[row]


@cache
def _tables(paper: str) -> dict[str, dict[str, dict[str, Published]]]:
    files = _files()
    if paper not in files:
        raise DataError(_absent("conf/paper", "paper", paper, files))
    found: dict[str, dict[str, dict[str, Published]]] = {}
    for entry in read(files[paper]):
        found.setdefault(entry.table, {}).setdefault(entry.row, {})[entry.column] = entry
    return found


def _files() -> dict[str, Path]:
    """The file of each paper, by its name: the program's, and those of installed packages."""
    return options("paper", installed_confs())


def _file(paper: str) -> str:
    return f"conf/paper/{paper}.yaml"


_MOST_NAMES = 12


def _absent(where: str, kind: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = nearest(name, known)
    if near:
        return f"{where} has no {kind} {name!r}; nearest: {', '.join(map(repr, near))}"
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return f"{where} has no {kind} {name!r}; it has {', '.join(map(repr, known[:_MOST_NAMES]))}{more}"


def _number(column: str | float) -> float | None:
    try:
        return float(column)
    except ValueError:
        return None


# --- reading ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Published]:
    """Return the numbers of one file. Raises `DataError` with the file and every fault: an unknown key, a value of the wrong
    type, the same table, row and column twice, a metric for a column that is not there or without conditions, a curve
    whose points are no numbers or not in order."""
    paper = _form(path)
    faults = [fault for part in paper.tables for fault in faults_of(part)]
    entries = [] if faults else [e for part in paper.tables for row in part.rows for e in _expand(paper, part, row)]
    faults += _repeated(entries)
    if faults:
        raise DataError("\n".join(f"{path}: {fault}" for fault in faults))
    return entries


def _form(path: Path) -> PaperForm:
    try:
        return read_yaml(path, PaperForm)
    except ConfigError as error:
        raise DataError("\n".join(error.mistakes)) from error


def _repeated(entries: Sequence[Published]) -> list[str]:
    seen: set[tuple[str, str, str]] = set()
    faults = []
    for entry in entries:
        place = (entry.table, entry.row, entry.column)
        if place in seen:
            faults.append(f"{', '.join(place)} stands there twice")
        seen.add(place)
    return faults


def _expand(paper: PaperForm, table: TableForm, row: RowForm) -> list[Published]:
    metrics = metrics_of(row, table)
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
            tolerance=tolerance_of(row, table, column),
            source=table.source or paper.source,
            metric=metrics.get(column),
            when={**table.when, **row.when} if column in metrics else {},
            deviation=row.deviation or table.deviation,
            remark=row.remark or table.remark,
            seeds=table.seeds,
            test_size=table.test_size,
            spread=row.spread.get(column),
            axis=table.axis,
            x=None if table.axis is None else float(column),
            digitisation=table.digitisation,
            doubt=row.doubt,
            unreproduced=unreproduced_of(row, table),
        )
        for column, value in row.values.items()
    ]


# --- conditions -------------------------------------------------------------------------------------------------------


def _holds(when: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    return all(holds(expected, config, key) for key, expected in when.items())


def holds(expected: Any, config: Mapping[str, Any], key: str) -> bool:
    """Return whether a key has the value; an empty list also stands for a key that is absent, as those are that came later and
    have their default (`config.marks.ABSENT_BY_DEFAULT`)."""
    actual = _lookup(config, key)
    return equal(expected, actual) or (expected == [] and actual is _ABSENT)


def _ends_at(entry: Published, config: Mapping[str, Any]) -> bool:
    """Return whether the run ends where the number was read. This is no part of `when`: a longer run passes that place too,
    and its record has the number."""
    return entry.axis is None or (bool(entry.axis.key) and equal(entry.x, _lookup(config, entry.axis.key)))


_ABSENT = object()


def _lookup(config: Mapping[str, Any], dotted: str) -> Any:
    value: Any = config
    for key in dotted.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def equal(expected: Any, actual: Any) -> bool:
    """Compare values such that 1 equals 1.0 and lists equal tuples, but text equals no number and True not 1."""
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(actual, Sequence) or isinstance(actual, str):
            return False
        return len(expected) == len(actual) and all(map(equal, expected, actual))
    return isinstance(expected, bool) == isinstance(actual, bool) and expected == actual
