"""The page of a reproduction: the paper's table with ours in it, every number behind it, and the runs they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from paperbench.report.pages.charts import TONES, Chart, Line, spans_decades
from paperbench.report.pages.dotplot import DotPlot, Dots, legible
from paperbench.report.pages.grids import Cell, Column, Grid, Tone, blank_cell, number_cell, text_cell
from paperbench.report.pages.page import Badge, Block, Charts, Fact, Notice, Page, section
from paperbench.report.pages.quantities import Quantities, minus, plural, significant
from paperbench.report.pages.runs_sections import badges_of, facts_of, sections_of_runs
from paperbench.report.pages.sources import ReproductionRecord
from paperbench.report.reproduction_tables import UNITS
from paperbench.report.verdict import Verdict

Document = Mapping[str, Any]

_TONES: dict[str, Tone] = {
    Verdict.WITHIN: "good",
    Verdict.BETTER: "warn",
    Verdict.WORSE: "bad",
    Verdict.OUTSIDE: "bad",
    Verdict.DEVIATES_NEAR: "warn",
    Verdict.DEVIATES_APART: "warn",
    Verdict.DEVIATES: "warn",
}
_MOST_DOTS = 24
_FEWEST_FOR_A_CURVE = 3


def page_of_reproduction(record: ReproductionRecord, quantities: Quantities) -> Page:
    """Verdicts first; what is no reproduction says so before anything else."""
    document = record.document
    runs, left_out = sections_of_runs(record.runs, quantities) if record.runs else ([], ())
    table: list[Block | None] = [_warning(document), _layout(document, quantities)]
    sections = [
        *section("table", str(document.get("table") or "Table"), table),
        *section("figure", "Published and measured", list(_figures(document))),
        *section("numbers", "Every number", [_numbers(document, quantities), _measurements(document, quantities)]),
        *section("remarks", "Remarks", [_remarks(document)]),
        *runs,
    ]
    facts = [Fact(name="paper", text=str(document.get("source") or document.get("paper") or ""))]
    facts += [Fact(name="scale", text=str(document.get("scale") or ""))]
    facts += [fact for fact in facts_of(record.runs) if fact.name != "scale"]
    facts.append(
        Fact(name="command", text=f"paperbench reproduce {record.name} --scale {document.get('scale')}", code=True)
    )
    return Page(
        subject="reproduction",
        title=f"{record.name}",
        lead=str(document.get("caption") or ""),
        badges=(_headline(document), *badges_of(record.runs)),
        facts=tuple(fact for fact in facts if fact.text),
        sections=tuple(sections),
        source=str(record.directory),
        left_out=left_out,
    )


def _headline(document: Document) -> Badge:
    if document.get("is_reproduction"):
        return Badge(text="reproduction", tone="good")
    return Badge(text="not a reproduction", tone="warn")


def _warning(document: Document) -> Notice | None:
    if document.get("is_reproduction"):
        return None
    departures = dict.fromkeys(cell["departs"] for _, _, cell in _cells(document) if cell.get("departs"))
    why = f": {'; '.join(departures)}" if departures else ""
    return Notice(
        text=f"These numbers are not a reproduction of the paper's{why}. The remarks say what differs.", tone="warn"
    )


# --- the table as the paper lays it out -------------------------------------------------------------------------------


def _layout(document: Document, quantities: Quantities) -> Grid:
    """Rows and columns of the paper; in each cell our mean, below it the paper's number and the verdict."""
    names = [str(name) for name in document["columns"]]
    rows = []
    for row in document["rows"]:
        cells = [_layout_cell(row["cells"].get(name), quantities) for name in names]
        rows.append(
            (text_cell(row["row"], note="difference of rows" if row.get("kind") == "comparison" else ""), *cells)
        )
    units = {
        name: _units([cell for _, column, cell in _cells(document) if column == name], quantities) for name in names
    }
    return Grid(
        name="table",
        caption=f"{document.get('table', '')}. {document.get('caption', '')}",
        columns=(
            Column(name="row", label=" "),
            *(Column(name=name, unit=units[name] if len(units[name]) < 12 else "", numeric=True) for name in names),
        ),
        rows=tuple(rows),
        note="Large: measured here, the mean over seeds. Below it: the paper's number with the tolerance stated beforehand, "
        "and what ours says about it.",
    )


def _layout_cell(cell: Document | None, quantities: Quantities) -> Cell:
    if cell is None:
        return Cell(tone="muted")
    paper = _printed(cell)
    said = f"paper {paper} · {cell['verdict']}" if paper else str(cell["verdict"])
    mean = cell.get("mean")
    return number_cell(mean, None if mean is None else _ours(cell, mean, quantities), tone=_tone(cell), note=said)


def _tone(cell: Document) -> Tone:
    return _TONES.get(str(cell.get("verdict")), "muted" if cell.get("mean") is None else "")


def _printed(cell: Document, *, unit: bool = False) -> str:
    published = cell.get("published")
    if not published:
        return ""
    band = "" if published.get("tolerance") is None else f" ±{published['tolerance']:g}"
    return minus(f"{published['value']:g}") + band + (f" {_unit(cell)}" if unit else "")


def _unit(cell: Document, quantities: Quantities | None = None) -> str:
    """Measured values are given in the paper's unit where there is one."""
    published = cell.get("published")
    if published:
        return UNITS.get(str(published.get("unit")), str(published.get("unit") or ""))
    return quantities.unit(str(cell.get("metric") or "")) if quantities else ""


def _units(cells: Sequence[Document], quantities: Quantities) -> str:
    found = dict.fromkeys(unit for cell in cells if (unit := _unit(cell, quantities)))
    return next(iter(found)) if len(found) == 1 else ""


def _ours(cell: Document, value: float, quantities: Quantities) -> str:
    """Our number with one digit more than the paper's: enough to see on which side of it we are."""
    published = cell.get("published")
    if not published:
        return quantities.number(str(cell.get("metric") or ""), value)
    _, _, decimals = f"{published['value']:g}".partition(".")
    if "e" in decimals:
        return significant(value)
    return minus(f"{value:.{len(decimals) + 1}f}")


def _cells(document: Document) -> Iterator[tuple[str, str, Document]]:
    """(row, column, cell) in the order of the document."""
    for row in document["rows"]:
        for column, cell in row["cells"].items():
            yield str(row["row"]), str(column), cell


# --- every number -----------------------------------------------------------------------------------------------------


def _numbers(document: Document, quantities: Quantities) -> Grid:
    rows = []
    for row, column, cell in _cells(document):
        published = cell.get("published") or {}
        low, high = cell.get("interval") or (None, None)
        difference = cell.get("difference")
        rows.append(
            (
                text_cell(row),
                text_cell(column),
                text_cell(cell.get("metric")),
                number_cell(published.get("value"), minus(f"{published['value']:g}") if published else None),
                number_cell(published.get("tolerance"), _band(published.get("tolerance"))),
                _number(cell, cell.get("mean"), quantities),
                _number(cell, low, quantities),
                _number(cell, high, quantities),
                text_cell(cell.get("interval_kind")),
                number_cell(cell.get("n"), str(cell.get("n"))),
                number_cell(difference, None if difference is None else minus(f"{difference:+.3g}")),
                blank_cell(_unit(cell, quantities)),
                text_cell(cell.get("verdict"), tone=_tone(cell), note=str(cell.get("departs") or ""), chip=True),
                blank_cell("; ".join(map(str, cell.get("remarks") or ()))),
            )
        )
    columns = (
        Column(name="row"),
        Column(name="column"),
        Column(name="metric", code=True),
        Column(name="published", label="paper", numeric=True),
        Column(name="tolerance", numeric=True),
        Column(name="mean", label="ours", numeric=True),
        Column(name="low", numeric=True),
        Column(name="high", numeric=True),
        Column(name="interval_kind", label="interval"),
        Column(name="seeds", numeric=True),
        Column(name="difference", numeric=True, hint="ours less the paper's"),
        Column(name="unit"),
        Column(name="verdict"),
        Column(name="remarks"),
    )
    return Grid(name="numbers", caption="The paper's numbers and ours", columns=columns, rows=tuple(rows))


def _band(tolerance: float | None) -> str | None:
    return None if tolerance is None else f"±{tolerance:g}"


def _number(cell: Document, value: float | None, quantities: Quantities, *, note: str = "") -> Cell:
    return number_cell(value, None if value is None else _ours(cell, value, quantities), note=note)


def _measurements(document: Document, quantities: Quantities) -> Grid | None:
    """Seed by seed, with the run each number came from."""
    rows = [
        (
            text_cell(row),
            text_cell(column),
            text_cell(cell.get("metric")),
            number_cell(entry.get("seed"), str(entry.get("seed"))),
            _number(cell, entry.get("value"), quantities),
            text_cell(entry.get("run")),
        )
        for row, column, cell in _cells(document)
        for entry in cell.get("values") or ()
    ]
    if not rows:
        return None
    columns = (
        Column(name="row"),
        Column(name="column"),
        Column(name="metric", code=True),
        Column(name="seed", numeric=True),
        Column(name="value", numeric=True),
        Column(name="run", code=True),
    )
    return Grid(name="measurements", caption="Seed by seed", columns=columns, rows=tuple(rows))


def _remarks(document: Document) -> Notice | None:
    own = dict.fromkeys(str(remark) for _, _, cell in _cells(document) for remark in cell.get("remarks") or ())
    points = (*map(str, document.get("remarks") or ()), *own)
    return Notice(text=plural(len(points), "remark"), tone="muted", points=points) if points else None


# --- figures ----------------------------------------------------------------------------------------------------------


def _figures(document: Document) -> Iterator[Block]:
    """Curves where the columns are numbers, such as how much was trained; dots on one scale otherwise."""
    names = [str(name) for name in document["columns"]]
    positions = {name: _position(name) for name in names}
    if len(names) >= _FEWEST_FOR_A_CURVE and all(value is not None for value in positions.values()):
        chart = _curve(document, {name: value for name, value in positions.items() if value is not None})
        if chart is not None:
            yield Charts(charts=(chart,))
        return
    plots = [plot for name in names if (plot := _dots(document, name)) is not None]
    if plots:
        yield Charts(charts=tuple(plots), key=True)


def _dots(document: Document, column: str) -> DotPlot | None:
    cells = [(row, cell) for row, name, cell in _cells(document) if name == column]
    cells = [(row, cell) for row, cell in cells if cell.get("published") or cell.get("mean") is not None][:_MOST_DOTS]
    rows = [_dot_row(row, cell) for row, cell in cells]
    if not any(row.published is not None for row in rows) or not any(row.mean is not None for row in rows):
        return None  # with nothing to hold against each other, the table says it better
    if not legible(rows) or len({_unit(cell) for _, cell in cells if cell.get("published")}) > 1:
        return None
    return DotPlot(title=column, unit=_units([cell for _, cell in cells], Quantities()), rows=tuple(rows))


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


def _position(name: str) -> float | None:
    """`1e6`, `10,000` or `2.5e8 samples` as a number."""
    try:
        return float(name.split()[0].replace(",", "")) if name.split() else None
    except ValueError:
        return None


def _curve(document: Document, positions: Mapping[str, float]) -> Chart | None:
    """Each row as a curve over the columns, the paper's dashed under ours."""
    lines: list[Line] = []
    for tone, row in enumerate(document["rows"][:TONES]):
        cells = [
            (x, row["cells"][name])
            for name, x in sorted(positions.items(), key=lambda item: item[1])
            if name in row["cells"]
        ]
        paper = [(x, cell["published"]["value"]) for x, cell in cells if cell.get("published")]
        ours = [(x, cell) for x, cell in cells if cell.get("mean") is not None]
        if paper:
            x, y = (np.array(values, np.float64) for values in zip(*paper, strict=True))
            lines.append(Line(label=f"{row['row']}, paper", x=x, y=y, tone=tone, stroke="dashed"))
        if ours:
            x = np.array([position for position, _ in ours], np.float64)
            spans = [cell.get("interval") or (cell["mean"], cell["mean"]) for _, cell in ours]
            low, high = (np.array(ends, np.float64) for ends in zip(*spans, strict=True))
            y = np.array([cell["mean"] for _, cell in ours], np.float64)
            lines.append(Line(label=f"{row['row']}, here", x=x, y=y, low=low, high=high, tone=tone, stroke="marks"))
    if not lines:
        return None
    words = {name.partition(" ")[2] for name in positions}
    xs = np.array(list(positions.values()))
    return Chart(
        title=str(document.get("table") or "figure"),
        x_label=words.pop() if len(words) == 1 and "" not in words else "column of the table",
        unit=_units([cell for _, _, cell in _cells(document)], Quantities()),
        lines=tuple(lines),
        log_x=spans_decades(xs, times=50),
        note="Dashed: read from the paper. Dots: measured here, with the interval over seeds.",
        width=640,
        height=340,
    )
