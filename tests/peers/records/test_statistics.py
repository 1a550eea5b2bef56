"""Means, intervals and paired differences against SciPy and the standard library."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from paperbench.records.statistics import FEWEST_FOR_INTERVAL, interval_of_mean, paired, summarise
from tests.peers.cases import grid

KINDS = ("normal", "skewed", "ties", "thousands", "tiny", "negative", "half precision", "an outlier")


def values(kind: str, count: int, seed: int) -> list[float]:
    rng = np.random.default_rng([KINDS.index(kind), count, seed])
    draws = rng.normal(size=count)
    changed = {
        "normal": draws,
        "skewed": np.exp(2 * draws),
        "ties": np.round(draws * 2) / 2,
        "thousands": 70_000 + 0.01 * draws,
        "tiny": 1e-9 * draws,
        "negative": -50 + draws,
        "half precision": draws.astype(np.float16).astype(float),
        "an outlier": np.where(np.arange(count) == 0, 1e6, draws),
    }[kind]
    return [float(value) for value in changed]


@pytest.mark.parametrize(("kind", "count", "seed"), grid(KINDS, (2, 3, 5, 10, 40), range(2)))
def test_the_interval_of_a_mean_is_scipys(kind: str, count: int, seed: int) -> None:
    points = values(kind, count, seed)
    if len(set(points)) == 1:
        points[0] += 0.5
    expected = stats.t.interval(0.95, count - 1, loc=statistics.fmean(points), scale=stats.sem(points))
    near = 1e-9 * max(1e-9, *map(abs, points))
    assert interval_of_mean(points) == pytest.approx(expected, rel=1e-9, abs=near)
    theirs = stats.ttest_1samp(points, 0.0).confidence_interval(0.95)
    assert interval_of_mean(points) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=near)


@pytest.mark.parametrize(("kind", "count"), grid(KINDS, (1, 2, 4, 5, 8)))
def test_a_summary_is_the_mean_with_the_interval_of_its_kind(kind: str, count: int) -> None:
    points = values(kind, count, 7)
    found = summarise(points)
    near = 1e-9 * max(map(abs, points))
    assert found.mean == pytest.approx(statistics.fmean(points), rel=1e-12, abs=near)
    assert found.values == tuple(points)
    if count == 1:
        assert found.interval is None
    elif count < FEWEST_FOR_INTERVAL:
        assert found.interval == (min(points), max(points))
    else:
        expected = stats.t.interval(0.95, count - 1, loc=np.mean(points), scale=stats.sem(points))
        assert found.interval == pytest.approx(expected, rel=1e-9, abs=near)


@pytest.mark.parametrize(("kind", "count", "seed"), grid(KINDS, (5, 12), range(2)))
def test_a_paired_difference_is_the_paired_t_test(kind: str, count: int, seed: int) -> None:
    a = values(kind, count, seed)
    b = [x + y for x, y in zip(a, values("normal", count, 50 + seed), strict=True)]
    seeds = np.random.default_rng(seed).permutation(100)[: count + 2].tolist()
    found = paired(
        {**dict(zip(seeds, a, strict=False)), seeds[-2]: 1e9}, {**dict(zip(seeds, b, strict=False)), seeds[-1]: -1e9}
    )
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    near = 1e-9 * max(1.0, *map(abs, a))
    assert found.summary.interval == pytest.approx((expected.low, expected.high), rel=1e-6, abs=near)
    assert set(found.seeds) == set(seeds[:count])
    assert set(found.unpaired) == set(seeds[count:])


@pytest.mark.parametrize("kind", ["normal", "uniform", "skewed"])
def test_the_interval_covers_the_expectation_as_often_as_it_says(kind: str) -> None:
    """Of five seeds; skewed values are covered less often, as is known of Student's t."""
    rng = np.random.default_rng(KINDS.index("normal"))
    draws = {"normal": rng.normal, "uniform": rng.uniform, "skewed": rng.exponential}[kind](size=(1000, 5))
    expectation = {"normal": 0.0, "uniform": 0.5, "skewed": 1.0}[kind]
    covered = np.mean([low <= expectation <= high for low, high in map(interval_of_mean, draws)])
    assert covered == pytest.approx(0.88 if kind == "skewed" else 0.945, abs=0.03)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_number_that_is_none_is_not_averaged_away(bad: float, count: int) -> None:
    with np.errstate(invalid="ignore"):
        found = summarise([1.0] * (count - 1) + [bad])
    assert found.mean is not None
    assert not math.isfinite(found.mean)
    if count >= FEWEST_FOR_INTERVAL:
        assert found.interval is not None
        assert not any(map(math.isfinite, found.interval))
