"""From the scores on the references to one prediction, its calibration, and its interval.

The maximum is the paper's (equation 2); for distances the best is the smallest. It over-estimates the more, the more references
there are. A curve learnt from cases of known quality takes that out, and the split-conformal interval is the one of
Cosarinsky et al. 2025: two quantiles of the scores, widened by a quantile of how far reality lay outside them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from paperbench.rca.curves import Curve, learnt
from paperbench.rca.judging import Judged

FEWEST: Final = 10
"""A label with fewer calibrating masks than this is calibrated with all labels together."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How scores are aggregated: which way is better, the largest possible value, and the interval."""

    higher: bool = True
    limit: float = 1.0
    coverage: float = 0.9
    low: float = 0.4
    high: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is predicted for one mask and label; nan where nothing can be said. Infinite distances stay infinite."""

    judged: Judged
    best: float
    mean: float
    calibrated: float
    low: float
    high: float
    reference: str
    """The one that gave `best`; the first by name where several did."""
    defined: int
    """References whose score is a number; the others had both masks empty."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was learnt from masks of known quality: a curve, and how far intervals are widened; by label and, as "", for all."""

    curves: dict[str, Curve]
    widths: dict[str, float]
    masks: int = 0

    def curve(self, label: str) -> Curve | None:
        return self.curves.get(label) or self.curves.get("")

    def width(self, label: str) -> float | None:
        found = self.widths.get(label)
        return self.widths.get("") if found is None else found


NONE: Final = Calibration(curves={}, widths={})


def predict(judged: Judged, rule: Rule, calibration: Calibration = NONE) -> Prediction:
    """Aggregates one mask's scores."""
    scores = [(name, score) for name, score in judged.scores if not math.isnan(score)]
    if not scores:
        nothing = math.nan
        return Prediction(
            judged=judged,
            best=nothing,
            mean=nothing,
            calibrated=nothing,
            low=nothing,
            high=nothing,
            reference="",
            defined=0,
        )
    reference, best = (max if rule.higher else min)(scores, key=lambda pair: pair[1])
    values = [score for _, score in scores]
    curve, width = calibration.curve(judged.label), calibration.width(judged.label)
    low, high = (math.nan, math.nan) if width is None else _interval(values, width, rule)
    return Prediction(
        judged=judged,
        best=best,
        mean=float(np.mean(values)),
        calibrated=curve(best) if curve and math.isfinite(best) else math.nan,
        low=low,
        high=high,
        reference=reference,
        defined=len(scores),
    )


def _base(values: Sequence[float], rule: Rule) -> tuple[float, float]:
    """The two quantiles of the scores; for distances they are taken from the other end, where the best are."""
    levels = (rule.low, rule.high) if rule.higher else (1 - rule.high, 1 - rule.low)
    low, high = np.quantile(values, levels, method="nearest")
    return float(low), float(high)


def _interval(values: Sequence[float], width: float, rule: Rule) -> tuple[float, float]:
    low, high = _base(values, rule)
    low, high = low - width, high + width
    if math.isnan(low) or math.isnan(high):
        return 0.0, rule.limit
    # A width below zero narrows; where it would turn the interval over, its middle is left.
    low, high = (low, high) if low <= high else ((low + high) / 2, (low + high) / 2)
    return min(max(low, 0.0), rule.limit), min(max(high, 0.0), rule.limit)


def calibrate(known: Sequence[Judged], rule: Rule) -> Calibration:
    """Learns from masks whose real value is known and finite, each label for itself where it has `FEWEST` of them."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for judged in known:
        if math.isfinite(judged.real) and math.isfinite(predict(judged, rule).best):
            groups[judged.label].append(judged)
    everything = [judged for group in groups.values() for judged in group]
    enough = {label: group for label, group in groups.items() if len(group) >= FEWEST}
    if len(everything) >= FEWEST:
        enough[""] = everything
    return Calibration(
        curves={label: _curve(group, rule) for label, group in enough.items()},
        widths={label: _width(group, rule) for label, group in enough.items()},
        masks=len(everything),
    )


def _curve(group: Sequence[Judged], rule: Rule) -> Curve:
    best = [predict(judged, rule).best for judged in group]
    return learnt(best, [judged.real for judged in group], [judged.case for judged in group], limit=rule.limit)


def _width(group: Sequence[Judged], rule: Rule) -> float:
    """The ceil((N + 1) c)-th smallest distance of the real values outside their intervals; infinite with too few masks."""
    outside = []
    for judged in group:
        low, high = _base([score for _, score in judged.scores if not math.isnan(score)], rule)
        outside.append(max(low - judged.real, judged.real - high))
    rank = math.ceil((len(outside) + 1) * rule.coverage)
    return math.inf if rank > len(outside) else float(sorted(outside)[rank - 1])
