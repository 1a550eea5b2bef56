"""Line charts as SVG whose colours are the page's CSS variables: one drawing for light, dark and paper.

Sizes are in CSS pixels of a chart at its natural width; the page scales it by at most a tenth on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from markupsafe import Markup, escape

from paperbench.report.html import ticks
from paperbench.report.html.quantities import significant
from paperbench.report.html.thinning import Floats

TONES = 8
"""How many colours the page's style sheet tells apart (`--tone-0` …)."""

MUTED = -1
"""The tone of a line that is context, not subject."""

_TOP, _BOTTOM, _RIGHT = 18, 36, 14
_CHARACTER = 6.3
"""Width of a digit of a tick label."""

_MOST_HITS = 360
"""Points of a chart that answer a pointer: each costs a hundred bytes."""

Stroke = Literal["line", "bold", "faint", "dashed", "marks"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line, (N,) each and sorted by `x`; `low` and `high` are the band around it.

    `listed` lines stand in the legend, which names the last value as `last`; `told` lines answer the pointer.
    """

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    tone: int = 0
    stroke: Stroke = "line"
    listed: bool = True
    told: bool = True
    last: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """`title` and `unit` head it, `note` stands below. `left_out` counts the lines it has no room for."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    unit: str = ""
    note: str = ""
    log_x: bool = False
    log_y: bool = False
    width: int = 400
    height: int = 230
    svg: Markup = field(init=False)
    kind: Literal["chart"] = "chart"

    def __post_init__(self) -> None:
        object.__setattr__(self, "svg", _draw(self))

    @property
    def legend(self) -> list[Line]:
        """The lines to name, if there is more than one of them."""
        listed = [line for line in self.lines if line.listed]
        return listed if len(listed) > 1 else []

    @property
    def last(self) -> str:
        """Where a chart's only curve ends."""
        return "" if self.legend else next((line.last for line in self.lines if line.listed), "")


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels, with its marks."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    marks: list[float]

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def many(self, values: Floats) -> Floats:
        low, high, at = (
            (np.log10(v) for v in (self.low, self.high, values)) if self.log else (self.low, self.high, values)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def texts(self) -> list[str]:
        return [ticks.label(mark) for mark in self.marks] if self.log else ticks.labels(self.marks)


def axis(low: float, high: float, start: float, end: float, *, log: bool, most: int, tight: bool = False) -> Axis:
    """An axis over [low, high] with a little air around it, none if `tight`; of equal ends, some range around them."""
    if log:
        if not high > low:
            low, high = low / 2, high * 2
        air = 1.0 if tight else (high / low) ** 0.04
        return Axis(low / air, high * air, start, end, True, ticks.logarithmic(low / air, high * air, most))
    if not high > low:
        around = abs(low) * 0.1 or 1.0
        low, high = low - around, high + around
    air = 0.0 if tight else (high - low) * 0.05
    bottom = 0.0 if low >= 0 > low - air else low - air
    return Axis(bottom, high + air, start, end, False, ticks.linear(bottom, high + air, most))


def _draw(chart: Chart) -> Markup:
    xs = np.concatenate([line.x for line in chart.lines])
    ys = np.concatenate([part for line in chart.lines for part in (line.y, line.low, line.high) if part is not None])
    vertical = axis(float(ys.min()), float(ys.max()), chart.height - _BOTTOM, _TOP, log=chart.log_y, most=5)
    left = 12 + _CHARACTER * max(map(len, vertical.texts))
    horizontal = axis(
        float(xs.min()), float(xs.max()), left, chart.width - _RIGHT, log=chart.log_x, most=6, tight=not chart.log_x
    )
    bands = [_band(line, horizontal, vertical) for line in chart.lines if line.low is not None]
    paths = [_path(line, horizontal, vertical) for line in chart.lines]
    return Markup(
        f'<svg class="chart" viewBox="0 0 {chart.width} {chart.height}" role="img" aria-label="{escape(_in_words(chart))}">'
        f"{_frame(chart, horizontal, vertical, left)}{''.join(bands)}{''.join(paths)}{_hits(chart, horizontal, vertical)}</svg>"
    )


def _in_words(chart: Chart) -> str:
    """What the drawing shows, for those who do not see it."""
    listed = [line for line in chart.lines if line.listed]
    named = "; ".join(f"{line.label} ends at {significant(float(line.y[-1]))}" for line in listed[:TONES])
    unit = f" in {chart.unit}" if chart.unit else ""
    more = f"; and {len(listed) - TONES} more lines" if len(listed) > TONES else ""
    return f"{chart.title}{unit} over {chart.x_label}: {named}{more}"


def _frame(chart: Chart, horizontal: Axis, vertical: Axis, left: float) -> str:
    right, base = chart.width - _RIGHT, chart.height - _BOTTOM
    parts = []
    for mark, text in zip(vertical.marks, vertical.texts, strict=True):
        y = vertical(mark)
        parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{left - 6:.1f}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    for mark, text in zip(horizontal.marks, horizontal.texts, strict=True):
        x = horizontal(mark)
        # The last label would be cut off where it is centred on the very end of the axis.
        anchor = "end" if x > right - 14 and len(text) > 2 else "middle"
        parts.append(f'<path class="axis" d="M{x:.1f} {base}v4"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{base + 16}" text-anchor="{anchor}">{text}</text>')
    parts.append(f'<path class="axis" d="M{left:.1f} {base}H{right}"/>')
    above = (
        chart.unit + (", logarithmic" if chart.log_y else "") if chart.unit else "logarithmic" if chart.log_y else ""
    )
    below = chart.x_label + (", logarithmic" if chart.log_x else "")
    parts.append(f'<text class="name" x="{left:.1f}" y="10">{escape(above)}</text>')
    parts.append(f'<text class="name" x="{right}" y="{chart.height - 5}" text-anchor="end">{escape(below)}</text>')
    return "".join(parts)


def _coordinates(x: Floats, y: Floats) -> list[str]:
    return [f"{a:.1f} {b:.1f}".replace(".0", "") for a, b in zip(x, y, strict=True)]


def _band(line: Line, horizontal: Axis, vertical: Axis) -> str:
    assert line.low is not None
    assert line.high is not None
    x = horizontal.many(line.x)
    there, back = _coordinates(x, vertical.many(line.high)), _coordinates(x[::-1], vertical.many(line.low)[::-1])
    return f'<path class="band {tone_class(line.tone)}" d="M{"L".join(there + back)}Z"/>'


def _path(line: Line, horizontal: Axis, vertical: Axis) -> str:
    points = _coordinates(horizontal.many(line.x), vertical.many(line.y))
    classes = f"{tone_class(line.tone)}{'' if line.stroke in ('line', 'marks') else f' {line.stroke}'}"
    dots = ""
    if len(points) == 1 or line.stroke == "marks":
        dots = "".join(
            '<circle class="dot {}" cx="{}" cy="{}" r="3"/>'.format(classes, *point.split()) for point in points
        )
    return f'<path class="line {classes}" d="M{"L".join(points)}"/>{dots}'


def tone_class(tone: int) -> str:
    """The class of the style sheet that gives a tone its colour."""
    return "muted" if tone == MUTED else f"tone-{tone % TONES}"


def _hits(chart: Chart, horizontal: Axis, vertical: Axis) -> str:
    """Points that say their values under a pointer; where a script runs, it shows those nearest to it."""
    told = [line for line in chart.lines if line.told]
    each = max(2, _MOST_HITS // max(1, len(told)))
    parts = []
    for line in told[: _MOST_HITS // 2]:
        picked = np.unique(np.linspace(0, len(line.x) - 1, min(each, len(line.x))).round().astype(int))
        parts.append(f'<g class="hits {tone_class(line.tone)}">')
        parts += [_hit(chart, line, index, horizontal, vertical) for index in picked]
        parts.append("</g>")
    return "".join(parts)


def _hit(chart: Chart, line: Line, index: int, horizontal: Axis, vertical: Axis) -> str:
    x, y = float(line.x[index]), float(line.y[index])
    band = ""
    if line.low is not None and line.high is not None:
        band = f" ({significant(float(line.low[index]))} to {significant(float(line.high[index]))})"
    value = f"{significant(y, 5)}{band}{f' {chart.unit}' if chart.unit else ''}"
    where = f"{chart.x_label} {significant(int(x) if x.is_integer() else x)}"
    return (
        f'<circle cx="{horizontal(x):.1f}" cy="{vertical(y):.1f}" r="5">'
        f"<title>{escape(where)}: {escape(line.label)} {escape(value)}</title></circle>"
    )


def spans_decades(values: Sequence[float] | Floats, *, times: float) -> bool:
    """Whether all values are above zero and the largest is more than `times` the smallest: what a logarithmic axis is for."""
    low, high = float(np.min(values)), float(np.max(values))
    return low > 0 and high > times * low
