"""How the cells of a reproduction are written: in the paper's unit, with its digits and one more for ours."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from paperbench.report.html.grids import Cell, Tone, number_cell
from paperbench.report.html.quantities import Quantities, minus
from paperbench.report.reproduction_tables import UNITS, cells_of
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
    Verdict.NOT_COMPARABLE: "muted",
    Verdict.MISSING: "muted",
}
_SIBLINGS = {"points": "percent"}
"""A difference of percentages is printed with as many digits as they are."""


def tone(cell: Document) -> Tone:
    """The colour of a verdict."""
    return _TONES.get(str(cell.get("verdict")), "")


class Hand:
    """Writes the numbers of one document; a column's digits are the most that the paper prints in it."""

    def __init__(self, document: Document, quantities: Quantities) -> None:
        self._quantities = quantities
        self._digits: dict[tuple[str, str], int] = {}
        for _, column, cell in cells_of(document):
            if cell.get("published"):
                key = self._key(column, cell)
                self._digits[key] = max(self._digits.get(key, 0), _decimals(cell["published"]["value"]))

    def unit(self, cell: Document) -> str:
        """Measured values are given in the paper's unit where it has one, in the metric's own elsewhere."""
        published = cell.get("published")
        if published:
            return UNITS.get(str(published["unit"]), str(published["unit"]))
        return self._quantities.unit(str(cell.get("metric") or ""))

    def paper(self, column: str, cell: Document) -> Cell:
        """The published number."""
        published = cell.get("published")
        if not published:
            return number_cell(None)
        return number_cell(published["value"], self._text(published["value"], column, cell, more=0))

    def tolerance(self, cell: Document) -> Cell:
        """How far from it ours may lie and still agree."""
        tolerance = (cell.get("published") or {}).get("tolerance")
        return number_cell(tolerance, None if tolerance is None else f"±{tolerance:g}")

    def ours(self, column: str, cell: Document, value: float | None, *, note: str = "") -> Cell:
        """A measured number, with one digit more than the paper's: enough to see on which side of it ours lies."""
        return number_cell(value, None if value is None else self._text(value, column, cell, more=1), note=note)

    def difference(self, column: str, cell: Document) -> Cell:
        """Ours less the paper's."""
        value = cell.get("difference")
        return number_cell(value, None if value is None else self._text(value, column, cell, more=1, sign="+"))

    def spread(self, column: str, cell: Document) -> str:
        """`67.9 to 68.5, 3 seeds`: the interval and on how many it stands."""
        count = cell.get("n") or 0
        seeds = "one seed" if count == 1 else f"{count} seeds"
        if not cell.get("interval"):
            return seeds if count else ""
        low, high = (self._text(end, column, cell, more=1) for end in cell["interval"])
        return f"{low} to {high}, {seeds}"

    def _text(self, value: float, column: str, cell: Document, *, more: int, sign: str = "") -> str:
        digits = self._digits.get(self._key(column, cell))
        if digits is None:
            return self._quantities.number(str(cell.get("metric") or ""), value)
        return minus(f"{value:{sign}.{digits + more}f}")

    def _key(self, column: str, cell: Document) -> tuple[str, str]:
        unit = str((cell.get("published") or {}).get("unit") or "")
        return column, _SIBLINGS.get(unit, unit)


def _decimals(value: float) -> int:
    """Digits behind the point that a number was printed with."""
    exponent = Decimal(f"{value:g}").as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
