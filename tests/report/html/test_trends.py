"""Results against a number that was varied."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.records.grouping import settings_of
from paperbench.records.record import RunRecord
from paperbench.report.html import trends
from paperbench.report.html.quantities import Quantities


def _run(temperature: str, seed: int, errors: float, *, width: str = "800") -> RunRecord:
    return RunRecord(
        directory=Path(f"{temperature}-{seed}-{width}"),
        name=f"{temperature}-{seed}-{width}",
        state="done",
        config={"experiment": "distill", "temperature": temperature, "seed": seed, "width": width},
        results={"status": "done", "metrics": {"test/errors": errors}},
        labels={"temperature": temperature, "width": width, "seed": str(seed)},
    )


def _charts(runs: list[RunRecord]) -> trends.Curves:
    return trends.of_settings(settings_of(runs), ["test/errors", "absent"], Quantities())


def test_a_line_for_each_other_setting_and_a_band_over_seeds() -> None:
    runs = [
        _run(t, seed, 10 * float(t) + seed, width=width)
        for width in ("800", "30")
        for t in ("20", "1", "4")
        for seed in (0, 1, 2)
    ]
    (chart,) = _charts(runs).charts
    assert chart.title == "test/errors"
    assert chart.x_label == "temperature"
    assert chart.log_x
    assert [line.label for line in chart.lines] == ["width=800", "width=30"]
    line = chart.lines[0]
    assert line.x.tolist() == [1, 4, 20]
    assert line.y.tolist() == [11, 41, 201]
    assert line.low is not None
    assert line.high is not None
    assert (line.low.tolist(), line.high.tolist()) == ([10, 40, 200], [12, 42, 202])


def test_one_seed_has_no_band() -> None:
    (chart,) = _charts([_run(t, 0, float(t)) for t in ("1", "2", "3")]).charts
    assert chart.lines[0].low is None
    assert not chart.log_x
    assert chart.lines[0].label == "all runs"


@pytest.mark.parametrize("values", [("1", "2"), ("a", "b", "c"), ("1", "2", "nan")])
def test_names_and_pairs_are_left_to_the_tables(values: tuple[str, ...]) -> None:
    assert _charts([_run(value, 0, 1.0) for value in values]).charts == ()


def test_runs_that_are_not_done_do_not_count() -> None:
    runs = [_run(t, 0, float(t)) for t in ("1", "2", "3", "4")]
    runs.append(
        RunRecord(
            directory=Path("x"), name="x", state="failed",
            config={"experiment": "distill", "temperature": "9", "seed": 0, "width": "800"},
            results={"metrics": {"test/errors": 1.0}}, labels={"temperature": "9", "width": "800", "seed": "0"},
        )
    )  # fmt: skip
    assert _charts(runs).charts[0].lines[0].x.tolist() == [1, 2, 3, 4]


def test_without_runs() -> None:
    assert _charts([]).charts == ()
