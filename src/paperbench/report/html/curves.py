"""From what runs logged to charts: one run by itself, or settings with a band over their seeds.

Everything drawn was logged, but for the smoothed course of a noisy curve, which the chart's note names as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paperbench.config.words import counted
from paperbench.engine.figures import smooth
from paperbench.records.grouping import Setting
from paperbench.records.record import RunRecord
from paperbench.report.html.axes import Floats
from paperbench.report.html.charts import COLORS, MUTED, Chart, Line, spans_decades, thin_band, thin_indices
from paperbench.report.html.quantities import Quantities, plural

BUDGET = 1_100_000
"""Bytes that all charts of a page may take."""

MOST_CHARTS = 60
_POINTS_OF_ALL_LINES = 6000
"""Points that a chart spends on its lines together: 100 lines get 60 each, one gets all it needs."""

_MOST_POINTS, _FEWEST_POINTS = 320, 40
_ENOUGH_TO_SMOOTH = 60
_RESTLESS = 3.0
"""A curve that goes up and down by more than so many times its whole range is noisy."""

_DECADES_OF_LOSS = 20.0
_LOSS = "train/loss"

Series = tuple[Floats, Floats]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The charts, the most telling first, what holds for all of them, and the names of the curves that there was no room for."""

    charts: tuple[Chart, ...]
    left_out: tuple[str, ...]
    note: str = ""


# --- one run ----------------------------------------------------------------------------------------------------------


def of_run(run: RunRecord, quantities: Quantities) -> Curves:
    """Return one chart for every number that was logged at two steps or more; the parts of the loss share one, and so do the
    classes of a metric."""
    series = {name: found for name in _names([run]) if len((found := _series(run, name))[0]) > 1}
    panels: dict[str, list[str]] = {}
    for name in _ordered(series, quantities):
        panels.setdefault(_panel(name), []).append(name)
    charts = _affordable(_panel_chart(title, names, series, quantities) for title, names in panels.items())
    return Curves(
        charts=charts,
        left_out=tuple(name for names in list(panels.values())[len(charts) :] for name in names),
    )


def _affordable(charts: Iterable[Chart]) -> tuple[Chart, ...]:
    """Return as many charts as the page has room for; the others are never drawn."""
    affordable: list[Chart] = []
    spent = 0
    for chart in charts:
        spent += len(chart.svg)
        if spent > BUDGET or len(affordable) == MOST_CHARTS:
            break
        affordable.append(chart)
    return tuple(affordable)


def _panel(name: str) -> str:
    """Return the title of a curve's chart: its own, that of the loss's parts, or that of a metric's classes."""
    if name.startswith(f"{_LOSS}_"):
        return "parts of train/loss"
    parts = name.split("/")
    return f"{'/'.join(parts[:-1])}/…" if len(parts) > 2 else name


def _panel_chart(title: str, names: Sequence[str], series: Mapping[str, Series], quantities: Quantities) -> Chart:
    shown = names[:COLORS]
    lines: list[Line] = []
    smoothed = any(_noisy(series[name][1]) for name in shown)
    for color, name in enumerate(shown):
        x, y = series[name]
        label = _short(name, title) if len(names) > 1 else name
        last = quantities.number(name, float(y[-1]))
        if not smoothed:
            lines.append(_thin(Line(label=label, x=x, y=y, color=color, last=last), _MOST_POINTS))
            continue
        if len(shown) == 1:
            lines.append(_thin(Line(label=label, x=x, y=y, color=color, stroke="faint", last=last), _MOST_POINTS))
        course = Line(
            label=label,
            x=x,
            y=smooth(y),
            color=color,
            stroke="bold",
            in_legend=len(shown) > 1,
            hoverable=len(shown) > 1,
            last=last,
        )
        lines.append(_thin(course, _MOST_POINTS))
    notes = []
    if smoothed:
        notes.append(
            "Bold: exponential mean over 5 % of the points."
            if len(shown) == 1
            else "Exponential means over 5 % of the points."
        )
    if len(names) > len(shown):
        notes.append(f"{plural(len(names) - len(shown), 'more curve')} in metrics.jsonl.")
    return Chart(
        title=title,
        unit=quantities.unit(names[0]),
        x_label="step",
        lines=tuple(lines),
        log_y=_logarithmic(names[0], lines),
        note=" ".join(notes),
    )


def _noisy(values: Floats) -> bool:
    """Return whether a curve is noisy enough to be drawn with its exponential mean."""
    return len(values) >= _ENOUGH_TO_SMOOTH and float(np.abs(np.diff(values)).sum()) > _RESTLESS * float(np.ptp(values))


def _short(name: str, title: str) -> str:
    if name.startswith(f"{_LOSS}_"):
        return name[len(_LOSS) + 1 :].replace("_", " ")
    return name.removeprefix(title.removesuffix("…"))


# --- settings ---------------------------------------------------------------------------------------------------------


def of_settings(settings: Sequence[Setting], quantities: Quantities) -> Curves:
    """Return one chart for every number that was logged at two steps or more: a line for each setting, the mean of its seeds
    with their range. Runs that did not end have dashed lines of their own."""
    runs = [run for setting in settings for run in setting.runs]
    names = [name for name in _ordered(_names(runs), quantities) if any(len(_series(run, name)[0]) > 1 for run in runs)]
    colors = _colors(settings)
    charts = _affordable(_settings_chart(name, settings, colors, quantities) for name in names)
    return Curves(charts=charts, left_out=tuple(names[len(charts) :]), note=_note(charts, colors))


def _note(charts: Sequence[Chart], colors: Sequence[int]) -> str:
    lines = [line for chart in charts for line in chart.lines]
    notes = []
    if any(line.low is not None for line in lines):
        notes.append("Lines are means over seeds, bands reach from the lowest seed to the highest.")
    if any(line.stroke == "dashed" for line in lines):
        notes.append("Dashed lines and hollow dots are runs that did not end.")
    more = sum(color == MUTED for color in colors)
    if more:
        notes.append(f"Grey: {plural(more, 'more setting')}.")
    return " ".join(notes)


def _settings_chart(name: str, settings: Sequence[Setting], colors: Sequence[int], quantities: Quantities) -> Chart:
    lines = [
        line
        for setting, color in zip(settings, colors, strict=True)
        for line in _setting_lines(name, setting, color, quantities)
    ]
    most = max(_FEWEST_POINTS, min(_MOST_POINTS, _POINTS_OF_ALL_LINES // max(1, len(lines))))
    return Chart(
        title=name,
        unit=quantities.unit(name),
        x_label="step",
        lines=tuple(_thin(line, most) for line in lines),
        log_y=_logarithmic(name, lines),
    )


def _colors(settings: Sequence[Setting]) -> list[int]:
    """Return a color for each setting; the settings beyond the last color are grey."""
    return [index if index < COLORS else MUTED for index in range(len(settings))]


def _setting_lines(name: str, setting: Setting, color: int, quantities: Quantities) -> list[Line]:
    ended = [found for run in setting.done if len((found := _series(run, name))[0])]
    lines = []
    x, stacked = _aligned(ended)
    if len(ended) > 1 and len(x):
        mean = stacked.mean(axis=0)
        lines.append(
            Line(
                label=f"{setting.label} ({counted(len(ended), 'seeds')})",
                x=x,
                y=mean,
                low=stacked.min(axis=0),
                high=stacked.max(axis=0),
                color=color,
                in_legend=color != MUTED,
                hoverable=color != MUTED,
                last=quantities.number(name, float(mean[-1])),
            )
        )
    else:
        lines += [
            _single(name, setting.label, found, color, quantities, in_legend=not index)
            for index, found in enumerate(ended)
        ]
    for run in setting.runs:
        found = _series(run, name)
        if not run.done and len(found[0]):
            label = f"{setting.label} (seed {run.seed}, {run.state})"
            lines.append(_single(name, label, found, color, quantities, in_legend=False, dashed=True))
    return lines


def _single(
    name: str, label: str, found: Series, color: int, quantities: Quantities, *, in_legend: bool, dashed: bool = False
) -> Line:
    return Line(
        label=label,
        x=found[0],
        y=found[1],
        color=color,
        stroke="dashed" if dashed else "line",
        in_legend=in_legend and color != MUTED,
        hoverable=color != MUTED,
        last=quantities.number(name, float(found[1][-1])),
    )


def _aligned(series: Sequence[Series]) -> tuple[Floats, Floats]:
    """Return the steps that all series have, (N,), and their values there, (series, N)."""
    if not series:
        return np.empty(0), np.empty((0, 0))
    steps = series[0][0]
    for other, _ in series[1:]:
        steps = np.intersect1d(steps, other)
    return steps, np.stack([values[np.isin(own, steps)] for own, values in series])


# --- what was logged --------------------------------------------------------------------------------------------------


def _names(runs: Sequence[RunRecord]) -> list[str]:
    """Return the names of all logged numbers, in the order of their first appearance."""
    return list(dict.fromkeys(name for run in runs for name in run.history))


def _series(run: RunRecord, name: str) -> Series:
    """Return the steps at which `name` was logged as a finite number, and its values, (N,) each."""
    steps, values = run.history.get(name, ((), ()))
    return np.array(steps, np.float64), np.array(values, np.float64)


def _ordered(names: Sequence[str] | Mapping[str, object], quantities: Quantities) -> list[str]:
    """Sort names: the loss, evaluated metrics, the parts of the loss, then the other numbers of training."""
    order = quantities.order(names)

    def rank(name: str) -> int:
        if name == _LOSS:
            return 0
        if name.startswith(f"{_LOSS}_"):
            return 2
        return 3 if name.startswith("train/") else 1

    return sorted(order, key=rank)


def _logarithmic(name: str, lines: Sequence[Line]) -> bool:
    """Return whether the lines are losses over more than a decade. Rates that reach zero, and percentages, stay linear."""
    return "loss" in name and spans_decades(np.concatenate([line.y for line in lines]), times=_DECADES_OF_LOSS)


def _thin(line: Line, most: int) -> Line:
    if line.low is None or line.high is None:
        keep = thin_indices(line.y, most)
        return replace(line, x=line.x[keep], y=line.y[keep])
    x, y, low, high = thin_band(line.x, line.y, line.low, line.high, most)
    return replace(line, x=x, y=y, low=low, high=high)
