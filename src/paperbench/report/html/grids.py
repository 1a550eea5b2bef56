"""A table of a report: one content for the page, Markdown and CSV.

A number keeps its exact value beside its rounded text. The page carries it in `data-value`, CSV writes nothing else.
Markdown and CSV are `report.tables`', which knows nothing of a page's units, notes and colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from paperbench.report import tables
from paperbench.report.html.quantities import MISSING

Tone = Literal["", "good", "bad", "warn", "best", "muted"]
"""What a cell's colour says, always beside words or a sign: never the colour alone."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """`name` is unique in its table and heads CSV; `label` heads the page, with `unit` beside it, `hint` explains."""

    name: str
    label: str = ""
    unit: str = ""
    hint: str = ""
    numeric: bool = False
    code: bool = False

    @property
    def heading(self) -> str:
        return self.label or self.name


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`text` is shown; `value` is what sorts, and the exact number of a numeric column; None: there is none.

    `note` stands below it, smaller, in one line or several. `chip` sets the text as a small label.
    """

    text: str = MISSING
    value: float | int | str | None = None
    note: str = ""
    tone: Tone = ""
    chip: bool = False

    @property
    def exact(self) -> str:
        """The value as data: a number in full, as JSON writes it."""
        if self.value is None:
            return ""
        return self.value if isinstance(self.value, str) else repr(self.value)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table. `name` is a slug, unique in its report; the first column heads its rows."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    kind: Literal["grid"] = "grid"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: a row of {len(row)} cells under {len(self.columns)} columns")


def text_cell(text: object, *, tone: Tone = "", note: str = "", chip: bool = False) -> Cell:
    """A cell of words; empty words are a missing cell."""
    words = "" if text is None else str(text)
    return Cell(text=words or MISSING, value=words or None, tone=tone, note=note, chip=chip)


def blank_cell(text: str) -> Cell:
    """A cell of words where having none is nothing to remark upon, such as a unit."""
    return Cell(text=text, value=text or None)


def number_cell(value: float | int | None, text: str | None = None, *, tone: Tone = "", note: str = "") -> Cell:
    """A cell of a number that is shown as `text`."""
    if value is None:
        return Cell(tone="muted", note=note)
    return Cell(text=repr(value) if text is None else text, value=value, tone=tone, note=note)


def to_csv(grid: Grid) -> str:
    """The table with exact values; a missing one is an empty field. Columns are named as in the page's data, with the unit."""
    return tables.as_csv(_table(grid, [column.name for column in grid.columns], grid.rows))


def to_markdown(grid: Grid) -> str:
    """The table as GitHub's Markdown with the rounded texts, under its caption as a heading of the third order."""
    headings = [column.heading for column in grid.columns]
    rows = [
        [replace(cell, text=" · ".join(filter(None, (cell.text, *cell.note.splitlines())))) for cell in row]
        for row in grid.rows
    ]
    body = tables.markdown(_table(grid, headings, rows)).partition("\n\n")[2]
    return f"### {plain(grid.caption)}\n\n{body}"


def plain(text: str) -> str:
    """On one line, and without what Markdown would take for markup."""
    flat = " ".join(text.split())
    for sign in "\\`*_<[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat


def _table(grid: Grid, names: Sequence[str], rows: Sequence[Sequence[Cell]]) -> tables.Table:
    units = [f" ({column.unit})" if column.unit else "" for column in grid.columns]
    return tables.Table(
        title="",
        columns=tuple(
            tables.Column(name=f"{name}{unit}", align="right" if column.numeric else "left")
            for name, unit, column in zip(names, units, grid.columns, strict=True)
        ),
        rows=tuple(tuple(tables.Cell(text=cell.text, value=cell.value) for cell in row) for row in rows),
        notes=(grid.note,) if grid.note else (),
    )
