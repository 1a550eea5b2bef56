"""Whether every published row is either reached by a reproduction or says why none reaches it.

A row is reached when a file of `conf/reproduce` stands beside any of its columns. A table of several units is several blocks,
and a row counts in each: the seconds of a model may be out of reach while its accuracy is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from paperbench.config.suggest import nearest
from paperbench.report.published import Published

Place = tuple[str, str, str, str]
"""Paper, table, row, column."""


@dataclass(frozen=True)
class Count:
    """What a paper's file holds: numbers, rows (once for each unit), and how many rows a reproduction reaches."""

    numbers: int
    rows: int
    reproduced: int


def counts(entries: Iterable[Published]) -> dict[str, Count]:
    """By paper, in the order of `entries`. A row counts as reached where it gives no reason why it is not."""
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
    """What is wrong between published numbers and the places that reproductions reach, in sentences with file and remedy.

    A row without reason that nothing reaches, a reason on a row that is reached after all, a place that no paper prints.
    """
    entries = list(entries)
    found = [fault for row in _rows(entries).values() for fault in _row_faults(row, reached)]
    places = {_place(entry) for entry in entries}
    return found + [_unknown(place, places) for place in sorted(set(reached) - places)]


def _rows(entries: Iterable[Published]) -> dict[tuple[str, ...], list[Published]]:
    """Rows of blocks: tables that share a name differ in caption."""
    rows: dict[tuple[str, ...], list[Published]] = {}
    for entry in entries:
        rows.setdefault((entry.paper, entry.table, entry.caption, entry.row), []).append(entry)
    return rows


def _row_faults(row: list[Published], reached: Collection[Place]) -> list[str]:
    first = row[0]
    hits = [entry.column for entry in row if _place(entry) in reached]
    where = f"conf/paper/{first.paper}.yaml: {first.table}, {first.row} ({', '.join(entry.column for entry in row)})"
    if hits and first.unreproduced:
        return [f"{where}: conf/reproduce reaches {', '.join(hits)}; take away `unreproduced: {first.unreproduced}`"]
    if not hits and not first.unreproduced:
        return [f"{where}: no file of conf/reproduce reaches it; write one, or say why not in `unreproduced`"]
    return []


def _unknown(place: Place, places: Collection[Place]) -> str:
    paper, table, row, column = place
    near = nearest(" / ".join(place), [" / ".join(known) for known in places if known[0] == paper])
    said = f"nearest: {', '.join(near)}" if near else f"conf/paper/{paper}.yaml prints nothing like it"
    return f"conf/reproduce: {table}, {row}, {column} is not printed by {paper}; {said}"


def _place(entry: Published) -> Place:
    return entry.paper, entry.table, entry.row, entry.column
