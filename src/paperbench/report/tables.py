"""One table for all readers: aligned text, Markdown and CSV here, a terminal's in `cli.output`, a page's in `html/`.

A number keeps its exact value beside its rounded text: people see the text, CSV and pages hold the value in full.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Value = float | int | str | None
Tone = Literal["", "good", "bad", "warn", "best", "strong", "muted"]
"""The meaning of a cell's colour. Words or a sign always say the same: colour alone tells nothing."""

MISSING = "\u2013"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`text` is for people; `value` is the sort key and the exact value, None where there is none.

    `note` is a remark of one or several lines, smaller below the text. `chip` draws the text as a small label. `href` is the page,
    relative to its own, that a reader of pages goes to from here.
    """

    text: str
    value: Value = None
    note: str = ""
    tone: Tone = ""
    chip: bool = False
    href: str = ""

    @property
    def exact(self) -> str:
        """The value as data: a number in full, as JSON writes it."""
        if self.value is None:
            return ""
        return self.value if isinstance(self.value, str) else repr(self.value)


@dataclass(frozen=True, kw_only=True)
class Column:
    """`name` is unique in its table and heads CSV; `label`, by default the same, heads what people read.

    `unit` stands beside either, `hint` explains. `numeric` columns are aligned on the right; `code` is set in a fixed width.
    """

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
class Table:
    """Rows have as many cells as there are columns; the first column heads its row. `notes` are sentences below the table.

    `name` is a slug, unique in its report; empty where a table stands by itself.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    name: str = ""
    kind: Literal["table"] = "table"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.name or self.title}: a row of {len(row)} cells for {len(self.columns)} columns"
                )

    @classmethod
    def of_texts(cls, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
        """Return a table without title whose cells are plain texts."""
        return cls(
            title="",
            columns=tuple(Column(name=name) for name in columns),
            rows=tuple(tuple(blank_cell(text) for text in row) for row in rows),
        )

    def without_empty_columns(self) -> Table:
        """Return the table without the columns in which no row has any text."""
        filled = [i for i in range(len(self.columns)) if any(row[i].text for row in self.rows)]
        return replace(
            self,
            columns=tuple(self.columns[i] for i in filled),
            rows=tuple(tuple(row[i] for i in filled) for row in self.rows),
        )


# --- cells ------------------------------------------------------------------------------------------------------------


def text_cell(text: object, *, tone: Tone = "", note: str = "", chip: bool = False, href: str = "") -> Cell:
    """Return a cell of words; empty words are a missing cell."""
    words = "" if text is None else str(text)
    return Cell(text=words or MISSING, value=words or None, tone=tone, note=note, chip=chip, href=href)


def blank_cell(text: str, *, tone: Tone = "") -> Cell:
    """Return a cell of words that may be empty, such as a unit."""
    return Cell(text=text, value=text or None, tone=tone)


def number_cell(value: float | int | None, text: str | None = None, *, tone: Tone = "", note: str = "") -> Cell:
    """Return the cell of a number that is shown as `text`; None is a missing cell."""
    if value is None:
        return Cell(text=MISSING, tone="muted", note=note)
    return Cell(text=repr(value) if text is None else text, value=value, tone=tone, note=note)


# --- text -------------------------------------------------------------------------------------------------------------


def to_text(table: Table) -> Iterator[str]:
    """Yield title, aligned columns and notes as lines: one row a line and no rules, so that `grep` and `awk` work on it."""
    if table.title:
        yield table.title
    header = [column.name for column in table.columns]
    yield from aligned([header, *([_flat(cell.text) or "-" for cell in row] for row in table.rows)])
    yield from table.notes


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows of texts as lines whose columns begin below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


# --- Markdown and CSV -------------------------------------------------------------------------------------------------


def to_markdown(table: Table, *, level: int = 1) -> str:
    """Return GitHub's Markdown: the title as a heading of the order `level`, the table, its notes as a list."""
    header = [f"{column.heading}{_unit(column)}" for column in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    rows = ([" · ".join(filter(None, (cell.text, *cell.note.splitlines()))) for cell in row] for row in table.rows)
    lines = [f"{'#' * level} {plain(table.title)}", "", _line(_escaped(header)), _line(rules)]
    lines += [_line(_escaped(row)) for row in rows]
    if table.notes:
        lines += ["", *(f"* {plain(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Return comma-separated values (RFC 4180), one header line; numbers in full, absent values empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([f"{column.name}{_unit(column)}" for column in table.columns])
    writer.writerows(["" if cell.value is None else cell.value for cell in row] for row in table.rows)
    return buffer.getvalue()


def plain(text: str) -> str:
    """Return the text on one line, with what Markdown would take for markup escaped."""
    flat = _flat(text)
    for sign in "\\`*_<[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat


def _unit(column: Column) -> str:
    return f" ({column.unit})" if column.unit else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(cells: Iterable[str]) -> list[str]:
    return [plain(cell).replace("|", "\\|") for cell in cells]


def _flat(text: str) -> str:
    return " ".join(text.split())
