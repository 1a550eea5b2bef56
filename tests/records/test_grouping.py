"""Runs that differ in their seed alone: which of them count, which metrics, and which way a difference goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paperbench.records.grouping import Setting


def run(seed: int, *, done: bool = True, **metrics: float) -> Any:
    return SimpleNamespace(seed=seed, done=done, metrics=metrics, seconds=1.0)


def setting(*runs: Any) -> Setting:
    return Setting(label="x", values={}, runs=runs)


def test_of_a_seed_that_was_run_twice_the_first_counts_and_unfinished_runs_do_not() -> None:
    own = setting(run(2, a=7), run(0, a=1), run(0, a=5), run(1, done=False, a=9))
    assert list(own.by_seed) == [0, 2]
    assert own.values_by_seed["a"] == {0: 1, 2: 7}
    assert own.summaries()["a"].mean == 4


def test_a_metric_that_one_of_the_runs_lacks_has_no_mean() -> None:
    own = setting(run(0, a=1, b=2), run(1, a=3))
    assert set(own.values_by_seed) == {"a", "seconds"}


def test_a_difference_is_that_of_the_setting_less_the_other() -> None:
    own, other = setting(run(0, a=5), run(1, a=9), run(2, a=0)), setting(run(1, a=2), run(0, a=1), run(5, a=0))
    found = own.against(other)["a"]
    assert (found.seeds, found.summary.values, found.unpaired) == ((0, 1), (4.0, 7.0), (2, 5))
    assert other.against(own)["a"].summary.mean == pytest.approx(-5.5)
    assert own.against(setting(run(7, a=1))) == {}
