"""Coverage of the published rows by reproductions: a row is reproduced, or its file states why it is not.

A row is reproduced when a file of `conf/reproduce` has a cell for any of its columns. A table of several units is several
blocks, and a row counts in each: a model's accuracy may be reproducible while its seconds are not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from paperbench.config.suggest import nearest
from paperbench.report.published import Place, Published


@dataclass(frozen=True)
class Count:
    """The size of a paper's file: numbers, rows (once for each unit), and the rows that a reproduction reaches."""

    numbers: int
    rows: int
    reproduced: int


def counts(entries: Iterable[Published]) -> dict[str, Count]:
    """Return the counts by paper, in the order of `entries`. A row without `unreproduced` counts as reproduced."""
    entries = list(entries)
    rows = list(_rows(entries).values())
    return {
        paper: Count(
            numbers=sum(entry.paper == paper for entry in entries),
            rows=sum(row[0].paper == paper for row in rows),
            reproduced=sum(row[0].paper == paper and not row[0].unreproduced for row in rows),
        )
        for paper in dict.fromkeys(entry.paper for entry in entries)
    }


def faults(entries: Iterable[Published], reached: Collection[Place]) -> list[str]:
    """Return contradictions between published numbers and the places that reproductions reach, with file and remedy.

    They are: a row that nothing reaches and that states no reason, a reason on a row that is reached, a place that no paper
    prints.
    """
    entries = list(entries)
    found = [fault for row in _rows(entries).values() for fault in _row_faults(row, reached)]
    places = {entry.place for entry in entries}
    return found + [_unknown(place, places) for place in sorted(set(reached) - places)]


def _rows(entries: Iterable[Published]) -> dict[tuple[str, ...], list[Published]]:
    """Group entries by rows of blocks: tables that share a name differ in caption."""
    rows: dict[tuple[str, ...], list[Published]] = {}
    for entry in entries:
        rows.setdefault((entry.paper, entry.table, entry.caption, entry.row), []).append(entry)
    return rows


def _row_faults(row: list[Published], reached: Collection[Place]) -> list[str]:
    first = row[0]
    columns = [entry.column for entry in row if entry.place in reached]
    where = f"conf/paper/{first.paper}.yaml: {first.table}, {first.row} ({', '.join(entry.column for entry in row)})"
    if columns and first.unreproduced:
        return [f"{where}: conf/reproduce reaches {', '.join(columns)}; take away `unreproduced: {first.unreproduced}`"]
    if not columns and not first.unreproduced:
        return [f"{where}: no file of conf/reproduce reaches it; write one, or say why not in `unreproduced`"]
    return []


def _unknown(place: Place, places: Collection[Place]) -> str:
    paper, table, row, column = place
    near = nearest(" / ".join(place), [" / ".join(known) for known in places if known[0] == paper])
    remedy = f"nearest: {', '.join(near)}" if near else f"conf/paper/{paper}.yaml has nothing like it"
    return f"conf/reproduce: {table}, {row}, {column} is not printed by {paper}; {remedy}"
