"""The document of a reproduction as tables: one for people, one for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from paperbench.report.tables import Cell, Column, Mark, Table, text_cell
from paperbench.report.verdict import Verdict

UNITS = {
    "percent": "%",
    "points": "points",
    "correlation": "r",
    "factor": "x",
    "number": "",
    "fraction": "",
    "fps": "/s",
}
"""How units are written behind a number; others are written as they are named."""

_MARKS: Mapping[str, Mark] = {
    Verdict.WITHIN: "good",
    Verdict.BETTER: "strong",
    Verdict.WORSE: "bad",
    Verdict.OUTSIDE: "bad",
    Verdict.MISSING: "missing",
    Verdict.NOT_COMPARABLE: "muted",
}
_KINDS: Mapping[str, str] = {
    "none": "",
    "one seed": "",
    "range": "range",
    "bootstrap of the mean, 95 %": "95 % bootstrap",
    "resampled test images, 95 %": "95 % over test images",
}


def title(document: Mapping[str, Any]) -> str:
    """`faster-rcnn/table-8, scale=short: …`."""
    return f"{document['name']}, scale={document['scale']}: {document['table']}. {document['caption']}"


def display_table(document: Mapping[str, Any]) -> Table:
    """One line a cell: the paper's value, ours, the interval, seeds, difference, verdict, and marks of the notes below."""
    notes = _Notes(document)
    digits = _digits(document)
    several = len(document["columns"]) > 1
    columns = (
        Column(name="row"), *((Column(name="column"),) if several else ()), Column(name="paper", align="right"),
        Column(name="ours", align="right"), Column(name="interval"), Column(name="seeds", align="right"),
        Column(name="difference", align="right"), Column(name="verdict"), Column(name="notes"),
    )  # fmt: skip
    rows = []
    for row, column, cell in cells_of(document):
        marks = notes.marks(cell)
        rows.append(
            (
                text_cell(row),
                *((text_cell(column),) if several else ()),
                *_numbers(cell, digits.get((column, _unit(cell)))),
                _verdict(cell),
                text_cell(" ".join(f"[{number}]" for number in marks)),
            )
        )
    return Table(title=title(document), columns=columns, rows=tuple(rows), notes=notes.all()).without_empty_columns()


def flat_table(document: Mapping[str, Any]) -> Table:
    """One line a cell with everything in columns of their own, numbers in full."""
    names = (
        "name", "scale", "row", "column", "metric", "unit", "published", "tolerance", "mean", "n", "low", "high",
        "interval_kind", "difference", "verdict", "departs", "seeds", "values", "runs", "remarks",
    )  # fmt: skip
    rows = []
    for row, column, cell in cells_of(document):
        printed = cell["published"] or {}
        low, high = cell["interval"] or (None, None)
        values = cell["values"]
        flat = (
            document["name"], document["scale"], row, column, cell["metric"], printed.get("unit"), printed.get("value"),
            printed.get("tolerance"), cell["mean"], cell["n"], low, high, cell["interval_kind"], cell["difference"],
            cell["verdict"], cell["departs"], " ".join(str(v["seed"]) for v in values),
            " ".join(repr(v["value"]) for v in values), " ".join(v["run"] or "" for v in values).strip(),
            "; ".join(cell["remarks"]),
        )  # fmt: skip
        rows.append(tuple(Cell(text="" if value is None else str(value), value=value) for value in flat))
    return Table(title=title(document), columns=tuple(Column(name=name) for name in names), rows=tuple(rows))


def cells_of(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(row, column, cell) in the order of the document."""
    for row in document["rows"]:
        for column, cell in row["cells"].items():
            yield row["row"], column, cell


# --- cells ------------------------------------------------------------------------------------------------------------


def _numbers(cell: Mapping[str, Any], digits: int | None) -> tuple[Cell, Cell, Cell, Cell, Cell]:
    """Paper, ours, interval, seeds, difference. `digits` is how many the paper prints behind the point, ours get one more."""
    printed = cell["published"]
    unit = UNITS.get(_unit(cell), _unit(cell))
    band = "" if not printed or printed["tolerance"] is None else f" ±{printed['tolerance']:g}"
    paper = f"{_number(printed['value'], digits)}{band}{f' {unit}' if unit else ''}" if printed else ""
    more = None if digits is None else digits + 1
    mean, difference = cell["mean"], cell["difference"]
    return (
        Cell(text=paper, value=printed["value"] if printed else None),
        Cell(text=_number(mean, more), value=mean, mark="strong"),
        Cell(text=_spread(cell, more), value=cell["interval"][0] if cell["interval"] else None),
        Cell(text=str(cell["n"]), value=cell["n"]),
        Cell(text="" if difference is None else _signed(difference, more), value=difference),
    )


def _unit(cell: Mapping[str, Any]) -> str:
    return cell["published"]["unit"] if cell["published"] else ""


def _digits(document: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Digits behind the point by column and unit: the most that the paper prints there (a printed 70.0 is kept as 70)."""
    found: dict[tuple[str, str], int] = {}
    for _, column, cell in cells_of(document):
        if cell["published"]:
            units = {
                _unit(cell),
                "percent" if _unit(cell) == "points" else "points" if _unit(cell) == "percent" else "",
            }
            for unit in units - {""}:
                found[column, unit] = max(found.get((column, unit), 0), _decimals(cell["published"]["value"]))
    return found


def _spread(cell: Mapping[str, Any], digits: int | None) -> str:
    """`67.9 to 68.5 (range: 67.9, 68.2, 68.5)` for a few seeds, `67.9 to 68.5 (95 % bootstrap)` for more."""
    if cell["interval"] is None:
        return ""
    kind: str = _KINDS.get(cell["interval_kind"], cell["interval_kind"])
    if cell["interval_kind"] == "range":
        kind += f": {', '.join(_number(value['value'], digits) for value in cell['values'])}"
    low, high = (_number(end, digits) for end in cell["interval"])
    return f"{low} to {high} ({kind})"


def _verdict(cell: Mapping[str, Any]) -> Cell:
    verdict, departs = cell["verdict"], cell["departs"]
    shown = departs if verdict != Verdict.MISSING else ""
    if "data" in shown or "scale" in shown:
        shown = shown.removesuffix(", other settings")  # they go without saying
    return Cell(text=f"{verdict}: {shown}" if shown else verdict, value=verdict, mark=_MARKS.get(verdict, ""))


def _decimals(value: float) -> int:
    """Digits behind the point that a number was printed with."""
    exponent = Decimal(f"{value:g}").as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _number(value: float | None, digits: int | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


def _signed(value: float, digits: int | None) -> str:
    return f"{value:+.4g}" if digits is None else f"{value:+.{digits}f}"


# --- notes ------------------------------------------------------------------------------------------------------------


class _Notes:
    """Remarks of cells, each said once below the table; those of every cell without a number."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        cells = [cell for _, _, cell in cells_of(document)]
        everything = list(dict.fromkeys(remark for cell in cells for remark in cell["remarks"]))
        self._shared = [remark for remark in everything if all(remark in cell["remarks"] for cell in cells)]
        self._all = "every number" if len(cells) > 1 else "the number"
        self._own = [remark for remark in everything if remark not in self._shared]
        self._general: Sequence[str] = document["remarks"]
        self._is_reproduction = bool(document["is_reproduction"])

    def marks(self, cell: Mapping[str, Any]) -> list[int]:
        """Numbers of the notes that belong to a cell."""
        return [index for index, remark in enumerate(self._own, start=1) if remark in cell["remarks"]]

    def all(self) -> tuple[str, ...]:
        """Every note as it is printed."""
        verdict = () if self._is_reproduction else ("this table is not a reproduction of the paper's",)
        return (
            *verdict,
            *(f"{self._all}: {remark}" for remark in self._shared),
            *(f"[{number}] {remark}" for number, remark in enumerate(self._own, start=1)),
            *self._general,
        )
