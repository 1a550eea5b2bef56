"""The page of a reproduction: the paper's table beside ours, every number behind it, and the runs they came from."""

from __future__ import annotations

from collections.abc import Sequence

from paperbench.config.commands import command
from paperbench.report.html.page import Badge, Block, Fact, Notice, Page, section
from paperbench.report.html.quantities import Quantities, minus, plural
from paperbench.report.html.reproduction_figures import figures
from paperbench.report.html.sources import ReproductionRecord
from paperbench.report.html.sweep_page import badges_of, facts_of, sections_of_runs
from paperbench.report.reproduction_document import (
    UNITS,
    VERDICT_TONES,
    Digits,
    Document,
    cells_of,
    departures_of,
    display_table,
    verdict_of,
    worded_verdict,
)
from paperbench.report.tables import Cell, Column, Table, Tone, blank_cell, number_cell, text_cell

_MAX_COLUMNS_SIDE_BY_SIDE = 2
_NOTE = "Ours is the mean over seeds, in the paper's unit. Tolerances were stated with the published numbers, before the runs."


def page_of_reproduction(record: ReproductionRecord, quantities: Quantities) -> Page:
    """Return the page of a reproduction: a warning where it departs from the paper's conditions, the table, every number."""
    document = record.document
    fmt = CellFormat(document, quantities)
    runs, left_out = sections_of_runs(record.runs, quantities) if record.runs else ([], ())
    side_by_side = len(document["columns"]) <= _MAX_COLUMNS_SIDE_BY_SIDE
    table: list[Block | None] = [
        _warning(document),
        _side_by_side(document, fmt) if side_by_side else _by_column(document, fmt),
    ]
    sections = [
        *section("table", str(document.get("table") or "Table"), table),
        *section("figure", "Published and measured", figures(document, fmt.unit)),
        *section("remarks", "Remarks", [_remarks(document)]),
        *section("numbers", "Every number", [_numbers(document, fmt), _measurements(document, fmt)]),
        *runs,
    ]
    return Page(
        subject="reproduction",
        title=record.name,
        lead=str(document.get("caption") or ""),
        badges=(_headline(document), *badges_of(record.runs)),
        facts=tuple(_facts(record)),
        sections=tuple(sections),
        source=str(record.directory),
        left_out=left_out,
    )


def _facts(record: ReproductionRecord) -> list[Fact]:
    document = record.document
    overrides = map(str, document.get("overrides") or ())
    typed = command("reproduce", record.name, *overrides, "--scale", str(document.get("scale")))
    facts = [
        Fact(name="paper", text=str(document.get("source") or document.get("paper") or "")),
        Fact(name="scale", text=str(document.get("scale") or "")),
        *(fact for fact in facts_of(record.runs) if fact.name != "scale"),
        Fact(name="command", text=typed, code=True),
    ]
    return [fact for fact in facts if fact.text]


def _headline(document: Document) -> Badge:
    if document.get("is_reproduction"):
        return Badge(text="reproduction", tone="good")
    return Badge(text="not a reproduction", tone="warn")


def _warning(document: Document) -> Notice | None:
    if document.get("is_reproduction"):
        return None
    departures = dict.fromkeys(
        name for _, _, cell in cells_of(document) for name in str(cell.get("departs") or "").split(", ") if name
    )
    why = f": made with {', '.join(departures)}" if departures else ""
    return Notice(text=f"These numbers are not a reproduction of the paper's{why}. The remarks below say what differs.")


# --- the table as the paper lays it out -------------------------------------------------------------------------------


def _side_by_side(document: Document, fmt: CellFormat) -> Table:
    """Return a table of few columns: the paper's number, ours, the difference and the verdict next to each other."""
    names = [str(name) for name in document["columns"]]
    prefix = {name: f"{name}, " if len(names) > 1 else "" for name in names}
    columns = [Column(name="row")]
    for name in names:
        unit = _unit_of(document, name, fmt)
        columns += [
            Column(name=f"{prefix[name]}paper", unit=unit, numeric=True),
            Column(name=f"{prefix[name]}here", unit=unit, numeric=True),
            Column(name=f"{prefix[name]}difference", numeric=True, hint="ours less the paper's"),
            Column(name=f"{prefix[name]}verdict"),
        ]
    rows = []
    for row in document["rows"]:
        cells = [_row_head(row)]
        for name in names:
            cells += _cells_beside(name, row["cells"].get(name), fmt)
        rows.append(tuple(cells))
    return Table(name="table", title=_title(document), columns=tuple(columns), rows=tuple(rows), notes=(_NOTE,))


def _cells_beside(name: str, cell: Document | None, fmt: CellFormat) -> list[Cell]:
    if cell is None:
        return [number_cell(None)] * 3 + [blank_cell("")]
    paper = fmt.paper(name, cell)
    tolerance = fmt.tolerance(cell)
    return [
        Cell(text=paper.text, value=paper.value, note="" if tolerance.value is None else tolerance.text),
        fmt.ours(name, cell, cell.get("mean"), note=fmt.spread(name, cell)),
        fmt.difference(name, cell),
        text_cell(worded_verdict(cell), tone=_tone(cell), note=departures_of(cell), chip=True),
    ]


def _by_column(document: Document, fmt: CellFormat) -> Table:
    """Return a table laid out as the paper's: in each cell ours, and below it the paper's number and the verdict."""
    names = [str(name) for name in document["columns"]]
    rows = [
        (_row_head(row), *(_tall_cell(name, row["cells"].get(name), fmt) for name in names)) for row in document["rows"]
    ]
    columns = (
        Column(name="row"),
        *(Column(name=name, unit=_unit_of(document, name, fmt), numeric=True) for name in names),
    )
    note = f"Large: measured here. Below it: the paper's number, its tolerance, and the verdict. {_NOTE}"
    return Table(name="table", title=_title(document), columns=columns, rows=tuple(rows), notes=(note,))


def _tall_cell(name: str, cell: Document | None, fmt: CellFormat) -> Cell:
    if cell is None:
        return number_cell(None)
    paper = fmt.paper(name, cell)
    note = worded_verdict(cell)
    if paper.value is not None:
        tolerance = fmt.tolerance(cell)
        band = "" if tolerance.value is None else f" {tolerance.text}"
        note = f"paper {paper.text}{band}\n{note}"
    mean = cell.get("mean")
    return number_cell(mean, fmt.ours(name, cell, mean).text, tone=_tone(cell), note=note)


def _row_head(row: Document) -> Cell:
    return text_cell(row["row"], note="difference of two rows, seed by seed" if row.get("kind") == "comparison" else "")


def _title(document: Document) -> str:
    return ". ".join(filter(None, (str(document.get("table") or ""), str(document.get("caption") or ""))))


def _unit_of(document: Document, name: str, fmt: CellFormat) -> str:
    """Return the unit of a column: that of its rows which are not differences of others."""
    cells = [row["cells"][name] for row in document["rows"] if name in row["cells"] and row.get("kind") != "comparison"]
    units = dict.fromkeys(fmt.unit(cell) for cell in cells)
    return next(iter(units)) if len(units) == 1 else ""


# --- every number -----------------------------------------------------------------------------------------------------


def _numbers(document: Document, fmt: CellFormat) -> Table:
    """Return one row a cell, with everything in a column of its own."""
    rows = []
    for (row, column, cell), marks in zip(cells_of(document), _marks(document), strict=True):
        low, high = cell.get("interval") or (None, None)
        rows.append(
            (
                text_cell(row),
                text_cell(column),
                text_cell(cell.get("metric")),
                fmt.paper(column, cell),
                fmt.tolerance(cell),
                fmt.ours(column, cell, cell.get("mean")),
                fmt.ours(column, cell, low),
                fmt.ours(column, cell, high),
                blank_cell(str(cell.get("interval_kind") or "")),
                number_cell(cell.get("n"), str(cell.get("n"))),
                fmt.difference(column, cell),
                blank_cell(fmt.unit(cell)),
                text_cell(worded_verdict(cell), tone=_tone(cell), chip=True),
                blank_cell(str(cell.get("departs") or "")),
                blank_cell(marks),
            )
        )
    columns = (
        Column(name="row"),
        Column(name="column"),
        Column(name="metric", code=True),
        Column(name="paper", numeric=True),
        Column(name="tolerance", numeric=True),
        Column(name="here", numeric=True),
        Column(name="low", numeric=True),
        Column(name="high", numeric=True),
        Column(name="interval"),
        Column(name="seeds", numeric=True),
        Column(name="difference", numeric=True, hint="ours less the paper's"),
        Column(name="unit"),
        Column(name="verdict"),
        Column(name="departs", hint="kinds of departures from the published conditions"),
        Column(name="remarks", hint="numbers of the remarks on this page"),
    )
    return Table(name="numbers", title="The paper's numbers and ours", columns=columns, rows=tuple(rows))


def _marks(document: Document) -> Sequence[str]:
    """Return, for each cell, the numbers of the remarks that belong to it."""
    table = display_table(document)
    if not table.columns or table.columns[-1].name != "notes":
        return [""] * len(table.rows)
    return [row[-1].text for row in table.rows]


def _measurements(document: Document, fmt: CellFormat) -> Table | None:
    """Return every measurement, with its seed and its run."""
    rows = [
        (
            text_cell(row),
            text_cell(column),
            text_cell(cell.get("metric")),
            number_cell(entry.get("seed"), str(entry.get("seed"))),
            fmt.ours(column, cell, entry.get("value")),
            text_cell(entry.get("run")),
        )
        for row, column, cell in cells_of(document)
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
    return Table(name="measurements", title="Seed by seed", columns=columns, rows=tuple(rows))


def _remarks(document: Document) -> Notice | None:
    """Return every remark once, with the number by which the tables refer to it."""
    notes = display_table(document).notes
    return Notice(text=plural(len(notes), "remark"), tone="muted", points=notes) if notes else None


# --- the format of numbers --------------------------------------------------------------------------------------------


class CellFormat:
    """Formats the numbers of one document: in the paper's unit, with its decimals, and one more for measured ones."""

    def __init__(self, document: Document, quantities: Quantities) -> None:
        self._quantities = quantities
        self._digits = Digits(document)

    def unit(self, cell: Document) -> str:
        """Return the paper's unit where it has one, the metric's own elsewhere."""
        published = cell.get("published")
        if published:
            return UNITS.get(str(published["unit"]), str(published["unit"]))
        return self._quantities.unit(str(cell.get("metric") or ""))

    def paper(self, column: str, cell: Document) -> Cell:
        """Return the published number."""
        published = cell.get("published")
        if not published:
            return number_cell(None)
        return number_cell(published["value"], self._text(published["value"], column, cell, more=0))

    def tolerance(self, cell: Document) -> Cell:
        """Return the tolerance of the published number."""
        tolerance = (cell.get("published") or {}).get("tolerance")
        return number_cell(tolerance, None if tolerance is None else f"±{tolerance:g}")

    def ours(self, column: str, cell: Document, value: float | None, *, note: str = "") -> Cell:
        """Return a measured number, with one decimal more than the paper's, so that a tie shows its side."""
        return number_cell(value, None if value is None else self._text(value, column, cell, more=1), note=note)

    def difference(self, column: str, cell: Document) -> Cell:
        """Return the measured number less the paper's."""
        value = cell.get("difference")
        return number_cell(value, None if value is None else self._text(value, column, cell, more=1, sign="+"))

    def spread(self, column: str, cell: Document) -> str:
        """Return the interval and the number of seeds, `67.9 to 68.5, 3 seeds`."""
        count = cell.get("n") or 0
        seeds = "one seed" if count == 1 else f"{count} seeds"
        if not cell.get("interval"):
            return seeds if count else ""
        low, high = (self._text(end, column, cell, more=1) for end in cell["interval"])
        return f"{low} to {high}, {seeds}"

    def _text(self, value: float, column: str, cell: Document, *, more: int, sign: str = "") -> str:
        digits = self._digits.of(column, cell)
        if digits is None:
            return self._quantities.number(str(cell.get("metric") or ""), value)
        return minus(f"{value:{sign}.{digits + more}f}")


def _tone(cell: Document) -> Tone:
    """Return the colour of a verdict."""
    return VERDICT_TONES.get(verdict_of(cell), "")
