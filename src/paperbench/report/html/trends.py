"""Results against a number that was varied: one chart for each of the chief metrics, a line for each other setting, a band over
the seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paperbench.records.grouping import Setting
from paperbench.report.html.charts import COLORS, Chart, Line, spans_decades
from paperbench.report.html.curves import Curves
from paperbench.report.html.quantities import Quantities

FEWEST = 3
"""Values of the varied number from which on a line says more than a table."""

_DECADE = 9.0


def of_settings(settings: Sequence[Setting], names: Sequence[str], quantities: Quantities) -> Curves:
    """Charts of the metrics `names` against the first key that was varied over numbers; none where there is no such key."""
    key = _numeric_key(settings)
    if key is None:
        return Curves(charts=(), left_out=())
    charts = [chart for name in names if (chart := _chart(name, key, settings, quantities)) is not None]
    return Curves(charts=tuple(charts), left_out=())


def _numeric_key(settings: Sequence[Setting]) -> str | None:
    for key in settings[0].values if settings else ():
        found = [_number(setting.values.get(key, "")) for setting in settings]
        if all(value is not None for value in found) and len(set(found)) >= FEWEST:
            return key
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _chart(name: str, key: str, settings: Sequence[Setting], quantities: Quantities) -> Chart | None:
    points: dict[str, dict[float, list[float]]] = {}
    for setting in settings:
        x = _number(setting.values[key])
        values = [run.metrics[name] for run in setting.done if name in run.metrics]
        if x is not None and values:
            others = ", ".join(f"{other}={value}" for other, value in setting.values.items() if other != key)
            points.setdefault(others, {}).setdefault(x, []).extend(values)
    lines = [_line(label, by_x, color) for color, (label, by_x) in enumerate(list(points.items())[:COLORS])]
    lines = [line for line in lines if len(line.x) >= FEWEST]
    if not lines:
        return None
    several = any(len(values) > 1 for by_x in points.values() for values in by_x.values())
    left_out = len(points) - COLORS
    notes = ["Means, and bands from the smallest to the largest over seeds."] if several else []
    notes += [f"{left_out} more settings in the tables."] if left_out > 0 else []
    return Chart(
        title=name,
        unit=quantities.unit(name),
        x_label=key,
        lines=tuple(lines),
        log_x=spans_decades(np.concatenate([line.x for line in lines]), times=_DECADE),
        note=" ".join(notes),
    )


def _line(label: str, by_x: dict[float, list[float]], color: int) -> Line:
    xs = sorted(by_x)
    several = any(len(by_x[x]) > 1 for x in xs)
    return Line(
        label=label or "all runs",
        x=np.array(xs),
        y=np.array([float(np.mean(by_x[x])) for x in xs]),
        low=np.array([min(by_x[x]) for x in xs], np.float64) if several else None,
        high=np.array([max(by_x[x]) for x in xs], np.float64) if several else None,
        color=color,
    )
