"""Published numbers beside measured ones as dots on one scale: the paper's with its tolerance, ours with every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup, escape

from paperbench.report.html.axes import Axis, axis
from paperbench.report.html.quantities import significant

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP, _BOTTOM = 400, 14, 14, 44, 4, 36


@dataclass(frozen=True, kw_only=True)
class Dots:
    """One row: `published` with its `tolerance`, and what was measured: every value, their mean, and an interval.

    `comparable` is False where ours was made on other data or at another scale; it is then drawn hollow.
    """

    label: str
    published: float | None = None
    tolerance: float | None = None
    values: tuple[float, ...] = ()
    mean: float | None = None
    interval: tuple[float, float] | None = None
    comparable: bool = True

    @property
    def extent(self) -> list[float]:
        """All values that must fit on the scale."""
        values = [*self.values, *(self.interval or ())]
        values += [self.mean] if self.mean is not None else []
        if self.published is not None:
            values += [self.published - (self.tolerance or 0), self.published + (self.tolerance or 0)]
        return values


@dataclass(frozen=True, kw_only=True)
class DotPlot:
    """Rows on one scale. `unit` names it, `note` stands below."""

    title: str
    rows: tuple[Dots, ...]
    unit: str = ""
    note: str = ""
    svg: Markup = field(init=False)
    kind: Literal["chart"] = "chart"

    def __post_init__(self) -> None:
        object.__setattr__(self, "svg", _draw(self))

    last = ""

    @property
    def legend(self) -> list[object]:
        """Empty: the page explains the signs once."""
        return []


def _draw(plot: DotPlot) -> Markup:
    extent = [value for row in plot.rows for value in row.extent]
    height = _TOP + _ROW * len(plot.rows) + _BOTTOM
    scale = axis(min(extent), max(extent), _LEFT, _WIDTH - _RIGHT, log=False, most=6)
    base = height - _BOTTOM
    parts = []
    for mark, text in zip(scale.marks, scale.texts, strict=True):
        x = scale(mark)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{base}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{base + 16}" text-anchor="middle">{text}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {base}H{_WIDTH - _RIGHT}"/>')
    parts.append(
        f'<text class="name" x="{_WIDTH - _RIGHT}" y="{height - 4}" text-anchor="end">{escape(plot.unit)}</text>'
    )
    parts += [_row(row, _TOP + _ROW * index, scale) for index, row in enumerate(plot.rows)]
    return Markup(
        f'<svg class="chart dots" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(_in_words(plot))}">'
        f"{''.join(parts)}</svg>"
    )


def _in_words(plot: DotPlot) -> str:
    sentences = []
    for row in plot.rows:
        paper = "not published" if row.published is None else f"paper {significant(row.published)}"
        ours = "not measured" if row.mean is None else f"here {significant(row.mean)}"
        sentences.append(f"{row.label}: {paper}, {ours}")
    return f"{plot.title}. {'; '.join(sentences)}"


def _row(row: Dots, top: float, scale: Axis) -> str:
    middle = top + 28
    parts = [f'<text class="label" x="{_LEFT}" y="{top + 14}">{escape(row.label)}</text>']
    if row.published is not None:
        parts.append(_published(row.published, row.tolerance, middle, scale))
    style = "ours" if row.comparable else "ours hollow"
    if row.interval is not None:
        low, high = (scale(value) for value in row.interval)
        parts.append(
            f'<path class="whisker {style}" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>'
        )
    if len(row.values) > 1:
        parts += [
            f'<circle class="seed {style}" cx="{scale(value):.1f}" cy="{middle}" r="2.5"/>' for value in row.values
        ]
    if row.mean is not None:
        title = f"here {significant(row.mean, 5)}"
        parts.append(
            f'<circle class="mean {style}" cx="{scale(row.mean):.1f}" cy="{middle}" r="5"><title>{title}</title></circle>'
        )
    return "".join(parts)


def _published(value: float, tolerance: float | None, middle: float, scale: Axis) -> str:
    x = scale(value)
    title = f"paper {significant(value, 6)}"
    band = ""
    if tolerance is not None:
        low, high = scale(value - tolerance), scale(value + tolerance)
        title += f", tolerance ±{significant(tolerance, 6)}"
        band = f'<rect class="tolerance" x="{low:.1f}" y="{middle - 8}" width="{max(high - low, 1):.1f}" height="16"/>'
    return f'<g>{band}<path class="paper" d="M{x:.1f} {middle - 9}v18"/><title>{escape(title)}</title></g>'


def legible(rows: Sequence[Dots]) -> bool:
    """Return whether the rows fit on one scale: a single outlier would press all others together."""
    extent = sorted(value for row in rows for value in row.extent)
    if len(extent) < 2:
        return False
    spread = extent[-1] - extent[0]
    inner = extent[-2] - extent[0], extent[-1] - extent[1]
    return spread == 0 or (max(inner) > 0 and min(inner) > 0.02 * spread) or len(extent) < 4
