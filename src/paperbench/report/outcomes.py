"""How the published numbers stand: each once, by the class of its verdict in the tables that were made at the paper's schedule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from paperbench.config.paths import shipped_conf
from paperbench.report.layout import names, read
from paperbench.report.reproduction_document import Document, verdict_of
from paperbench.report.results import run_cells
from paperbench.report.verdict import Verdict

SCALE = "paper"
NOT_MADE = "not made"
OUTCOMES: Mapping[str, tuple[str, ...]] = {
    "within tolerance": (Verdict.WITHIN,),
    "outside": (Verdict.BETTER, Verdict.WORSE, Verdict.OUTSIDE),
    "no tolerance stated": (Verdict.NO_TOLERANCE,),
    "other settings": (
        Verdict.WITHIN_OTHER_SETTINGS, Verdict.OUTSIDE_OTHER_SETTINGS, Verdict.NO_TOLERANCE_OTHER_SETTINGS,
    ),
    "not comparable": (Verdict.NOT_COMPARABLE,),
    NOT_MADE: (Verdict.MISSING,),
}  # fmt: skip


class PublishedNumber(NamedTuple):
    """A published number that a table of the program stands beside, and the class of its verdict."""

    paper: str
    table: str
    row: str
    column: str
    outcome: str


def outcome_of(verdict: str) -> str:
    """Return the class of a verdict."""
    return next(name for name, verdicts in OUTCOMES.items() if verdict in verdicts)


def published_numbers(made: Iterable[tuple[str, Document]]) -> list[PublishedNumber]:
    """Return every published number of the shipped tables with its outcome, once a cell.

    made: names and documents of tables at the paper's scale; where several have measured a number, the first one counts.
    """
    cells: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for name, document in made:
        for row, column, cell in run_cells(document):
            if cell["n"] or (name, row, column) not in cells:
                known = cells.get((name, row, column))
                if known is None or not known["n"]:
                    cells[name, row, column] = cell
    return list(_numbers(cells))


def _numbers(made: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> Iterator[PublishedNumber]:
    for name, file in names((shipped_conf(),)).items():
        layout = read(name, file)
        if SCALE not in layout.scales:
            continue
        for cell in layout.cells(SCALE):
            if cell.published is not None:
                found = made.get((name, cell.row, cell.column))
                outcome = outcome_of(verdict_of(found)) if found is not None else NOT_MADE
                yield PublishedNumber(layout.paper, name, cell.row, cell.column, outcome)


def count_in_words(found: Sequence[PublishedNumber]) -> str:
    """Return `Of the 980 published numbers …: 3 within tolerance, …`."""
    counts = Counter(number.outcome for number in found)
    return (
        f"Of the {len(found):,} published numbers that a table here stands beside, made at the paper's schedule: "
        f"{counts['within tolerance']} within tolerance, {counts['outside']} outside, "
        f"{counts['no tolerance stated']} without a stated tolerance, {counts['other settings']} with other settings than "
        f"the paper's, {counts['not comparable']} not comparable; "
        f"{counts[NOT_MADE]:,} not made yet."
    )
