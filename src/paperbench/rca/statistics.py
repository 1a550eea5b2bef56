"""How well predictions agree with reality, over many masks. Every mean comes with the number of masks it was taken over."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperbench.rca.aggregation import Prediction, Rule

Array = NDArray[np.float64]


def pearson(predicted: Array, real: Array) -> float:
    """Correlation of (N,) values; nan for fewer than three, or where either does not vary."""
    if len(real) < 3 or np.ptp(predicted) < 1e-12 or np.ptp(real) < 1e-12:
        return math.nan
    return float(np.corrcoef(predicted, real)[0, 1])


def auroc(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Probability that a positive one scores above a negative one, ties one half; nan without both kinds."""
    ups, downs = int(positive.sum()), int((~positive).sum())
    if ups == 0 or downs == 0:
        return math.nan
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    return float((ranks[positive].sum() - ups * (ups + 1) / 2) / (ups * downs))


def is_poor(value: float, threshold: float, rule: Rule) -> bool:
    """Whether a value lies on the wrong side of the threshold; one that is not defined does."""
    return not (value >= threshold if rule.higher else value <= threshold)


def agreement(predictions: Sequence[Prediction], *, threshold: float, rule: Rule) -> dict[str, float]:
    """Numbers of predictions for masks whose real value is known; only those that are defined, counts included.

    Keys: `masks` (all with a real value and a prediction); `pearson_r`, `mae` and `bias` of the best score, `mean_pearson_r` and
    `mean_mae` of the mean, `calibrated_mae`; `real_mean` and `predicted_mean`, by the best score, of the masks that `mae` is of;
    `accuracy@T` of good or poor at the threshold, `failure_auroc` (poor masks have low predictions), `poor`; `coverage` and
    `interval_width`, where there are intervals. Infinite distances count in accuracy and failure detection, not in correlation
    and errors; where there are any, `finite` says how many masks `mae` is the mean of.
    """
    known = [p for p in predictions if not math.isnan(p.judged.real) and p.defined]
    out: dict[str, float] = {"masks": len(known)}
    if not known:
        return out
    real, best, mean, calibrated, low, high = (
        np.array(column, np.float64)
        for column in zip(*((p.judged.real, p.best, p.mean, p.calibrated, p.low, p.high) for p in known), strict=True)
    )
    comparable = np.isfinite(real) & np.isfinite(best)
    if not comparable.all():
        out["finite"] = int(comparable.sum())
    out |= _errors("", best, real) | _errors("mean_", mean, real)
    if (usable := np.isfinite(calibrated) & np.isfinite(real)).any():
        out["calibrated_mae"] = float(np.abs(calibrated[usable] - real[usable]).mean())
    poor = np.array([is_poor(value, threshold, rule) for value in real])
    called = np.array([is_poor(value, threshold, rule) for value in best])
    out[f"accuracy@{threshold:g}"] = float((poor == called).mean())
    out["poor"] = int(poor.sum())
    out["failure_auroc"] = auroc(-best if rule.higher else best, poor)
    bounded = ~np.isnan(low)
    if bounded.any():
        inside = (real >= low) & (real <= high)
        out["coverage"] = float(inside[bounded].mean())
        limited = bounded & np.isfinite(low) & np.isfinite(high)
        if limited.any():
            out["interval_width"] = float((high[limited] - low[limited]).mean())
    if comparable.any():
        out |= {"real_mean": float(real[comparable].mean()), "predicted_mean": float(best[comparable].mean())}
    return out


def _errors(prefix: str, predicted: Array, real: Array) -> dict[str, float]:
    finite = np.isfinite(real) & np.isfinite(predicted)
    if not finite.any():
        return {}
    error = predicted[finite] - real[finite]
    return {
        f"{prefix}pearson_r": pearson(predicted[finite], real[finite]),
        f"{prefix}mae": float(np.abs(error).mean()),
        f"{prefix}bias": float(error.mean()),
    }


def metrics(
    predictions: Sequence[Prediction], *, threshold: float, flagged: int, rule: Rule, failed: int = 0
) -> dict[str, float]:
    """The flat numbers of `results.json`: over all masks, by label, by segmenter, and by both where there are several."""
    out: dict[str, float] = {}

    def add(prefix: str, chosen: Iterable[Prediction]) -> None:
        for name, value in agreement(list(chosen), threshold=threshold, rule=rule).items():
            if not math.isnan(value):
                out[f"{prefix}/{name}"] = value

    add("rca", predictions)
    defined = [p.best for p in predictions if math.isfinite(p.best)]
    if defined:
        out["rca/predicted_mean"] = float(np.mean(defined))
    cases = {p.judged.case for p in predictions}
    undefined = sum(not p.defined for p in predictions)
    out |= {"rca/cases": len(cases), "rca/failed_cases": failed, "rca/predictions": len(predictions)}
    out |= {"rca/undefined": undefined, "rca/flagged": flagged}
    labels = list(dict.fromkeys(p.judged.label for p in predictions))
    segmenters = list(dict.fromkeys(p.judged.segmenter for p in predictions))
    if any(not math.isnan(p.judged.real) for p in predictions):
        for label in labels:
            add(f"rca/{label}", (p for p in predictions if p.judged.label == label))
        for segmenter in segmenters if len(segmenters) > 1 else ():
            own = [p for p in predictions if p.judged.segmenter == segmenter]
            add(f"rca/by/{segmenter}", own)
            for label in labels:
                add(f"rca/by/{segmenter}/{label}", (p for p in own if p.judged.label == label))
    return out


def as_number(value: Any) -> float:
    """A number as it stands in a file: `nan`, `inf` and empty fields included. Raises ValueError for anything else."""
    return math.nan if value in ("", None) else float(value)
