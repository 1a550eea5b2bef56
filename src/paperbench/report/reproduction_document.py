"""`reproduction.json`: the form that a report relies on, and its content as tables, for people and for spreadsheets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from paperbench.errors import DataError
from paperbench.report.tables import Cell, Column, Table, Tone, blank_cell
from paperbench.report.verdict import Verdict, worded

Document = Mapping[str, Any]

SCHEMA_VERSION = 2
READABLE = (1, 2)
"""Formats that the tables and pages are made of: 1 had deviations, choices and remarks in one list."""

UNITS = {
    "percent": "%",
    "points": "points",
    "correlation": "r",
    "factor": "x",
    "number": "",
    "fraction": "",
    "fps": "/s",
}
"""The units that are written otherwise than they are named."""

VERDICT_TONES: Mapping[str, Tone] = {
    Verdict.WITHIN: "good",
    Verdict.BETTER: "warn",
    Verdict.WORSE: "bad",
    Verdict.OUTSIDE: "bad",
    Verdict.WITHIN_OTHER_SETTINGS: "warn",
    Verdict.OUTSIDE_OTHER_SETTINGS: "warn",
    Verdict.NO_TOLERANCE_OTHER_SETTINGS: "warn",
    Verdict.NOT_COMPARABLE: "muted",
    Verdict.MISSING: "muted",
}
_FORMER_VERDICTS: Mapping[str, str] = {
    "deviates, near": Verdict.WITHIN_OTHER_SETTINGS,
    "deviates, apart": Verdict.OUTSIDE_OTHER_SETTINGS,
    "deviates": Verdict.NO_TOLERANCE_OTHER_SETTINGS,
}
"""The words of earlier versions, whose documents stay readable."""

_INTERVALS: Mapping[str, str] = {
    "none": "",
    "one seed": "",
    "range": "range",
    "Student's t of the mean, 95 %": "95 %",
    "bootstrap of the mean, 95 %": "95 % bootstrap",  # of an earlier version
    "resampled test images, 95 %": "95 % over test images",
}

# --- the form ---------------------------------------------------------------------------------------------------------


_MOST_FAULTS = 3


class _Form:
    """A number is no text, and no truth value. Keys that no table needs are ignored."""

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass(kw_only=True)
class _Printed(_Form):
    value: float
    unit: str
    tolerance: float | None
    row: str = ""
    seeds: int | None = None


@dataclass(kw_only=True)
class _Value(_Form):
    seed: int | None
    value: float
    run: str | None


@dataclass(kw_only=True)
class _Cell(_Form):
    published: _Printed | None
    metric: str | None
    values: list[_Value]
    n: int
    mean: float | None
    interval: tuple[float, float] | None
    interval_kind: str
    difference: float | None
    verdict: str
    departs: str
    remarks: list[str]
    deviations: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class _Row(_Form):
    row: str
    cells: dict[str, _Cell]
    kind: str = ""


@dataclass(kw_only=True)
class _Reproduction(_Form):
    name: str
    paper: str
    table: str
    caption: str
    source: str
    scale: str
    columns: list[str]
    rows: list[_Row]
    remarks: list[str]
    is_reproduction: bool
    overrides: list[str] = field(default_factory=list)


def check(path: Path, document: Document) -> None:
    """Raise `DataError` with the file and the first faults of a document that no table can be made from."""
    try:
        TypeAdapter(_Reproduction).validate_json(json.dumps(document))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        text = "; ".join([*faults[:_MOST_FAULTS], *more])
        raise DataError(f"{path}: {' '.join(text.split())}; run `paperbench reproduce` again to rewrite it") from error


# --- tables -----------------------------------------------------------------------------------------------------------


def title(document: Document) -> str:
    """Return `faster-rcnn/table-8, scale=short: …`."""
    return f"{document['name']}, scale={document['scale']}: {document['table']}. {document['caption']}"


def display_table(document: Document) -> Table:
    """Return one row a cell: the paper's value, ours, interval, seeds, difference, verdict, and numbers of the notes below."""
    notes = _Notes(document)
    digits = Digits(document)
    several = len(document["columns"]) > 1
    columns = (
        Column(name="row"), *((Column(name="column"),) if several else ()), Column(name="paper", numeric=True),
        Column(name="ours", numeric=True), Column(name="interval"), Column(name="seeds", numeric=True),
        Column(name="difference", numeric=True), Column(name="verdict"), Column(name="notes"),
    )  # fmt: skip
    rows = []
    for row, column, cell in cells_of(document):
        numbers = notes.numbers_of(cell)
        rows.append(
            (
                blank_cell(row),
                *((blank_cell(column),) if several else ()),
                *_numbers(cell, digits.of(column, cell)),
                _verdict(cell),
                blank_cell(" ".join(f"[{number}]" for number in numbers)),
            )
        )
    return Table(title=title(document), columns=columns, rows=tuple(rows), notes=notes.all()).without_empty_columns()


def flat_table(document: Document) -> Table:
    """Return one row a cell with everything in columns of their own, numbers in full."""
    names = (
        "name", "scale", "row", "column", "metric", "unit", "published", "tolerance", "mean", "n", "low", "high",
        "interval_kind", "difference", "verdict", "departs", "seeds", "values", "runs", "deviations", "choices", "remarks",
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
            *("; ".join(cell.get(kind, ())) for kind in ("deviations", "choices", "remarks")),
        )  # fmt: skip
        rows.append(tuple(Cell(text="" if value is None else str(value), value=value) for value in flat))
    return Table(title=title(document), columns=tuple(Column(name=name) for name in names), rows=tuple(rows))


def cells_of(document: Document) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield (row, column, cell) in the order of the document."""
    for row in document["rows"]:
        for column, cell in row["cells"].items():
            yield row["row"], column, cell


def verdict_of(cell: Document) -> str:
    """Return the verdict in the words of `Verdict`."""
    return _FORMER_VERDICTS.get(str(cell.get("verdict")), str(cell.get("verdict")))


def worded_verdict(cell: Document) -> str:
    """Return the verdict with the seeds and choices that travel with it."""
    verdict, printed = verdict_of(cell), cell.get("published") or {}
    return worded(
        verdict, seeds=cell.get("n") or 0, published_seeds=printed.get("seeds"), choices=len(cell.get("choices") or ())
    )


def statements_of(cell: Document) -> Iterator[str]:
    """Yield what is said of a cell: its deviations, its choices, remarks."""
    yield from cell.get("deviations") or ()
    yield from (f"choice: {text}" for text in cell.get("choices") or ())
    yield from cell.get("remarks") or ()


def departures_of(cell: Document) -> str:
    """Return the kinds of departures, `other data, other scale`; empty where the verdict names them itself."""
    departs = str(cell.get("departs") or "")
    return "" if verdict_of(cell).endswith(departs) else departs


# --- cells ------------------------------------------------------------------------------------------------------------


def _numbers(cell: Mapping[str, Any], digits: int | None) -> tuple[Cell, Cell, Cell, Cell, Cell]:
    """Return paper, ours, interval, seeds, difference. `digits` are the paper's decimals; ours get one more."""
    printed = cell["published"]
    unit = UNITS.get(_unit(cell), _unit(cell))
    band = "" if not printed or printed["tolerance"] is None else f" ±{printed['tolerance']:g}"
    paper = f"{_number(printed['value'], digits)}{band}{f' {unit}' if unit else ''}" if printed else ""
    more = None if digits is None else digits + 1
    mean, difference = cell["mean"], cell["difference"]
    return (
        Cell(text=paper, value=printed["value"] if printed else None),
        Cell(text=_number(mean, more), value=mean, tone="strong"),
        Cell(text=_spread(cell, more), value=cell["interval"][0] if cell["interval"] else None),
        Cell(text=str(cell["n"]), value=cell["n"]),
        Cell(text="" if difference is None else _signed(difference, more), value=difference),
    )


def _unit(cell: Document) -> str:
    return cell["published"]["unit"] if cell["published"] else ""


def _spread(cell: Mapping[str, Any], digits: int | None) -> str:
    """Return `67.9 to 68.5 (range: 67.9, 68.2, 68.5)` for a few seeds, `67.9 to 68.5 (95 %)` for more."""
    if cell["interval"] is None:
        return ""
    kind: str = _INTERVALS.get(cell["interval_kind"], cell["interval_kind"])
    if cell["interval_kind"] == "range":
        kind += f": {', '.join(_number(value['value'], digits) for value in cell['values'])}"
    low, high = (_number(end, digits) for end in cell["interval"])
    return f"{low} to {high} ({kind})"


def _verdict(cell: Document) -> Cell:
    verdict, departs = verdict_of(cell), departures_of(cell)
    shown = departs if verdict != Verdict.MISSING else ""
    if "data" in shown or "scale" in shown:
        shown = shown.removesuffix(", other settings")  # they go without saying
    text = worded_verdict(cell)
    return Cell(text=f"{text}: {shown}" if shown else text, value=verdict, tone=VERDICT_TONES.get(verdict, ""))


class Digits:
    """The decimals of a document's numbers: as many as the paper prints in a column, at most. Its 70.0 is stored as 70."""

    def __init__(self, document: Document) -> None:
        self._digits: dict[tuple[str, str], int] = {}
        for _, column, cell in cells_of(document):
            if cell["published"]:
                key = self._key(column, cell)
                self._digits[key] = max(self._digits.get(key, 0), _decimals(cell["published"]["value"]))

    def of(self, column: str, cell: Document) -> int | None:
        """Return the decimals of the paper's number in a cell; None where nothing is printed in its unit."""
        return self._digits.get(self._key(column, cell))

    def _key(self, column: str, cell: Document) -> tuple[str, str]:
        unit = _unit(cell)
        return column, "percent" if unit == "points" else unit  # differences of percentages are printed like them


def _decimals(value: float) -> int:
    """Return the digits behind the point that a number was printed with."""
    exponent = Decimal(f"{value:g}").as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _number(value: float | None, digits: int | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


def _signed(value: float, digits: int | None) -> str:
    return f"{value:+.4g}" if digits is None else f"{value:+.{digits}f}"


# --- notes ------------------------------------------------------------------------------------------------------------


NOT_A_REPRODUCTION = "this table is not a reproduction of the paper's"


class _Notes:
    """Statements about cells, each once below the table; those that hold for every cell have no number."""

    def __init__(self, document: Document) -> None:
        cells = [cell for _, _, cell in cells_of(document)]
        said = [list(statements_of(cell)) for cell in cells]
        everything = list(dict.fromkeys(text for texts in said for text in texts))
        self._shared = [text for text in everything if all(text in texts for texts in said)]
        self._all = "every number" if len(cells) > 1 else "the number"
        self._own = [remark for remark in everything if remark not in self._shared]
        self._general: Sequence[str] = document["remarks"]
        self._is_reproduction = bool(document["is_reproduction"])

    def numbers_of(self, cell: Document) -> list[int]:
        """Return the numbers of the notes that belong to a cell."""
        said = set(statements_of(cell))
        return [index for index, text in enumerate(self._own, start=1) if text in said]

    def all(self) -> tuple[str, ...]:
        """Return every note as it is printed."""
        verdict = () if self._is_reproduction else (NOT_A_REPRODUCTION,)
        return (
            *verdict,
            *(f"{self._all}: {remark}" for remark in self._shared),
            *(f"[{number}] {remark}" for number, remark in enumerate(self._own, start=1)),
            *self._general,
        )
