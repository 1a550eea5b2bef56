"""A value and its interval are in one unit, that of the paper."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paperbench.report import reproduction
from paperbench.report.layout import _cell
from paperbench.report.reproduction import Measured, _compared, _measure, _over_images, _printed_difference
from paperbench.report.verdict import Conditions


@pytest.mark.parametrize("factor", [1.0, 100.0, -1.0])
def test_an_interval_over_images_has_its_cell_s_factor(factor: float) -> None:
    cell: Any = SimpleNamespace(metric="coco/AP50", samples=None, factor=factor)
    found = _over_images(cell, {"metrics": {"coco/AP50/low": 2.0, "coco/AP50/high": 3.0}})
    assert found == (2.0 * factor, 3.0 * factor)


@pytest.mark.parametrize(("factor", "samples"), [(100.0, None), (1.0, 5000)])
def test_a_cell_has_its_column_s_factor_and_samples(factor: float, samples: int | None) -> None:
    shared: dict[str, Any] = {"overrides": {}, "deviations": {}, "metric": "m", "published": None}
    layout: Any = SimpleNamespace(entry=SimpleNamespace(**shared, experiment="e", absent=""))
    row: Any = SimpleNamespace(**shared, row="r", experiment="", metrics={})
    column: Any = SimpleNamespace(**shared, factor=factor, samples=samples)
    cell = _cell(layout, row, "c", column, "short")
    assert (cell.factor, cell.samples, cell.metric, cell.experiment) == (factor, samples, "m", "e")
    assert cell.overrides == ("scale=short",)


def measured(values: dict[int, float], conditions: Conditions, published: Any = None) -> Measured:
    placed: Any = SimpleNamespace(cell=SimpleNamespace(metric="m", published=published))
    return Measured(
        placed=placed, values=values, runs={}, images=None, missing=(), unfinished=(), conditions=conditions
    )  # fmt: skip


def test_a_difference_of_two_rows_has_the_reservations_of_both() -> None:
    one, other = (
        measured({0: 5.0, 1: 6.0}, Conditions(settings=("a",))),
        measured({1: 2.0, 0: 4.0}, Conditions(data=("b",))),
    )
    for pair in ((one, other), (other, one)):
        found = _compared(*pair)
        assert found["deviations"] == ["b", "a"]
    assert [value["value"] for value in _compared(one, other)["values"]] == [1.0, 4.0]


def test_tolerances_of_a_difference_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (
        SimpleNamespace(**{**KEPT, "value": value, "tolerance": tolerance, "row": row})
        for value, tolerance, row in ((7.0, 0.3, "a"), (5.0, 0.4, "b"))
    )
    monkeypatch.setattr(
        reproduction, "replace", lambda number, **changes: SimpleNamespace(**{**vars(number), **changes})
    )
    found: Any = _printed_difference(one, other)  # pyright: ignore[reportArgumentType]
    assert (found.value, found.tolerance, found.unit, found.row) == (2.0, 0.5, "points", "a minus b")


KEPT = {"unit": "percent", "metric": "m", "deviation": "", "remark": ""}


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_interval_over_images_is_that_of_a_single_run(seeds: int) -> None:
    """With several seeds their spread is wider in kind, and one run's images say nothing of it."""
    results = {"metrics": {"m": 1.0, "m/low": 0.5, "m/high": 1.5}}
    members = {seed: SimpleNamespace(hash=f"h{seed}", directory="d") for seed in range(seeds)}
    by_hash: Any = {
        member.hash: SimpleNamespace(state="done", results=results, member=member) for member in members.values()
    }
    cell = SimpleNamespace(metric="m", samples=None, factor=100.0, absent="")
    placed: Any = SimpleNamespace(cell=cell, runs=members, conditions=Conditions())
    prepared: Any = SimpleNamespace(directory="d")
    found = _measure(placed, by_hash, prepared)
    assert found.values == dict.fromkeys(range(seeds), 100.0)
    assert found.images == ((50.0, 150.0) if seeds == 1 else None)
