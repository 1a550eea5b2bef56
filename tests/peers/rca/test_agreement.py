"""Statistics of predictions against SciPy, scikit-learn, torchmetrics and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics

from paperbench.rca.evaluation import agreement, auroc, pearson
from paperbench.rca.prediction import Prediction, Rule
from paperbench.rca.scoring import MaskScores
from tests.peers.cases import grid
from tests.peers.packages import peer

torchmetrics = peer("torchmetrics.functional")

Values = NDArray[np.float64]

KINDS = ("uniform", "good", "ties", "two values", "heavy tails", "half precision", "falling", "nearly equal", "a few")
SCALES = {"fractions": 1.0, "thousands": 5000.0}


def pairs(kind: str, seed: int, scale: float = 1.0) -> tuple[Values, Values]:
    """Return predicted and true values (N,), neither of them constant."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    count = 4 if kind == "a few" else int(rng.integers(12, 90))
    real = rng.random(count)
    predicted = {
        "uniform": rng.random(count),
        "good": real + rng.normal(0, 0.03, count),
        "ties": np.round(real * 4) / 4,
        "two values": (rng.random(count) < real).astype(float),
        "heavy tails": real + rng.standard_t(1, count),
        "half precision": (real + rng.normal(0, 0.1, count)).astype(np.float16).astype(float),
        "falling": 1 - real + rng.normal(0, 0.05, count),
        "nearly equal": 0.7 + 1e-6 * rng.random(count),
        "a few": rng.random(count),
    }[kind]
    if kind == "ties":
        real = np.round(real * 3) / 3
    return predicted * scale, real * scale


def prediction(
    best: float,
    real: float,
    *,
    mean: float = 0.5,
    calibrated: float = math.nan,
    low: float = math.nan,
    high: float = math.nan,
) -> Prediction:
    mask = MaskScores(case="c", segmenter="s", label="1", metric="dsc", scores=(("r", best),), real=real)
    return Prediction(
        mask=mask, best=best, mean=mean, calibrated=calibrated, low=low, high=high, reference="r", defined=1
    )


@pytest.mark.parametrize(("kind", "scale", "seed"), grid(KINDS, SCALES, range(3)))
def test_the_correlation_is_scipys_and_torchmetrics(kind: str, scale: str, seed: int) -> None:
    predicted, real = pairs(kind, seed, SCALES[scale])
    found = pearson(predicted, real)
    assert found == pytest.approx(stats.pearsonr(predicted, real).statistic, abs=1e-7)
    exact = torchmetrics.pearson_corrcoef(torch.from_numpy(predicted), torch.from_numpy(real))
    assert found == pytest.approx(float(exact), abs=1e-4)


@pytest.mark.parametrize(
    "kind", ["constant prediction", "constant truth", "both constant", "two points", "one", "none"]
)
def test_a_correlation_that_is_not_defined_is_not_a_number(kind: str) -> None:
    rng = np.random.default_rng(0)
    values, flat = rng.random(20), np.full(20, 0.25)
    predicted, real = {
        "constant prediction": (flat, values),
        "constant truth": (values, flat),
        "both constant": (flat, flat),
        "two points": (values[:2], values[2:4]),
        "one": (values[:1], values[1:2]),
        "none": (values[:0], values[:0]),
    }[kind]
    assert math.isnan(pearson(predicted, real))


@pytest.mark.parametrize(("kind", "share", "seed"), grid(KINDS, (0.1, 0.5, 0.9), range(2)))
def test_the_auroc_is_that_of_scikit_learn_and_torchmetrics(kind: str, share: float, seed: int) -> None:
    scores, real = pairs(kind, 10 + seed)
    positive = real < np.quantile(real, share)
    if not positive.any():
        positive[np.argmin(real)] = True
    if positive.all():
        positive[np.argmax(real)] = False
    found = auroc(scores, positive)
    assert found == pytest.approx(sklearn_metrics.roc_auc_score(positive, scores), abs=1e-12)
    squashed = torch.from_numpy(stats.rankdata(scores) / (len(scores) + 1))
    theirs = torchmetrics.auroc(squashed, torch.from_numpy(positive).long(), task="binary")
    assert found == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("kind", ["all positive", "all negative", "none", "one"])
def test_an_auroc_without_both_kinds_is_not_a_number(kind: str) -> None:
    count = {"none": 0, "one": 1}.get(kind, 9)
    assert math.isnan(auroc(np.linspace(0, 1, count), np.full(count, kind == "all positive")))


@pytest.mark.parametrize("seed", range(6))
def test_the_auroc_is_a_share_of_pairs_and_infinite_scores_are_ordered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=25), 1)
    scores[rng.integers(25, size=3)] = np.inf
    scores[rng.integers(25, size=2)] = -np.inf
    positive = rng.random(25) < 0.4
    positive[:2] = True, False
    wins = [1.0 if up > down else 0.5 if up == down else 0.0 for up in scores[positive] for down in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(wins), abs=1e-12)


@pytest.mark.parametrize(("kind", "higher", "seed"), grid(KINDS, (True, False), range(3)))
def test_errors_and_decisions_are_those_of_scikit_learn(kind: str, higher: bool, seed: int) -> None:
    scale = 1.0 if higher else 40.0
    predicted, real = pairs(kind, 20 + seed, scale)
    rng = np.random.default_rng(seed)
    mean, calibrated = (real + rng.normal(0, 0.1, len(real)) for _ in range(2))
    threshold = float(np.median(real))
    rows = [
        prediction(b, r, mean=m, calibrated=c) for b, r, m, c in zip(predicted, real, mean, calibrated, strict=True)
    ]
    found = agreement(rows, threshold=threshold, rule=Rule(higher=higher, limit=1.0 if higher else math.inf))
    assert found["masks"] == len(real)
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(real, predicted))
    assert found["mean_mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(real, mean))
    assert found["calibrated_mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(real, calibrated))
    assert found["bias"] == pytest.approx(float(np.mean(predicted)) - float(np.mean(real)), abs=1e-9)
    assert found["pearson_r"] == pytest.approx(stats.pearsonr(predicted, real).statistic, abs=1e-7)
    assert found["mean_pearson_r"] == pytest.approx(stats.pearsonr(mean, real).statistic, abs=1e-9)
    poor, flagged = (values < threshold if higher else values > threshold for values in (real, predicted))
    assert found[f"accuracy@{threshold:g}"] == pytest.approx(sklearn_metrics.accuracy_score(poor, flagged))
    assert found["poor"] == poor.sum()
    if poor.any() and not poor.all():
        badness = -predicted if higher else predicted
        assert found["failure_auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(poor, badness), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_infinite_and_undefined_values_are_counted_where_they_mean_something(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real, best = rng.random((2, 30)) * 20
    real[rng.integers(30, size=3)] = np.inf
    best[rng.integers(30, size=3)] = np.inf
    real[rng.integers(30, size=2)] = np.nan
    rows = [prediction(b, r, mean=b) for b, r in zip(best, real, strict=True)]
    found = agreement(rows, threshold=8.0, rule=Rule(higher=False, limit=math.inf))
    known = ~np.isnan(real)
    finite = known & np.isfinite(real) & np.isfinite(best)
    assert found["masks"] == known.sum()
    assert found["finite"] == finite.sum()
    assert found["mae"] == pytest.approx(np.mean([abs(b - r) for b, r in zip(best[finite], real[finite], strict=True)]))
    assert found["pearson_r"] == pytest.approx(stats.pearsonr(best[finite], real[finite]).statistic)
    poor = real[known] > 8
    assert found["poor"] == poor.sum()
    ranks = stats.rankdata(best[known])
    assert found["failure_auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(poor, ranks), abs=1e-12)
    assert found["accuracy@8"] == pytest.approx(np.mean(poor == (best[known] > 8)))


@pytest.mark.parametrize("seed", range(12))
def test_coverage_and_width_are_counted_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real = rng.random(25)
    low = np.clip(real + rng.normal(-0.1, 0.1, 25), 0, 1)
    high = np.clip(low + rng.random(25) * 0.4, 0, 1)
    low[:3] = high[:3] = np.nan
    high[3] = np.inf
    rows = [prediction(0.5, r, low=a, high=b) for r, a, b in zip(real, low, high, strict=True)]
    found = agreement(rows, threshold=0.7, rule=Rule())
    inside = [a <= r <= b for r, a, b in zip(real, low, high, strict=True) if not math.isnan(a)]
    widths = [b - a for a, b in zip(low, high, strict=True) if math.isfinite(b - a)]
    assert found["coverage"] == pytest.approx(sum(inside) / len(inside))
    assert found["interval_width"] == pytest.approx(sum(widths) / len(widths))
