"""Published and measured numbers as drawings: curves where the columns are numbers, dots on one scale otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from paperbench.errors import DataError
from paperbench.report import published
from paperbench.report.html.axes import Floats
from paperbench.report.html.charts import Chart, Line, spans_decades
from paperbench.report.html.dotplot import DotPlot, Dots, legible
from paperbench.report.html.page import Block, Charts
from paperbench.report.published import Published
from paperbench.report.reproduction_document import Document
from paperbench.report.verdict import Verdict

UnitOf = Callable[[Document], str]
"""Returns the unit in which a cell is shown."""

_MOST_DOTS = 24
_FEWEST_FOR_A_CURVE = 3
_ROWS_OF_A_CHART = 4
"""A figure of more rows becomes several charts: each row is two curves, the paper's and ours."""


def figures(document: Document, unit_of: UnitOf) -> list[Block | None]:
    """Curves for what the paper draws as curves, or where all columns are numbers; a dot plot a column otherwise."""
    names = [str(name) for name in document["columns"]]
    printed = _printed_curves(document)
    positions = {name: position for name in names if (position := _position(name)) is not None}
    if printed or (len(names) >= _FEWEST_FOR_A_CURVE and len(positions) == len(names)):
        return [Charts(charts=tuple(charts)) if (charts := _curves(document, positions, printed, unit_of)) else None]
    plots = [plot for name in names if (plot := _dots(document, name, unit_of)) is not None]
    return [Charts(charts=tuple(plots), key=True) if plots else None]


def _measured_rows(document: Document) -> list[Document]:
    """The rows that are no differences of others."""
    return [row for row in document["rows"] if row.get("kind") != "comparison"]


# --- dots -------------------------------------------------------------------------------------------------------------


def _dots(document: Document, column: str, unit_of: UnitOf) -> DotPlot | None:
    """None where there is nothing to hold against each other, or no scale on which one could see it."""
    cells = [(str(row["row"]), row["cells"][column]) for row in _measured_rows(document) if column in row["cells"]]
    cells = [(row, cell) for row, cell in cells if cell.get("published") or cell.get("mean") is not None]
    shown = cells[:_MOST_DOTS]
    units = {unit_of(cell) for _, cell in shown}
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


def _printed_curves(document: Document) -> dict[str, list[Published]]:
    """By row of the document all points of the paper's curve, those too that nothing was measured at; none for tables."""
    found = {}
    for row in _measured_rows(document):
        name = next((cell["published"].get("row") for cell in row["cells"].values() if cell.get("published")), None)
        if name is None:
            continue
        try:
            points = published.table(str(document.get("paper")), str(document["table"]))[str(name)]
        except (DataError, KeyError):
            continue  # the document is all there is to draw from
        if all(point.x is not None for point in points.values()):
            found[str(row["row"])] = list(points.values())
    return found


def _curves(
    document: Document, positions: Mapping[str, float], printed: Mapping[str, Sequence[Published]], unit_of: UnitOf
) -> list[Chart]:
    """Each row as the paper's curve, dashed, and ours as dots with their interval; as many charts as its rows need."""
    rows = [row for row in _measured_rows(document) if _row_lines(row, positions, printed, 0)]
    groups = [rows[start : start + _ROWS_OF_A_CHART] for start in range(0, len(rows), _ROWS_OF_A_CHART)]
    alone = len(groups) == 1
    axis = next((points[0].axis for points in printed.values()), None)
    words = {name.partition(" ")[2] for name in positions}
    label = axis.name if axis else words.pop() if len(words) == 1 and "" not in words else "column of the table"
    log = axis.scale == "log" if axis else spans_decades(list(positions.values()), times=50)
    return [
        Chart(
            title=str(document["table"]) if alone else f"{document['table']}, rows from {group[0]['row']}",
            x_label=label,
            unit=_common_unit(group, unit_of),
            lines=tuple(line for color, row in enumerate(group) for line in _row_lines(row, positions, printed, color)),
            log_x=log,
            note="Dashed: the paper's. Dots: measured here, with the interval over seeds.",
            width=640 if alone else 400,
            height=340 if alone else 260,
        )
        for group in groups
    ]


def _common_unit(rows: Sequence[Document], unit_of: UnitOf) -> str:
    units = {unit_of(cell) for row in rows for cell in row["cells"].values()}
    return units.pop() if len(units) == 1 else ""


def _row_lines(
    row: Document, positions: Mapping[str, float], printed: Mapping[str, Sequence[Published]], color: int
) -> list[Line]:
    ordered = sorted(positions.items(), key=lambda item: item[1])
    cells = [(x, row["cells"][name]) for name, x in ordered if name in row["cells"]]
    paper = [(point.x, point.value) for point in printed.get(str(row["row"]), ()) if point.x is not None]
    paper = paper or [(x, cell["published"]["value"]) for x, cell in cells if cell.get("published")]
    ours = [(x, cell) for x, cell in cells if cell.get("mean") is not None]
    lines = []
    if paper:
        x, y = _columns(paper)
        lines.append(Line(label=f"{row['row']}, paper", x=x, y=y, color=color, stroke="dashed"))
    if ours:
        x, y = _columns([(position, cell["mean"]) for position, cell in ours])
        low, high = _columns([cell.get("interval") or (cell["mean"], cell["mean"]) for _, cell in ours])
        lines.append(Line(label=f"{row['row']}, here", x=x, y=y, low=low, high=high, color=color, stroke="marks"))
    return lines


def _columns(pairs: Sequence[Sequence[float]]) -> tuple[Floats, Floats]:
    """Two (N,) arrays from N pairs."""
    both = np.array(pairs, np.float64)
    return both[:, 0], both[:, 1]
