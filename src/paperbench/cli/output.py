"""Lists and YAML for people: coloured on a terminal, plain text in a pipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from paperbench.config.difference import ABSENT


def line(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(f"{text}\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns. In a pipe, one row a line and no rule between them, so that `grep` and `awk` work on it."""
    listed = [[cell or "-" for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
        for row in listed:
            grid.add_row(*map(Text, row))
        Console(highlight=False).print(grid)
        return
    flat = [[" ".join(cell.split()) for cell in row] for row in listed]
    widths = [max(len(row[i]) for row in [list(columns), *flat]) for i in range(len(columns))]
    for row in [list(columns), *flat]:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def yaml_text(text: str) -> None:
    """YAML, coloured on a terminal."""
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text.rstrip("\n"), "yaml", theme="ansi_dark", background_color="default", word_wrap=True))


def scalar(value: object) -> str:
    """A value as YAML writes it, on one line."""
    import yaml

    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )


def duration(seconds: float) -> str:
    """75 -> `1:15`, 3675 -> `1:01:15`; `-` for a time that is not known."""
    if not math.isfinite(seconds) or seconds < 0:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe_changes(changes: list[tuple[str, Any, Any]]) -> list[str]:
    """One line of YAML for each change (key, default, value), the default in a comment."""
    lines = []
    for key, before, after in changes:
        if after is ABSENT:
            lines.append(f"# {key}: {scalar(before)}  (by default; no such key here)")
        elif before is ABSENT:
            lines.append(f"{key}: {scalar(after)}  # no such key by default")
        else:
            lines.append(f"{key}: {scalar(after)}  # {scalar(before)} by default")
    return lines
