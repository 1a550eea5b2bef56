"""The layouts of reproductions: a published table or figure as a grid of cells, each one number of one run.

`conf/reproduce/<paper>/<table>.yaml` is the source; the user's own `./conf/reproduce` adds to it and shadows it. All mistakes
in a file are reported here with the file's name, except those that only show when its runs are composed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from paperbench.catalog import PAPERS
from paperbench.config.paths import options, search_path, short
from paperbench.config.suggest import nearest
from paperbench.config.yamlfile import read_yaml
from paperbench.errors import ConfigError, DataError
from paperbench.report import published
from paperbench.report.layoutfile import (
    SAME,
    SCALES,
    ColumnEntry,
    ComparisonEntry,
    DeviationEntry,
    LayoutFile,
    RowEntry,
    ScaleEntry,
    ScaleName,
)
from paperbench.report.published import Place, Published

GROUP = "reproduce"
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number: its run, its metric there, and the published number in its place.

    `overrides` are complete except for the seed, with each key once. `samples` is the number of training samples after which
    the metric is read from the run's record. `factor` converts it to the paper's unit.
    """

    row: str
    column: str
    experiment: str
    overrides: tuple[str, ...]
    metric: str
    published: Published | None
    deviations: tuple[DeviationEntry, ...]
    samples: int | None = None
    factor: float = 1.0
    absent: str = ""
    """The meaning of a metric that a run lacks; empty where that is an error."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One file of `conf/reproduce` with the published table it belongs to.

    `table` and `caption` are what it is shown as; `entry.table` is the printed table of its numbers.
    """

    name: str
    file: Path
    paper: str
    table: str
    caption: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    """The rows of runs, then the rows that compare two of them."""
    comparisons: tuple[ComparisonEntry, ...]
    scales: Mapping[ScaleName, ScaleEntry]
    when: Mapping[str, Any]
    entry: LayoutFile

    def scale(self, name: str) -> ScaleEntry:
        """Return seeds and cost at a scale. Raises `ConfigError` where the table has no such scale."""
        for scale, entry in self.scales.items():
            if scale == name:
                return entry
        raise ConfigError(
            f"{self.name}: {short(self.file)} has no scale {name}; it has {', '.join(self.scales)} (--scale NAME)"
        )

    def cells(self, scale: str) -> tuple[Cell, ...]:
        """Return every number that a run makes at `scale`, row by row."""
        return tuple(
            _cell(self, row, name, column, scale)
            for row in self.entry.rows
            for name, column in self.entry.columns.items()
            if (not row.columns or name in row.columns) and _made(row, scale) and _made(column, scale)
        )

    def columns_at(self, scale: str) -> tuple[str, ...]:
        """Return the columns that the table has at `scale`."""
        return tuple(name for name, column in self.entry.columns.items() if _made(column, scale))

    def reached(self) -> frozenset[Place]:
        """Return the places of the published numbers that a cell is for at any scale."""
        return frozenset(cell.published.place for scale in self.scales for cell in self.cells(scale) if cell.published)

    def select(self, scale: str, rows: Sequence[str], columns: Sequence[str]) -> frozenset[tuple[str, str]]:
        """Return row and column of the cells in these rows and columns; empty: in any.

        Raises `ConfigError` with the nearest names for those that no run makes, and where no cell is left.
        """
        places = [(cell.row, cell.column) for cell in self.cells(scale)]
        mistakes: list[str] = []
        for option, index, given in (("--row", 0, rows), ("--column", 1, columns)):
            known = list(dict.fromkeys(place[index] for place in places))
            for name in given:
                if name not in known:
                    near = nearest(name, known)
                    said = f"Nearest: {', '.join(near)}" if near else f"There are: {'; '.join(known)}"
                    mistakes.append(
                        f"{option} {name!r}: {self.name} has none of this name that is made of runs. {said}"
                    )
        found = frozenset(
            (row, column) for row, column in places if (not rows or row in rows) and (not columns or column in columns)
        )
        if not mistakes and not found:
            mistakes.append(f"{self.name} has no number in these rows and columns")
        if mistakes:
            raise ConfigError(*mistakes)
        return found

    def runs(self, scale: str, seeds: int | None = None) -> int:
        """Return an upper bound on the number of runs: overrides that differ may compose to the same configuration."""
        distinct = {(cell.experiment, cell.overrides) for cell in self.cells(scale)}
        return len(distinct) * (seeds or self.scale(scale).seeds)

    def not_reached(self) -> tuple[Published, ...]:
        """Return the numbers of the published table that no cell is for, in printed order."""
        if self.entry.caption or self.table != self.entry.table:
            return ()
        reached = self.reached()
        rows = published.table(self.paper, self.entry.table)
        return tuple(entry for row in rows.values() for entry in row.values() if entry.place not in reached)


def names(folders: Sequence[Path]) -> dict[str, Path]:
    """Return all reproductions, `<paper>/<table>`, with their files; table 2 before table 11."""
    found = options(GROUP, folders)
    return {name: found[name] for name in sorted(found, key=_natural)}


def load(name: str, conf_dir: Path | None = None) -> Layout:
    """Return the reproduction of that name. Raises `ConfigError` with the nearest names, or with every mistake in its file."""
    folders = search_path(conf_dir)
    files = names(folders)
    if name not in files:
        near = _near(name, files)
        known = f"Nearest: {', '.join(near)}" if near else f"There are: {', '.join(files) or 'none'}"
        raise ConfigError(f"{name}: no such reproduction. {known} (paperbench reproduce lists them)")
    return read(name, files[name])


def reached(conf_dir: Path | None = None) -> frozenset[Place]:
    """Return the places of all published numbers for which some reproduction has a cell."""
    layouts = [read(name, file) for name, file in names(search_path(conf_dir)).items()]
    return frozenset(place for layout in layouts for place in layout.reached())


def read(name: str, file: Path) -> Layout:
    """Return the layout of one file. Raises `ConfigError` with every mistake in it."""
    entry = read_yaml(file, LayoutFile)
    mistakes: list[str] = []
    printed = _printed(entry, mistakes)
    mistakes += [] if mistakes else _mistakes(entry)
    if mistakes:
        raise ConfigError(*(f"{short(file)}: {text}" for text in mistakes))
    first = next((value for row in printed.values() for value in row.values()), None)
    layout = Layout(
        name=name,
        file=file,
        paper=entry.paper,
        table=entry.table,
        caption=first.caption if first else entry.caption,
        source=first.source if first else PAPERS[entry.paper].title,
        columns=tuple(entry.columns),
        rows=(*(row.row for row in entry.rows), *(comparison.row for comparison in entry.comparisons)),
        comparisons=tuple(entry.comparisons),
        scales={scale: entry.scales[scale] for scale in SCALES if scale in entry.scales},
        when=entry.when,
        entry=entry,
    )
    cells = layout.cells(next(iter(layout.scales)))  # every cell finds its published number and its metric
    shown = next((cell.published for cell in cells if cell.published is not None), first)
    if shown is not None:
        layout = replace(layout, caption=shown.caption, source=shown.source)
    if entry.shown_as is not None:
        layout = replace(layout, table=entry.shown_as.table or entry.table, caption=entry.shown_as.caption)
    return layout


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers within a name as numbers."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _near(name: str, files: Iterable[str]) -> list[str]:
    """Return the nearest names, also for a name without its paper: `table-8` means `faster-rcnn/table-8`."""
    files = list(files)
    same = [file for file in files if file.partition("/")[2] == name]
    by_table = [file for file in files if nearest(name, [file.partition("/")[2]])] if "/" not in name else []
    of_paper = [file for file in files if file.startswith(f"{name}/")]
    return (of_paper or same or nearest(name, files) or by_table)[:5]


# --- what is wrong with a file ----------------------------------------------------------------------------------------


def _printed(entry: LayoutFile, mistakes: list[str]) -> Mapping[str, Mapping[str, Published]]:
    if entry.paper not in PAPERS:
        near = nearest(entry.paper, PAPERS)
        mistakes.append(
            f"paper: no paper {entry.paper}. {'Nearest' if near else 'Papers'}: {', '.join(near or PAPERS)}"
        )
        return {}
    if entry.caption:
        if entry.table in published.tables(entry.paper):
            mistakes.append(f"caption: conf/paper/{entry.paper}.yaml has {entry.table} with its own; leave it out")
        return {}
    try:
        return published.table(entry.paper, entry.table)
    except DataError as error:
        mistakes.append(f"table: {error}")
        return {}


def _mistakes(entry: LayoutFile) -> list[str]:
    rows = [row.row for row in entry.rows]
    everything = [*rows, *(comparison.row for comparison in entry.comparisons)]
    found = [f"rows: {row} stands there twice" for row in dict.fromkeys(everything) if everything.count(row) > 1]
    parts = {f"rows ({row.row})": row for row in entry.rows}
    parts |= {f"columns.{name}": column for name, column in entry.columns.items()}
    for where, part in parts.items():
        found += [_unknown(f"{where}.scales", name, "scale", entry.scales) for name in part.scales
                  if name not in entry.scales]  # fmt: skip
    for row in entry.rows:
        for key, named in (("columns", row.columns), ("metrics", list(row.metrics))):
            found += [_unknown(f"rows ({row.row}).{key}", name, "column", entry.columns) for name in named
                      if name not in entry.columns]  # fmt: skip
        for name, column in entry.columns.items():
            if not row.columns or name in row.columns:
                found += _cell_mistakes(entry, row, name, column)
    for comparison in entry.comparisons:
        where = f"comparisons ({comparison.row})"
        pair = {"of": comparison.of, "against": comparison.against}
        found += [_unknown(f"{where}.{key}", name, "row", rows) for key, name in pair.items() if name not in rows]
        found += [_unknown(f"{where}.columns", name, "column", entry.columns) for name in comparison.columns
                  if name not in entry.columns]  # fmt: skip
    return list(dict.fromkeys(found))


def _cell_mistakes(entry: LayoutFile, row: RowEntry, name: str, column: ColumnEntry) -> list[str]:
    try:
        number = _published(entry, row, name, column)
    except DataError as error:
        return [f"rows ({row.row}): {error}; `published:` of the row or column names another, null says it prints none"]
    if not _metric(entry, row, name, column, number):
        return [f"rows ({row.row}): column {name} has no metric; give the column, the row or the file one"]
    return []


def _unknown(where: str, name: str, kind: str, known: Iterable[str]) -> str:
    known = list(known)
    near = nearest(name, known)
    return f"{where}: no {kind} {name}. {'Nearest' if near else 'There are'}: {', '.join(near or known)}"


# --- cells ------------------------------------------------------------------------------------------------------------


def _published(entry: LayoutFile, row: RowEntry, name: str, column: ColumnEntry) -> Published | None:
    if row.published is None or column.published is None:
        return None
    return published.find(
        entry.paper,
        entry.table,
        row.row if row.published == SAME else row.published,
        name if column.published == SAME else column.published,
    )


def _metric(entry: LayoutFile, row: RowEntry, name: str, column: ColumnEntry, number: Published | None) -> str:
    printed = number.metric if number is not None else None
    return row.metrics.get(name) or row.metric or column.metric or printed or entry.metric


def _cell(layout: Layout, row: RowEntry, name: str, column: ColumnEntry, scale: str) -> Cell:
    entry = layout.entry
    number = _published(entry, row, name, column)
    layers = [_at_scale(part, scale) for part in (entry.overrides, column.overrides, row.overrides)]
    declared = [_at_scale(part, scale) for part in (entry.deviations, row.deviations)]
    return Cell(
        row=row.row,
        column=name,
        experiment=row.experiment or entry.experiment,
        overrides=merged(*layers, [f"scale={scale}"]),
        metric=_metric(entry, row, name, column, number),
        published=number,
        deviations=tuple(item for part in declared for item in part),
        samples=column.samples,
        factor=column.factor,
        absent=entry.absent,
    )


def _made(part: RowEntry | ColumnEntry, scale: str) -> bool:
    """Return True if the table has this row or column at `scale`."""
    return not part.scales or scale in part.scales


def _at_scale(part: Mapping[Any, Sequence[Item]], scale: str) -> list[Item]:
    """Return the items of a file for all scales, then those for this one."""
    return [*part.get("all", ()), *part.get(scale, ())]


def merged(*layers: Sequence[str]) -> tuple[str, ...]:
    """Merge layers of overrides: of those with the same key, the last holds."""
    last = {override_key(text): text for layer in layers for text in layer}
    return tuple(last.values())


def override_key(text: str) -> str:
    """Return the key that an override sets: `a.b` for `+a.b=1`."""
    return text.partition("=")[0].lstrip("+~")
