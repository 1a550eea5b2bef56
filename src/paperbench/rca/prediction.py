"""From the scores on the references to a prediction, its calibration, and its interval.

The maximum is the paper's (equation 2); for distances the best is the smallest. It over-estimates quality, more so with more
references. A calibration curve, fitted on cases of known quality, corrects that. The split-conformal interval is that of Cosarinsky
et al. 2025: two quantiles of the scores, widened by a quantile of the distances of true values outside them.

The curves never fall. Isotonic regression follows any shape and, with two dozen masks, also their noise: good predictions become
worse. So a straight line and the identity are candidates too, and cross-validation over images chooses.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.rca.scoring import MaskScores

FEWEST: Final = 10
"""Fewest calibrating masks of a label with its own calibration; labels with fewer are calibrated together."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Aggregation of scores. higher: larger values are better. limit: largest possible value.

    coverage, low, high: of the interval.
    """

    higher: bool = True
    limit: float = 1.0
    coverage: float = 0.9
    low: float = 0.4
    high: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction for one mask and label; NaN where there is none. Infinite distances stay infinite."""

    mask: MaskScores
    best: float
    mean: float
    calibrated: float
    low: float
    high: float
    reference: str
    """Name of the reference with the best score; the first by name of several."""
    defined: int
    """Number of references with a score; for the others both masks are empty."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration curve and widening of the intervals for each label and, under "", for all labels together."""

    curves: dict[str, Curve]
    widths: dict[str, float]
    masks: int = 0

    def curve(self, label: str) -> Curve | None:
        return self.curves.get(label) or self.curves.get("")

    def width(self, label: str) -> float | None:
        found = self.widths.get(label)
        return self.widths.get("") if found is None else found


NONE: Final = Calibration(curves={}, widths={})


def predict(mask: MaskScores, rule: Rule, calibration: Calibration = NONE) -> Prediction:
    """Return the prediction for one mask from its scores."""
    scores = [(name, score) for name, score in mask.scores if not math.isnan(score)]
    if not scores:
        nan = math.nan
        return Prediction(mask=mask, best=nan, mean=nan, calibrated=nan, low=nan, high=nan, reference="", defined=0)
    reference, best = (max if rule.higher else min)(scores, key=lambda pair: pair[1])
    values = [score for _, score in scores]
    curve, width = calibration.curve(mask.label), calibration.width(mask.label)
    low, high = (math.nan, math.nan) if width is None else _interval(values, width, rule)
    return Prediction(
        mask=mask,
        best=best,
        mean=float(np.mean(values)),
        calibrated=curve(best) if curve and math.isfinite(best) else math.nan,
        low=low,
        high=high,
        reference=reference,
        defined=len(scores),
    )


def _base(values: Sequence[float], rule: Rule) -> tuple[float, float]:
    """Return the two quantiles of the scores; for distances those of the other end, where the best are."""
    levels = (rule.low, rule.high) if rule.higher else (1 - rule.high, 1 - rule.low)
    low, high = np.quantile(values, levels, method="nearest")
    return float(low), float(high)


def _interval(values: Sequence[float], width: float, rule: Rule) -> tuple[float, float]:
    low, high = _base(values, rule)
    low, high = low - width, high + width
    if math.isnan(low) or math.isnan(high):
        return 0.0, rule.limit
    # A negative width narrows the interval, at most to its middle.
    low, high = (low, high) if low <= high else ((low + high) / 2, (low + high) / 2)
    return min(max(low, 0.0), rule.limit), min(max(high, 0.0), rule.limit)


def calibrate(known: Sequence[MaskScores], rule: Rule) -> Calibration:
    """Return the calibration from masks of known finite quality, one for each label with `FEWEST` of them."""
    groups: dict[str, list[MaskScores]] = defaultdict(list)
    for mask in known:
        if math.isfinite(mask.real) and math.isfinite(predict(mask, rule).best):
            groups[mask.label].append(mask)
    everything = [mask for group in groups.values() for mask in group]
    enough = {label: group for label, group in groups.items() if len(group) >= FEWEST}
    if len(everything) >= FEWEST:
        enough[""] = everything
    return Calibration(
        curves={label: _curve(group, rule) for label, group in enough.items()},
        widths={label: _width(group, rule) for label, group in enough.items()},
        masks=len(everything),
    )


def _curve(group: Sequence[MaskScores], rule: Rule) -> Curve:
    best = [predict(mask, rule).best for mask in group]
    return fit_curve(best, [mask.real for mask in group], [mask.case for mask in group], limit=rule.limit)


def _width(group: Sequence[MaskScores], rule: Rule) -> float:
    """Return the ceil((N + 1) c)-th smallest distance of true values outside their intervals; infinite with too few masks."""
    outside = []
    for mask in group:
        low, high = _base([score for _, score in mask.scores if not math.isnan(score)], rule)
        outside.append(max(low - mask.real, mask.real - high))
    rank = math.ceil((len(outside) + 1) * rule.coverage)
    return math.inf if rank > len(outside) else float(sorted(outside)[rank - 1])


# --- calibration curves -----------------------------------------------------------------------------------------------


Values = NDArray[np.float64]
Curve = Callable[[float], float]
Fit = Callable[[Values, Values, float], Callable[[Values], Values]]

FOLDS: Final = 10
"""Folds of the cross-validation over images."""


def fit_curve(best: Sequence[float], real: Sequence[float], images: Sequence[str], *, limit: float) -> Curve:
    """Return the curve from `best` scores to `real` values, both in 0..limit, with the smallest cross-validated mean absolute
    error.

    Candidates are the identity, a line and isotonic regression; masks of one image are in one fold. With a single image the result
    is isotonic regression.

    Isotonic regression must be better by more than one standard error, as Breiman et al., Classification and Regression Trees,
    1984, choose among trees: of curves that predict equally well, the simpler one.
    """
    x, y = np.asarray(best, np.float64), np.asarray(real, np.float64)
    names = {name: place for place, name in enumerate(dict.fromkeys(images))}
    image = np.array([names[name] for name in images])
    fitted = (_chosen(x, y, image, limit) if len(names) > 1 else _isotonic)(x, y, limit)
    return lambda value: float(fitted(np.array([value]))[0])


def _chosen(x: Values, y: Values, image: NDArray[np.int64], limit: float) -> Fit:
    errors = {fit: _left_out(fit, x, y, image % FOLDS, limit) for fit in (_identity, _line, _isotonic)}
    simple = min((_identity, _line), key=lambda fit: float(errors[fit].mean()))
    gain = np.bincount(image, errors[simple] - errors[_isotonic]) / np.bincount(image)
    return _isotonic if gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)) else simple


def _left_out(fit: Fit, x: Values, y: Values, fold: NDArray[np.int64], limit: float) -> Values:
    """Return the absolute error of each mask by the curve that was fitted without its fold."""
    errors = np.empty_like(x)
    for number in np.unique(fold):
        out = fold == number
        errors[out] = np.abs(fit(x[~out], y[~out], limit)(x[out]) - y[out])
    return errors


def _isotonic(x: Values, y: Values, limit: float) -> Callable[[Values], Values]:
    from sklearn.isotonic import IsotonicRegression

    upper: Any = limit if math.isfinite(limit) else None
    model = IsotonicRegression(y_min=0.0, y_max=upper, increasing=True, out_of_bounds="clip").fit(x, y)
    return lambda values: np.asarray(model.predict(values))


def _line(x: Values, y: Values, limit: float) -> Callable[[Values], Values]:
    """Fit a line by least squares; constant where it would fall."""
    apart = x - x.mean()
    spread = float(apart @ apart)
    slope = max(0.0, float(apart @ y) / spread) if spread > 0 else 0.0
    return lambda values: np.clip(y.mean() + slope * (values - x.mean()), 0.0, limit)


def _identity(x: Values, y: Values, limit: float) -> Callable[[Values], Values]:
    return lambda values: np.clip(values, 0.0, limit)
