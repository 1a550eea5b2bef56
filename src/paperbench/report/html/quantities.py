"""Numbers as a report writes them: rounding, unit, and their order."""

from __future__ import annotations

import math
from collections.abc import Iterable

from paperbench.records.metrics import UNKNOWN, MetricRegistry, all_metrics

MISSING = "\u2013"


class Quantities:
    """Metrics as a report writes them, in the formats, units and order of a registry."""

    def __init__(self, metrics: MetricRegistry | None = None) -> None:
        self._metrics = all_metrics() if metrics is None else metrics

    def number(self, name: str, value: float) -> str:
        """The value rounded, without its unit."""
        if not math.isfinite(value):
            return str(value)
        if isinstance(value, int) or self._metrics[name].format == UNKNOWN.format:
            return significant(value)
        return minus(self._metrics.number(name, value))

    def with_unit(self, name: str, value: float) -> str:
        """`68.6 %`."""
        unit = self.unit(name)
        return f"{self.number(name, value)} {unit}" if unit else self.number(name, value)

    def unit(self, name: str) -> str:
        """`%`, `s`, `nats`; empty where there is none, or none is known."""
        return self._metrics[name].unit

    def order(self, names: Iterable[str]) -> list[str]:
        """Headlines first, in their order; the others as they come."""
        return self._metrics.order(names)

    def headlines(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that deserve to be read first, in their order."""
        return self._metrics.headlines(names)

    def best(self, name: str, values: Iterable[float]) -> float | None:
        """The best of several values; None for a metric without a better direction."""
        return self._metrics.best(name, values)


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
