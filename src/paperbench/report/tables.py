"""One table, three ways to write it: aligned text, Markdown, CSV. What it is about is no business of this module."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Value = float | int | str | None
Mark = Literal["", "good", "bad", "missing", "muted", "strong"]
"""What a cell means, for whoever draws it in colours."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`text` is for people, `value` what to sort by and what CSV holds: a number in full, never rounded."""

    text: str
    value: Value = None
    mark: Mark = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """`align` is where the cells' text stands; numbers belong on the right."""

    name: str
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows have as many cells as there are columns. `notes` are sentences that belong below the table."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: a row of {len(row)} cells for {len(self.columns)} columns")

    def without_empty_columns(self) -> Table:
        """The same without the columns in which no row has any text."""
        kept = [i for i in range(len(self.columns)) if any(row[i].text for row in self.rows)]
        return Table(
            title=self.title,
            columns=tuple(self.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in self.rows),
            notes=self.notes,
        )


def text_cell(text: str, mark: Mark = "") -> Cell:
    """A cell that sorts by what it says."""
    return Cell(text=text, value=text or None, mark=mark)


def texts(table: Table) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and the text of every cell."""
    return [column.name for column in table.columns], [[cell.text for cell in row] for row in table.rows]


def markdown(table: Table) -> str:
    """GitHub's Markdown: title, table, notes as a list."""
    rules = ["---:" if column.align == "right" else "---" for column in table.columns]
    header, rows = texts(table)
    lines = [
        f"# {_safe(table.title)}",
        "",
        _line(_escaped(header)),
        _line(rules),
        *(_line(_escaped(row)) for row in rows),
    ]
    if table.notes:
        lines += ["", *(f"* {_safe(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def as_csv(table: Table) -> str:
    """Comma-separated values (RFC 4180), one header line; numbers in full, absent values empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows(["" if cell.value is None else cell.value for cell in row] for row in table.rows)
    return buffer.getvalue()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(cells: Iterable[str]) -> list[str]:
    return [_safe(cell).replace("|", "\\|") for cell in cells]


def _safe(text: str) -> str:
    """On one line, and without what Markdown would take for emphasis or HTML."""
    flat = " ".join(text.split())
    for sign in "\\`*_<":
        flat = flat.replace(sign, f"\\{sign}")
    return flat
