"""Which curves are drawn, and with what around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paperbench.engine.rundir import STOPPED
from paperbench.records.grouping import Setting, settings_of, varied
from paperbench.records.record import RunRecord, read_run
from paperbench.report.html import curves
from paperbench.report.html.charts import MUTED, Line
from paperbench.report.html.quantities import Quantities
from tests.report.html import made

QUANTITIES = Quantities(made.METRICS)


def run(folder: Path, *, labelled: bool = True, steps: int = 40, state: str = "done", **given: object) -> RunRecord:
    name = "-".join(f"{key}{value}" for key, value in given.items())
    made.run(folder / name, resolved=made.config(**given), steps=steps, state=state)  # type: ignore[arg-type]
    labels = {key: str(value) for key, value in given.items()} if labelled else {}
    return read_run(folder / name, name=name, labels=labels)


def chart_lines(settings: list[Setting], name: str) -> list[Line]:
    return list(next(chart for chart in curves.of_settings(settings, QUANTITIES).charts if chart.title == name).lines)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
def test_runs_that_differ_in_their_seed_belong_together(tmp_path: Path, labelled: bool) -> None:
    runs = [run(tmp_path, labelled=labelled, lr=lr, seed=seed) for lr in (0.1, 0.2) for seed in (0, 1)]
    settings = settings_of(runs)

    assert [setting.label for setting in settings] == ["lr=0.1", "lr=0.2"]
    assert [[member.seed for member in setting.runs] for setting in settings] == [[0, 1], [0, 1]]
    assert varied(runs) == (["lr", "seed"] if labelled else ["optim.lr", "seed"]) or not labelled


def test_a_run_that_has_not_started_stands_with_its_like(tmp_path: Path) -> None:
    waiting = read_run(tmp_path / "none", name="none", labels={"lr": "0.1", "seed": "7"})
    settings = settings_of([run(tmp_path, lr=0.1, seed=0), run(tmp_path, lr=0.2, seed=0), waiting])

    assert [[member.name for member in setting.runs] for setting in settings] == [
        ["lr0.1-seed0", "none"],
        ["lr0.2-seed0"],
    ]


def test_settings_that_labels_do_not_tell_apart_are_named_after_a_run(tmp_path: Path) -> None:
    runs = [run(tmp_path, labelled=False, lr=0.1), run(tmp_path, labelled=False, lr=0.2)]
    same = [RunRecord(**{**vars(record), "labels": {"model": "net"}}) for record in runs]

    assert [setting.label for setting in settings_of(same)] == ["toy (lr0.1)", "toy (lr0.2)"]


# --- one run ----------------------------------------------------------------------------------------------------------


def test_every_number_that_was_logged_twice_has_a_curve(tmp_path: Path) -> None:
    charts = curves.of_run(run(tmp_path, seed=0), QUANTITIES).charts

    assert [chart.title for chart in charts] == [
        "train/loss",
        "toy/score",
        "toy/AP/…",
        "parts of train/loss",
        "train/lr",
    ]
    assert [line.label for line in charts[3].lines] == ["box", "class"]
    assert [line.label for line in charts[2].lines] == ["cat", "dog"]
    assert charts[0].log_y
    assert not charts[1].log_y
    assert charts[1].unit == "%"


def test_the_curve_is_what_was_logged(tmp_path: Path) -> None:
    record = run(tmp_path, seed=3)
    line = curves.of_run(record, QUANTITIES).charts[0].lines[0]
    logged = {entry["step"]: entry["train/loss"] for entry in record.log}

    assert dict(zip(line.x.tolist(), line.y.tolist(), strict=True)) == logged
    assert line.last == QUANTITIES.number("train/loss", logged[40])


def test_a_noisy_curve_is_faint_under_its_smoothed_course_and_says_so(tmp_path: Path) -> None:
    folder = made.run(tmp_path / "run", steps=0)
    noise = np.random.default_rng(0).standard_normal(500)
    text = "".join(f'{{"step": {step}, "train/loss": {value}}}\n' for step, value in enumerate(noise))
    (folder / "metrics.jsonl").write_text(text)
    chart = curves.of_run(read_run(folder, name="run"), QUANTITIES).charts[0]

    assert [line.stroke for line in chart.lines] == ["faint", "bold"]
    assert chart.lines[0].y.max() == noise.max()  # thinned to fewer points, no peak lost
    assert len(chart.lines[0].x) < 500
    assert "exponential mean" in chart.note


def test_values_that_are_not_numbers_are_gaps(tmp_path: Path) -> None:
    folder = made.run(tmp_path / "run", steps=0)
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "a": 1.0}\n{"step": 2, "a": null}\n{"step": 3, "a": true}\n{"step": 4, "a": 2.0, "b": "x"}\n'
    )
    (chart,) = curves.of_run(read_run(folder, name="run"), QUANTITIES).charts

    assert chart.lines[0].x.tolist() == [1, 4]


def test_there_is_a_limit_and_what_is_beyond_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_CHARTS", 2)
    found = curves.of_run(run(tmp_path, seed=0), QUANTITIES)

    assert len(found.charts) == 2
    assert found.left_out == ("toy/AP/cat", "toy/AP/dog", "train/loss_box", "train/loss_class", "train/lr")
    monkeypatch.setattr(curves, "BUDGET", 10)
    assert curves.of_run(run(tmp_path, seed=1), QUANTITIES).charts == ()


# --- several runs -----------------------------------------------------------------------------------------------------


def test_the_band_reaches_from_the_lowest_seed_to_the_highest(tmp_path: Path) -> None:
    records = [run(tmp_path, lr=0.1, seed=seed) for seed in range(3)]
    (line,) = chart_lines(settings_of(records), "toy/score")
    values = np.array([[entry["toy/score"] for entry in record.log if "toy/score" in entry] for record in records])

    assert line.x.tolist() == [10, 20, 30, 40]
    assert line.y == pytest.approx(values.mean(0))
    assert line.low is not None
    assert line.low.tolist() == values.min(0).tolist()
    assert line.high is not None
    assert line.high.tolist() == values.max(0).tolist()
    assert line.label.endswith("(3 seeds)")


def test_unfinished_runs_are_dashed_and_in_no_mean(tmp_path: Path) -> None:
    records = [run(tmp_path, lr=0.1, seed=seed) for seed in (0, 1)]
    records.append(run(tmp_path, lr=0.1, seed=2, steps=20, state=STOPPED))
    settings = settings_of(records)
    mean, dashed = chart_lines(settings, "train/loss")

    assert mean.label.endswith("(2 seeds)")
    assert mean.x[-1] == 40
    assert (dashed.stroke, dashed.in_legend) == ("dashed", False)
    assert dashed.x[-1] == 20
    assert "Dashed" in curves.of_settings(settings, QUANTITIES).note


def test_more_settings_than_colours_leave_the_rest_grey_and_counted(tmp_path: Path) -> None:
    settings = settings_of([run(tmp_path, lr=index / 10, steps=2) for index in range(1, 12)])
    lines = chart_lines(settings, "train/loss")

    assert [line.color for line in lines] == [*range(8), MUTED, MUTED, MUTED]
    assert [line.in_legend for line in lines] == [True] * 8 + [False] * 3
    assert "Grey: 3 more settings." in curves.of_settings(settings, QUANTITIES).note


def test_seeds_that_share_no_step_are_drawn_one_by_one(tmp_path: Path) -> None:
    records = [run(tmp_path, lr=0.1, seed=seed) for seed in (0, 1)]
    for offset, record in enumerate(records):
        text = "".join(f'{{"step": {2 * step + offset}, "a": 1.0}}\n' for step in range(3))
        (record.directory / "metrics.jsonl").write_text(text)

    assert [line.low for line in chart_lines(settings_of(records), "a")] == [None, None]
