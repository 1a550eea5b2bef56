"""Published and measured numbers as drawings: curves where the columns are numbers, dots on one scale otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paperbench.report.pages.charts import TONES, Chart, Line, spans_decades
from paperbench.report.pages.dotplot import DotPlot, Dots, legible
from paperbench.report.pages.page import Block, Charts
from paperbench.report.pages.reproduction_cells import Document, Hand
from paperbench.report.verdict import Verdict

_MOST_DOTS = 24
_FEWEST_FOR_A_CURVE = 3


def figures(document: Document, hand: Hand) -> list[Block | None]:
    """Curves over the columns where all of them are numbers, such as how much was trained; a dot plot a column otherwise."""
    names = [str(name) for name in document["columns"]]
    positions = {name: position for name in names if (position := _position(name)) is not None}
    if len(names) >= _FEWEST_FOR_A_CURVE and len(positions) == len(names):
        chart = _curves(document, positions, hand)
        return [None if chart is None else Charts(charts=(chart,))]
    plots = [plot for name in names if (plot := _dots(document, name, hand)) is not None]
    return [Charts(charts=tuple(plots), key=True) if plots else None]


def _measured_rows(document: Document) -> list[Document]:
    """The rows that are no differences of others."""
    return [row for row in document["rows"] if row.get("kind") != "comparison"]


# --- dots -------------------------------------------------------------------------------------------------------------


def _dots(document: Document, column: str, hand: Hand) -> DotPlot | None:
    """None where there is nothing to hold against each other, or no scale on which one could see it."""
    cells = [(str(row["row"]), row["cells"][column]) for row in _measured_rows(document) if column in row["cells"]]
    cells = [(row, cell) for row, cell in cells if cell.get("published") or cell.get("mean") is not None]
    shown = cells[:_MOST_DOTS]
    units = {hand.unit(cell) for _, cell in shown}
    rows = [_dot_row(row, cell) for row, cell in shown]
    both = any(row.published is not None for row in rows) and any(row.mean is not None for row in rows)
    if not both or len(units) > 1 or not legible(rows):
        return None
    more = len(cells) - len(shown)
    note = f"{more} more rows in the table." if more else ""
    return DotPlot(title=column, unit=units.pop(), rows=tuple(rows), note=note)


def _dot_row(row: str, cell: Document) -> Dots:
    published = cell.get("published") or {}
    interval = cell.get("interval")
    return Dots(
        label=row,
        published=published.get("value"),
        tolerance=published.get("tolerance"),
        values=tuple(entry["value"] for entry in cell.get("values") or ()),
        mean=cell.get("mean"),
        interval=(interval[0], interval[1]) if interval else None,
        comparable=cell.get("verdict") != Verdict.NOT_COMPARABLE,
    )


# --- curves -----------------------------------------------------------------------------------------------------------


def _position(name: str) -> float | None:
    """`1e6`, `10,000` or `2.5e8 samples` as a number; None for a name that is none."""
    try:
        return float(name.split()[0].replace(",", "")) if name.split() else None
    except ValueError:
        return None


def _curves(document: Document, positions: Mapping[str, float], hand: Hand) -> Chart | None:
    """Each row as a curve over the columns: the paper's dashed, ours as dots with their interval."""
    rows = _measured_rows(document)
    lines = [line for tone, row in enumerate(rows[:TONES]) for line in _row_lines(row, positions, tone)]
    if not lines:
        return None
    words = {name.partition(" ")[2] for name in positions}
    units = {hand.unit(cell) for row in rows for cell in row["cells"].values()}
    more = f" {len(rows) - TONES} more rows in the table." if len(rows) > TONES else ""
    return Chart(
        title=str(document.get("table") or "figure"),
        x_label=words.pop() if len(words) == 1 and "" not in words else "column of the table",
        unit=units.pop() if len(units) == 1 else "",
        lines=tuple(lines),
        log_x=spans_decades(list(positions.values()), times=50),
        note=f"Dashed: the paper's. Dots: measured here, with the interval over seeds.{more}",
        width=640,
        height=340,
    )


def _row_lines(row: Document, positions: Mapping[str, float], tone: int) -> list[Line]:
    ordered = sorted(positions.items(), key=lambda item: item[1])
    cells = [(x, row["cells"][name]) for name, x in ordered if name in row["cells"]]
    paper = [(x, cell["published"]["value"]) for x, cell in cells if cell.get("published")]
    ours = [(x, cell) for x, cell in cells if cell.get("mean") is not None]
    lines = []
    if paper:
        x, y = _columns(paper)
        lines.append(Line(label=f"{row['row']}, paper", x=x, y=y, tone=tone, stroke="dashed"))
    if ours:
        x, y = _columns([(position, cell["mean"]) for position, cell in ours])
        low, high = _columns([cell.get("interval") or (cell["mean"], cell["mean"]) for _, cell in ours])
        lines.append(Line(label=f"{row['row']}, here", x=x, y=y, low=low, high=high, tone=tone, stroke="marks"))
    return lines


def _columns(pairs: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Two (N,) arrays from N pairs."""
    both = np.array(pairs, np.float64)
    return both[:, 0], both[:, 1]
