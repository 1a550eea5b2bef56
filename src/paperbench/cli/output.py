"""Tables and YAML for people: coloured on a terminal, plain text in a pipe."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from paperbench.config.difference import ABSENT
from paperbench.report.tables import Table, Tone, to_text

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def line(text: str = "") -> None:
    """Write one line to stdout."""
    sys.stdout.write(f"{text}\n")


STYLES: Mapping[Tone, str] = {
    "good": "green",
    "bad": "red",
    "warn": "yellow",
    "best": "bold",
    "strong": "bold",
    "muted": "dim",
    "": "",
}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print texts in aligned columns; `-` stands for an empty one."""
    print_table(Table.of_texts(columns, rows))


_LONGEST_WORD = 24
"""Characters of a word that is never broken in a table, but for the names in its first column."""


def folded_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print texts in aligned columns: where a line would pass `page_width`, long texts go on below themselves."""
    kept = [list(columns), *([text or "-" for text in row] for row in rows)]
    by_column = list(zip(*kept, strict=True))
    widths = [max(map(len, column)) for column in by_column]
    # A name that is broken cannot be given to the next command; of other words, long paths alone are.
    longest = [max(len(word) for text in column for word in text.split()) for column in by_column]
    least = [longest[0], *(min(length, _LONGEST_WORD) for length in longest[1:])]
    while sum(widths) + 2 * (len(widths) - 1) > page_width() and widths != least:
        widest = max((k for k, width in enumerate(widths) if width > least[k]), key=widths.__getitem__)
        widths[widest] -= 1
    for row in kept:
        cells = [
            textwrap.wrap(text, width, break_on_hyphens=False) or [""] for text, width in zip(row, widths, strict=True)
        ]
        for texts in zip_longest(*cells, fillvalue=""):
            line("  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip())


def pair_lines(pairs: Iterable[tuple[str, str]]) -> None:
    """Print indented names with texts beside them, folded to `page_width`: long texts go on below themselves."""
    kept = list(pairs)
    indent = 4 + max((len(name) for name, _ in kept), default=0)
    for name, text in kept:
        for part in folded_pair(name, text, indent):
            line(part)


def folded_pair(name: str, text: str, indent: int) -> list[str]:
    """Return the lines of an indented name and a text `indent` characters from the border, folded to `page_width`."""
    return textwrap.wrap(
        text,
        max(page_width(), indent + 30),
        initial_indent=f"  {name}".ljust(indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [f"  {name}"]


def folded_line(text: str, *, indent: int = 2) -> None:
    """Print a text of any length; what does not fit `page_width` goes on below, indented."""
    line(
        textwrap.fill(
            text, page_width(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
    )


def page_width() -> int:
    """Return how many characters a line of a listing takes: the terminal's, 118 in a pipe, 60 at least."""
    return max(60, min(shutil.get_terminal_size((118, 24)).columns, 118))


def print_table(shown: Table) -> None:
    """Print a table: coloured on a terminal, framed if it has a title; in a pipe one row a line."""
    if not sys.stdout.isatty():
        for text in to_text(shown):
            line(text)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(rich_table(shown))
    for note in shown.notes:
        console.print(Text(note, style="dim"))


def rich_table(shown: Table) -> RichTable:
    """Return the table as Rich draws it, without its notes; framed if it has a title."""
    from rich.table import Table as RichTable
    from rich.text import Text

    if shown.title:
        grid = RichTable(title=Text(shown.title, style="bold"), title_justify="left", border_style="cyan")
    else:
        grid = RichTable(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in shown.columns:
        grid.add_column(column.name, justify="right" if column.numeric else "left", overflow="fold")
    for row in shown.rows:
        grid.add_row(*(Text(cell.text if shown.title else cell.text or "-", style=STYLES[cell.tone]) for cell in row))
    return grid


def yaml_text(text: str) -> None:
    """Write YAML to stdout, coloured on a terminal."""
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text.rstrip("\n"), "yaml", theme="ansi_dark", background_color="default", word_wrap=True))


def scalar(value: object) -> str:
    """Return a value as YAML writes it, on one line."""
    import yaml

    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )


def duration(seconds: float) -> str:
    """Return `1:15` for 75, `1:01:15` for 3675, `-` for a time that is not known."""
    if not math.isfinite(seconds) or seconds < 0:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe_changes(changes: list[tuple[str, Any, Any]]) -> list[str]:
    """Return one line of YAML for each change (key, default, value), the default in a comment."""
    lines = []
    for key, before, after in changes:
        if after is ABSENT:
            lines.append(f"# {key}: {scalar(before)}  (by default; no such key here)")
        elif before is ABSENT:
            lines.append(f"{key}: {scalar(after)}  # no such key by default")
        else:
            lines.append(f"{key}: {scalar(after)}  # {scalar(before)} by default")
    return lines
