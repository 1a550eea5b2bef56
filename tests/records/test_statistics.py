"""Means and intervals: which kind for how many seeds, and what they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from paperbench.records.statistics import interval_of_mean, paired, summarise


def test_one_seed_is_one_seed() -> None:
    summary = summarise([69.9])
    assert (summary.n, summary.mean, summary.interval, summary.kind) == (1, 69.9, None, "one seed")


def test_nothing_is_nothing() -> None:
    summary = summarise([])
    assert (summary.n, summary.mean, summary.interval, summary.kind) == (0, None, None, "none")


@pytest.mark.parametrize("values", [[3.0, 1.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0, 2.0]])
def test_a_few_seeds_keep_all_points_and_their_range(values: list[float]) -> None:
    summary = summarise(values)
    assert summary.values == tuple(values)
    assert summary.mean == pytest.approx(2.0)
    assert (summary.interval, summary.kind) == ((1.0, 3.0), "range")


def test_five_seeds_get_an_interval_of_the_mean() -> None:
    # The five runs of the authors of Faster R-CNN.
    values = [59.9, 60.4, 59.5, 60.1, 59.5]
    summary = summarise(values)
    assert summary.kind == "Student's t of the mean, 95 %"
    assert summary.interval == pytest.approx(stats.t.interval(0.95, 4, np.mean(values), stats.sem(values)))
    assert summarise(values) == summary


@pytest.mark.parametrize("count", [2, 3, 5, 6, 10, 20])
def test_an_interval_called_95_percent_covers_95_percent(count: int) -> None:
    repeats = 4000
    draws = np.random.default_rng(count).normal(5.0, 3.0, size=(repeats, count))
    covered = sum(low <= 5.0 <= high for low, high in map(interval_of_mean, draws))
    assert covered / repeats == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / repeats) ** 0.5)


def test_every_kind_that_names_a_level_is_the_interval_of_that_level() -> None:
    for count in range(5, 30):
        summary = summarise(np.random.default_rng(count).normal(size=count).tolist())
        assert summary.interval is not None
        half = (summary.interval[1] - summary.interval[0]) / 2
        level = 2 * stats.t.cdf(half / stats.sem(summary.values), count - 1) - 1
        assert f"{100 * level:.0f} %" in summary.kind


def test_equal_values_have_an_interval_without_width() -> None:
    assert summarise([2.5] * 6).interval == (2.5, 2.5)


def test_an_interval_over_test_images_stands_in_for_one_seed_only() -> None:
    assert summarise([80.0], test_images=(77.0, 83.0)).interval == (77.0, 83.0)
    assert summarise([80.0], test_images=(77.0, 83.0)).kind == "resampled test images, 95 %"
    assert summarise([80.0, 81.0], test_images=(77.0, 83.0)).kind == "range"


def test_methods_are_compared_seed_by_seed() -> None:
    # The seeds differ far more than the methods do; paired, the difference is exact.
    a = {0: 10.0, 1: 50.0, 2: 90.0}
    b = {0: 9.0, 1: 49.0, 2: 89.0}
    result = paired(a, b)
    assert result.summary.values == (1.0, 1.0, 1.0)
    assert result.summary.interval == (1.0, 1.0)
    assert result.unpaired == ()


def test_unpaired_seeds_are_left_out_and_named() -> None:
    result = paired({0: 1.0, 1: 5.0, 7: 100.0}, {0: 0.5, 1: 3.0, 3: -100.0})
    assert result.seeds == (0, 1)
    assert result.summary.values == (0.5, 2.0)
    assert result.unpaired == (3, 7)


def test_without_a_common_seed_there_is_no_comparison() -> None:
    result = paired({0: 1.0}, {1: 1.0})
    assert result.summary.mean is None
    assert result.unpaired == (0, 1)
