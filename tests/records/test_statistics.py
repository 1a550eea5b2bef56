"""Means and intervals: which kind for how many seeds, and what they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from paperbench.records.statistics import bootstrap_mean, paired, summarise


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


def test_five_seeds_get_a_bootstrap_interval_of_the_mean() -> None:
    # The five runs of the authors of Faster R-CNN.
    values = [59.9, 60.4, 59.5, 60.1, 59.5]
    summary = summarise(values)
    assert summary.kind == "bootstrap of the mean, 95 %"
    assert summary.interval is not None
    low, high = summary.interval
    assert min(values) < low < 59.88 < high < max(values)
    # Near to what theory gives for the mean's standard error, within the coarseness of five points.
    error = np.std(values, ddof=1) / 5**0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)
    assert summarise(values) == summary


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        low, high = bootstrap_mean(generator.normal(5.0, 1.0, size=30).tolist())
        covered += low <= 5.0 <= high
    assert covered >= stats.binom.ppf(0.001, 40, 0.95)
    assert covered >= 33


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
