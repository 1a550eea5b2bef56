"""Line charts as SVG whose colours are the page's CSS variables: one drawing for light, dark and paper.

Sizes are in CSS pixels of a chart at its natural width; the page scales it by at most a tenth on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from paperbench.report.html.axes import Axis, Floats, axis
from paperbench.report.html.quantities import significant

COLORS = 8
"""Number of line colors in the page's style sheet (`--color-0` …)."""

MUTED = -1
"""The color of a line that is only context."""

_TOP, _BOTTOM, _RIGHT = 18, 36, 14
_CHARACTER = 6.3
"""Width of a digit of a tick label."""

_MAX_HOVER_TARGETS = 360
"""Most hover targets of a chart: each costs a hundred bytes."""

Stroke = Literal["line", "bold", "faint", "dashed", "marks"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line, (N,) each and sorted by `x`; `low` and `high` are the band around it.

    `in_legend` lines stand in the legend with their last value, `last`; `hoverable` lines show values under the pointer.
    """

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    color: int = 0
    stroke: Stroke = "line"
    in_legend: bool = True
    hoverable: bool = True
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
        """The lines of the legend, which only several lines need."""
        in_legend = [line for line in self.lines if line.in_legend]
        return in_legend if len(in_legend) > 1 else []

    @property
    def last(self) -> str:
        """The last value of a chart with a single curve."""
        return "" if self.legend else next((line.last for line in self.lines if line.in_legend), "")


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
        f"{_frame(chart, horizontal, vertical, left)}{''.join(bands)}{''.join(paths)}"
        f"{_hover_targets(chart, horizontal, vertical)}</svg>"
    )


def _in_words(chart: Chart) -> str:
    """Return the text that describes the drawing to a screen reader."""
    in_legend = [line for line in chart.lines if line.in_legend]
    named = "; ".join(f"{line.label} ends at {significant(float(line.y[-1]))}" for line in in_legend[:COLORS])
    unit = f" in {chart.unit}" if chart.unit else ""
    more = f"; and {len(in_legend) - COLORS} more lines" if len(in_legend) > COLORS else ""
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
    return f'<path class="band {color_class(line.color)}" d="M{"L".join(there + back)}Z"/>'


def _path(line: Line, horizontal: Axis, vertical: Axis) -> str:
    points = _coordinates(horizontal.many(line.x), vertical.many(line.y))
    classes = f"{color_class(line.color)}{'' if line.stroke in ('line', 'marks') else f' {line.stroke}'}"
    dots = ""
    if len(points) == 1 or line.stroke == "marks":
        dots = "".join(
            '<circle class="dot {}" cx="{}" cy="{}" r="3"/>'.format(classes, *point.split()) for point in points
        )
    return f'<path class="line {classes}" d="M{"L".join(points)}"/>{dots}'


def color_class(color: int) -> str:
    """Return the class of the style sheet for a line's color."""
    return "muted" if color == MUTED else f"color-{color % COLORS}"


def _hover_targets(chart: Chart, horizontal: Axis, vertical: Axis) -> str:
    """Return points that show their values under a pointer; with scripts, the nearest ones are shown."""
    hoverable = [line for line in chart.lines if line.hoverable]
    each = max(2, _MAX_HOVER_TARGETS // max(1, len(hoverable)))
    parts = []
    for line in hoverable[: _MAX_HOVER_TARGETS // 2]:
        picked = np.unique(np.linspace(0, len(line.x) - 1, min(each, len(line.x))).round().astype(int))
        parts.append(f'<g class="hover-targets {color_class(line.color)}">')
        parts += [_hover_target(chart, line, index, horizontal, vertical) for index in picked]
        parts.append("</g>")
    return "".join(parts)


def _hover_target(chart: Chart, line: Line, index: int, horizontal: Axis, vertical: Axis) -> str:
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
    """Return whether all values are positive and the largest is more than `times` the smallest: then a log axis helps."""
    low, high = float(np.min(values)), float(np.max(values))
    return low > 0 and high > times * low


# --- thinning ---------------------------------------------------------------------------------------------------------


def thin_indices(values: Floats, most: int) -> NDArray[np.int64]:
    """Return the ascending indices of at most `most` (at least 4) of the (N,) values: both ends, and the smallest and the
    largest of each of equal stretches, so that every peak and dip stays."""
    count = len(values)
    most = max(most, 4)
    if count <= most:
        return np.arange(count)
    buckets = (most - 2) // 2
    edges = np.linspace(1, count - 1, buckets + 1).astype(np.int64)
    chosen = [0, count - 1]
    for first, last in pairwise(edges):
        if last > first:
            stretch = values[first:last]
            chosen += [first + int(np.argmin(stretch)), first + int(np.argmax(stretch))]
    return np.unique(np.array(chosen, np.int64))


def thin_band(x: Floats, middle: Floats, low: Floats, high: Floats, most: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Return a line with a band around it, all (N,), in at most `most` points: each of equal stretches has the widest extent
    of its band, and the lowest and the highest point of its line."""
    if len(x) <= most:
        return x, middle, low, high
    keep = thin_indices(middle, most)
    starts = np.concatenate(([0], (keep[1:] + keep[:-1] + 1) // 2))
    return x[keep], middle[keep], np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
