"""A neutral table (`report.tables`) on the terminal: coloured by what its cells mean; in a pipe, plain and one row a line."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from paperbench.cli.output import line, table
from paperbench.report.tables import Mark, Table, texts

STYLES: Mapping[Mark, str] = {
    "good": "green",
    "bad": "red",
    "missing": "magenta",
    "muted": "dim",
    "strong": "bold",
    "": "",
}


def print_table(shown: Table) -> None:
    """Title, table and notes on stdout."""
    if not sys.stdout.isatty():
        line(shown.title)
        table(*texts(shown))
        for note in shown.notes:
            line(note)
        return
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False)
    grid = RichTable(title=Text(shown.title, style="bold"), title_justify="left", border_style="cyan")
    for column in shown.columns:
        grid.add_column(column.name, justify=column.align, overflow="fold")
    for row in shown.rows:
        grid.add_row(*(Text(cell.text, style=STYLES[cell.mark]) for cell in row))
    console.print(grid)
    for note in shown.notes:
        console.print(Text(note, style="dim"))
