"""How a metric is written: its unit, its rounding, and its place among the others. Told by its name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

Headlines = Sequence[tuple[str, str]]
"""(pattern of names, format with unit such as `{:.1f} %`), the most telling first."""

MISSING = "\u2013"

_UNITS: tuple[tuple[str, str], ...] = (
    ("proposals/per_image", ""),
    ("coco/*", "%"),
    ("voc*/*", "%"),
    ("proposals/*", "%"),
    ("*/error", "%"),
    ("*/bound*", "nats"),
    ("*/nll*", "nats"),
    ("*_per_second", "/s"),
    ("*seconds*", "s"),
    ("*milliseconds*", "ms"),
    ("*_ms", "ms"),
)
"""Units of `docs/runs.md`, for metrics that are not among the headlines. The first pattern that fits decides."""

_PERCENT_FORMAT = ".1f"


class Quantities:
    """The vocabulary of a report; `headlines` decide on format, unit and order before anything else does."""

    def __init__(self, headlines: Headlines = ()) -> None:
        self._headlines = [(pattern, *_split(text)) for pattern, text in headlines]

    def number(self, name: str, value: float) -> str:
        """The value rounded, without its unit."""
        if not math.isfinite(value):
            return str(value)
        spec = self._format(name)
        if spec is None or isinstance(value, int):
            return significant(value)
        text = format(value, spec)
        # A rounding that leaves nothing of a number would misstate it.
        return minus(text) if value == 0 or float(text.replace(",", "")) != 0 else significant(value, 2)

    def with_unit(self, name: str, value: float) -> str:
        """`68.6 %`."""
        unit = self.unit(name)
        return f"{self.number(name, value)} {unit}" if unit else self.number(name, value)

    def unit(self, name: str) -> str:
        """`%`, `s`, `nats`; empty where there is none, or none is known."""
        for pattern, _, unit in self._headlines:
            if fnmatchcase(name, pattern):
                return unit
        return next((unit for pattern, unit in _UNITS if fnmatchcase(name, pattern)), "")

    def order(self, names: Iterable[str]) -> list[str]:
        """Headlines first, in their order; the others as they come."""
        given = list(dict.fromkeys(names))
        return sorted(given, key=lambda name: (self._rank(name), given.index(name)))

    def headlines(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that deserve to be read first, in their order."""
        return [name for name in self.order(names) if self._rank(name) < len(self._headlines)]

    def _rank(self, name: str) -> int:
        fits = (index for index, (pattern, *_) in enumerate(self._headlines) if fnmatchcase(name, pattern))
        return next(fits, len(self._headlines))

    def _format(self, name: str) -> str | None:
        for pattern, spec, _ in self._headlines:
            if fnmatchcase(name, pattern):
                return spec
        return _PERCENT_FORMAT if self.unit(name) == "%" else None


def _split(text: str) -> tuple[str, str]:
    """`{:.1f} %` -> `.1f`, `%`."""
    inside, _, unit = text.partition("}")
    return inside.removeprefix("{:"), unit.strip()


def significant(value: float, digits: int = 4) -> str:
    """A number in `digits` significant digits; whole numbers in full, thousands apart."""
    if isinstance(value, int):
        return minus(f"{value:,}")
    if not math.isfinite(value):
        return str(value)
    if 10**digits <= abs(value) < 10**9:
        return minus(f"{value:,.0f}")
    return minus(f"{value:.{digits}g}")


def minus(text: str) -> str:
    """The typographer's minus sign in front of a number, and in its exponent, in place of a hyphen."""
    return text.replace("-", "\u2212")


def duration(seconds: float) -> str:
    """`8.4 s`, `1 min 56 s`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: float) -> str:
    """Bytes in words: `25.8 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def plural(count: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
