"""The calibration curve and the conformal interval against scikit-learn's parts put together in a plain way."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression, isotonic_regression
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut

from paperbench.rca.prediction import FEWEST, Calibration, Rule, calibrate, fit_curve, predict
from paperbench.rca.scoring import MaskScores
from tests.peers.cases import grid

Values = NDArray[np.float64]
Model = Callable[[Values], Values]

KINDS = (
    "identity",
    "line",
    "falling",
    "step",
    "noise",
    "curve",
    "ties",
    "constant score",
    "constant truth",
    "one image",
)


def sample(kind: str, seed: int, limit: float) -> tuple[Values, Values, list[str]]:
    """Return best scores, true values and the image of each mask."""
    rng = np.random.default_rng([KINDS.index(kind), seed, int(min(limit, 99))])
    count = int(rng.integers(14, 60))
    x = rng.random(count)
    noise = rng.normal(0, 0.04, count)
    y = {
        "identity": x + noise,
        "line": 0.2 + 0.6 * x + noise,
        "falling": 0.9 - 0.7 * x + noise,
        "step": (x > 0.5) * 0.8 + noise / 4,
        "noise": rng.random(count),
        "curve": x**4 + noise / 4,
        "ties": np.round(x * 4) / 4 + noise,
        "constant score": x + noise,
        "constant truth": np.full(count, 0.4),
        "one image": x**2 + noise,
    }[kind]
    if kind == "ties":
        x = np.round(x * 5) / 5
    if kind == "constant score":
        x = np.full(count, 0.6)
    scale = 1.0 if limit == 1.0 else 30.0
    images = ["same"] * count if kind == "one image" else [f"image {k // 2 if seed % 2 else k}" for k in range(count)]
    return x * scale, np.clip(y, 0, 1) * scale, images


def identity(x: Values, y: Values, limit: float) -> Model:
    return lambda values: np.clip(values, 0, limit)


def line(x: Values, y: Values, limit: float) -> Model:
    if np.ptp(x) == 0:
        return lambda values: np.full(len(values), np.clip(y.mean(), 0, limit))
    model = LinearRegression().fit(x[:, None], y)
    if model.coef_[0] < 0:
        return lambda values: np.full(len(values), np.clip(y.mean(), 0, limit))
    return lambda values: np.clip(model.predict(values[:, None]), 0, limit)


def isotonic(x: Values, y: Values, limit: float) -> Model:
    upper = None if math.isinf(limit) else limit
    return IsotonicRegression(y_min=0, y_max=upper, out_of_bounds="clip").fit(x, y).predict


def errors(fit: Callable[[Values, Values, float], Model], x: Values, y: Values, folds: Values, limit: float) -> Values:
    out = np.zeros(len(x))
    for train, test in LeaveOneGroupOut().split(x, y, folds):
        out[test] = abs(fit(x[train], y[train], limit)(x[test]) - y[test])
    return out


def chosen(x: Values, y: Values, images: list[str], limit: float) -> tuple[Model, float]:
    """Return the curve that ten folds over the images choose, and by how much it was chosen."""
    order = sorted(set(images), key=images.index)
    place = np.array([order.index(image) for image in images])
    if len(order) == 1:
        return isotonic(x, y, limit), math.inf
    left_out = {fit: errors(fit, x, y, place % 10, limit) for fit in (identity, line, isotonic)}
    simple = identity if left_out[identity].mean() <= left_out[line].mean() else line
    gains = [np.mean((left_out[simple] - left_out[isotonic])[place == k]) for k in range(len(order))]
    error = np.std(gains, ddof=1) / np.sqrt(len(gains))
    margin = min(abs(np.mean(gains) - error), abs(left_out[identity].mean() - left_out[line].mean()))
    return (isotonic if np.mean(gains) > error else simple)(x, y, limit), float(margin)


@pytest.mark.parametrize(("kind", "limit", "seed"), grid(KINDS, (1.0, math.inf), range(2)))
def test_the_curve_is_the_one_that_cross_validation_chooses(kind: str, limit: float, seed: int) -> None:
    x, y, images = sample(kind, seed, limit)
    curve = fit_curve(x.tolist(), y.tolist(), images, limit=limit)
    expected, margin = chosen(x, y, images, limit)
    places = np.linspace(-0.1, 1.2, 40) * (1.0 if limit == 1.0 else 30.0)
    found = [curve(float(value)) for value in places]
    if margin < 1e-12:  # two curves predict equally well: rounding decides
        fits = [fit(x, y, limit)(places) for fit in (identity, line, isotonic)]
        assert any(np.allclose(found, values, rtol=1e-9, atol=1e-9) for values in fits)
    else:
        np.testing.assert_allclose(found, expected(places), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_isotonic_regression_pools_adjacent_violators(seed: int) -> None:
    """One image, so that nothing is chosen: the values at the scores are those of the pooled blocks."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.random(20))
    y = rng.random(20)
    curve = fit_curve(x.tolist(), y.tolist(), ["same"] * 20, limit=1.0)
    blocks = [[value] for value in y]
    while any(np.mean(a) > np.mean(b) for a, b in pairwise(blocks)):
        for number in range(len(blocks) - 1):
            if np.mean(blocks[number]) > np.mean(blocks[number + 1]):
                blocks[number : number + 2] = [blocks[number] + blocks[number + 1]]
                break
    pooled = [float(np.mean(block)) for block in blocks for _ in block]
    found = [curve(float(value)) for value in x]
    np.testing.assert_allclose(found, pooled, atol=1e-9)
    np.testing.assert_allclose(found, isotonic_regression(y), atol=1e-9)


def masks(
    seed: int, count: int, *, labels: int = 1, higher: bool = True, tied: bool = False, one_image: bool = False
) -> list[MaskScores]:
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        quality = rng.random()
        scores = np.clip(quality + rng.normal(0, 0.15, rng.integers(1, 9)), 0, 1)
        values = np.round(scores, 1) if tied else scores
        scale = 1.0 if higher else 25.0
        named = [(f"r{k}", float(value) * scale) for k, value in enumerate(values)]
        if number % 7 == 3:
            named.append(("undefined", math.nan))
        out.append(
            MaskScores(
                case="c" if one_image else f"c{number}",
                segmenter="s",
                label=str(number % labels),
                metric="dsc" if higher else "hd",
                scores=tuple(named),
                real=float(quality * scale),
            )
        )
    return out


def nearest(values: list[float], share: float) -> float:
    """Return the order statistic nearest to a quantile, of two equally near ones that of the even place."""
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


def base(mask: MaskScores, rule: Rule) -> tuple[float, float]:
    values = [score for _, score in mask.scores if not math.isnan(score)]
    if rule.higher:
        return nearest(values, rule.low), nearest(values, rule.high)
    mirrored = [-value for value in values]
    return -nearest(mirrored, rule.high), -nearest(mirrored, rule.low)


@pytest.mark.parametrize(
    ("count", "coverage", "higher", "seed"), grid((9, 10, 12, 29, 80), (0.5, 0.9, 0.99), (True, False), range(2))
)
def test_the_width_is_the_conformal_quantile(count: int, coverage: float, higher: bool, seed: int) -> None:
    known = masks(seed, count, higher=higher, tied=seed == 1)
    rule = Rule(higher=higher, limit=1.0 if higher else math.inf, coverage=coverage)
    found = calibrate(known, rule).width("0")
    outside = []
    for mask in known:
        low, high = base(mask, rule)
        outside.append(max(low - mask.real, mask.real - high))
    if count < FEWEST:
        assert found is None
        return
    rank = math.ceil((count + 1) * coverage)
    expected = math.inf if rank > count else np.partition(outside, rank - 1)[rank - 1]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("higher", "seed"), grid((True, False), range(6)))
def test_the_interval_is_two_scores_and_the_width(higher: bool, seed: int) -> None:
    known = masks(seed, 40, higher=higher)
    rule = Rule(higher=higher, limit=1.0 if higher else math.inf)
    calibration = calibrate(known, rule)
    width = calibration.width("0")
    assert width is not None
    for mask in masks(100 + seed, 10, higher=higher):
        found = predict(mask, rule, calibration)
        low, high = (end + sign * width for end, sign in zip(base(mask, rule), (-1, 1), strict=True))
        if low > high:
            low = high = (low + high) / 2
        assert found.low == pytest.approx(min(max(low, 0), rule.limit))
        assert found.high == pytest.approx(min(max(high, 0), rule.limit))
        values = [score for _, score in mask.scores if not math.isnan(score)]
        assert found.best == (max if higher else min)(values)
        assert found.mean == pytest.approx(sum(values) / len(values))


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_intervals_cover_what_they_say_for_masks_like_the_calibrating_ones(coverage: float) -> None:
    rule = Rule(coverage=coverage)
    covered = []
    for seed in range(30):
        drawn = masks(1000 + seed, 80, one_image=True)  # of one image, so that no curve is chosen: that takes time
        calibration = calibrate(drawn[:40], rule)
        covered += [p.low <= p.mask.real <= p.high for p in (predict(mask, rule, calibration) for mask in drawn[40:])]
    # At least the coverage, and at most a mask of forty more; the rest is the spread of 30 calibrations.
    assert coverage - 0.04 < np.mean(covered) < coverage + 1 / 41 + 0.04


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_labels_with_few_masks_share_the_calibration_of_all(labels: int) -> None:
    known = masks(0, 27, labels=labels)
    found: Calibration = calibrate(known, Rule())
    for label in range(labels):
        group = [mask for mask in known if mask.label == str(label)]
        alone = calibrate(group if len(group) >= FEWEST else known, Rule())
        expected = alone.width(str(label)) if len(group) >= FEWEST else alone.widths[""]
        assert found.width(str(label)) == expected
