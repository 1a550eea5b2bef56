"""Marks of axes, thinning, and the drawings themselves."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from paperbench.report.html.axes import linear_ticks, log_ticks, tick_label, tick_labels
from paperbench.report.html.charts import MUTED, Chart, Line, spans_decades, thin_band, thin_indices
from paperbench.report.html.dotplot import DotPlot, Dots, legible

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


# --- ticks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (20, 2000, ["500", "1000", "1500", "2000"]),
        (0, 50_000, ["0", "10k", "20k", "30k", "40k", "50k"]),
        (-1, 1, ["\u22121.0", "\u22120.5", "0", "0.5", "1.0"]),
        (0, 3e-7, ["0", "1e\u22127", "2e\u22127", "3e\u22127"]),
        (5, 5, ["5"]),
    ],
)
def test_linear_marks(low: float, high: float, marks: list[str]) -> None:
    found = linear_ticks(low, high)

    assert tick_labels(found) == marks
    assert all(low <= mark <= high for mark in found)


@pytest.mark.parametrize(("low", "high"), [(0.003, 2), (1, 1.4), (1e-9, 1e9), (3, 4000)])
def test_logarithmic_marks_lie_inside_and_are_few(low: float, high: float) -> None:
    found = log_ticks(low, high)

    assert 2 <= len(found) <= 6
    assert all(low * 0.999 <= mark <= high * 1.001 for mark in found)
    assert len(set(map(tick_label, found))) == len(found)


def test_decades_that_are_too_many_are_thinned() -> None:
    assert len(log_ticks(1e-30, 1e30)) <= 6


# --- thinning ---------------------------------------------------------------------------------------------------------


def test_no_peak_is_lost() -> None:
    values = np.random.default_rng(0).standard_normal(10_000)
    values[[17, 4321]] = 99.0, -99.0
    keep = thin_indices(values, 100)

    assert len(keep) <= 100
    assert {0, 17, 4321, 9_999} <= set(keep.tolist())
    assert np.all(np.diff(keep) > 0)


def test_few_points_stay_as_they_are() -> None:
    assert thin_indices(np.arange(7.0), 100).tolist() == list(range(7))


def test_a_band_is_never_narrower_than_it_was() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(1_000.0)
    low, high = np.sort(rng.standard_normal((2, 1_000)), axis=0)
    some_x, middle, some_low, some_high = thin_band(x, (low + high) / 2, low, high, 60)

    assert len(some_x) == len(middle) == len(some_low) == len(some_high) <= 60
    assert some_low.min() == low.min()
    assert some_high.max() == high.max()
    at = np.searchsorted(x, some_x)
    assert np.all(some_low <= low[at])
    assert np.all(some_high >= high[at])


# --- line charts ------------------------------------------------------------------------------------------------------


def line(label: str = "a", **more: object) -> Line:
    x = np.array([1.0, 2.0, 4.0])
    return Line(label=label, x=x, y=x * 10, **more)  # type: ignore[arg-type]


def test_a_chart_is_well_formed_and_says_its_values() -> None:
    chart = Chart(title="score", unit="%", x_label="step", lines=(line("first"), line("second", color=1)))
    root = parsed(chart.svg)

    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert "step 4: first 40 %" in titles
    assert "step 1: second 10 %" in titles
    assert (root.get("aria-label") or "").startswith("score in % over step: first ends at 40; second")
    assert [text.text for text in root.iter(f"{SVG}text")][-2:] == ["%", "step"]


def test_points_are_where_their_values_are() -> None:
    chart = Chart(title="score", x_label="step", lines=(line(),))
    path = next(path for path in parsed(chart.svg).iter(f"{SVG}path") if "line" in (path.get("class") or ""))
    points = np.array([[float(number) for number in pair.split()] for pair in (path.get("d") or "")[1:].split("L")])

    # Equal steps of the value are equal steps on paper, upwards.
    slope = np.diff(points[:, 1]) / np.diff(points[:, 0])
    assert np.allclose(slope, slope[0], atol=0.01)
    assert slope[0] < 0
    assert np.diff(points[:, 0])[1] == pytest.approx(2 * np.diff(points[:, 0])[0], abs=0.2)


def test_names_in_a_drawing_are_escaped() -> None:
    chart = Chart(title="<b>", unit="<u>", x_label='"x"', lines=(line("<script>"), line("&")))

    assert "<script>" not in chart.svg
    assert "<b>" not in chart.svg
    parsed(chart.svg)


@pytest.mark.parametrize(
    ("x", "y"), [([3.0], [5.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [-1e-12, 1e12]), ([5.0, 5.0], [7.0, 7.0])]
)
@pytest.mark.parametrize("log", [False, True])
def test_odd_ranges_are_drawn_all_the_same(x: list[float], y: list[float], log: bool) -> None:
    lines = (Line(label="a", x=np.array(x), y=np.array(y)),)
    if log and min(y) <= 0:
        return
    chart = Chart(title="t", x_label="step", lines=lines, log_y=log, log_x=log)

    assert "nan" not in chart.svg
    assert "inf" not in chart.svg
    numbers = [float(number) for number in re.findall(r'[cxy]="(-?[\d.]+)"', chart.svg)]
    assert all(-20 < number < 420 for number in numbers)


def test_a_single_curve_needs_no_legend_and_grey_ones_have_none() -> None:
    alone = Chart(title="t", x_label="step", lines=(line(last="40"),))
    crowd = Chart(title="t", x_label="step", lines=(line(), line("b"), line("c", color=MUTED, in_legend=False)))

    assert (alone.legend, alone.last) == ([], "40")
    assert ([entry.label for entry in crowd.legend], crowd.last) == (["a", "b"], "")


def test_many_lines_answer_with_few_points() -> None:
    x = np.arange(1_000.0)
    lines = tuple(Line(label=str(i), x=x, y=x + i) for i in range(50))
    chart = Chart(title="t", x_label="step", lines=lines)

    assert 50 * 2 <= chart.svg.count("<title>") <= 400
    assert "step 999: 49 1048<" in chart.svg  # the end of a line always answers


def test_what_a_logarithmic_axis_is_for() -> None:
    assert spans_decades([1, 100], times=20)
    assert not spans_decades([0, 100], times=20)
    assert not spans_decades([1, 10], times=20)


# --- dots -------------------------------------------------------------------------------------------------------------


def test_dots_say_the_paper_and_ours() -> None:
    rows = (
        Dots(label="cnn", published=70.0, tolerance=1.5, values=(69.0, 71.0), mean=70.0, interval=(69.0, 71.0)),
        Dots(label="<i>", published=65.0, mean=50.0, values=(50.0,), comparable=False),
        Dots(label="only ours", mean=60.0, values=(60.0,)),
    )
    plot = DotPlot(title="mAP", unit="%", rows=rows)
    root = parsed(plot.svg)

    assert (
        root.get("aria-label")
        == "mAP. cnn: paper 70, here 70; <i>: paper 65, here 50; only ours: not published, here 60"
    )
    assert "paper 70, tolerance ±1.5" in [title.text for title in root.iter(f"{SVG}title")]
    assert plot.svg.count('class="tolerance"') == 1
    assert plot.svg.count("hollow") == 1


def test_one_outlier_makes_a_useless_drawing() -> None:
    near = [Dots(label=str(i), published=50.0 + i, mean=51.0 + i) for i in range(4)]

    assert legible(near)
    assert not legible([*near, Dots(label="far", mean=1e6)])
    assert not legible([Dots(label="nothing")])
