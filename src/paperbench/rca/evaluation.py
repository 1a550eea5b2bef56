"""Agreement of predictions with true quality over many masks, and the tables of a run.

Every mean comes with its number of masks. `cases.csv` has one line for each prediction, `references.csv` one for each score of a
reference.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.engine.files import write_atomic
from paperbench.rca.prediction import Prediction, Rule
from paperbench.rca.scoring import CaseResult

Array = NDArray[np.float64]


def pearson(predicted: Array, real: Array) -> float:
    """Return the Pearson correlation of (N,) values; NaN for fewer than three, or where either is constant."""
    if len(real) < 3 or np.ptp(predicted) < 1e-12 or np.ptp(real) < 1e-12:
        return math.nan
    return float(np.corrcoef(predicted, real)[0, 1])


def auroc(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: the probability that a positive scores above a negative, ties one half; NaN without
    both."""
    ups, downs = int(positive.sum()), int((~positive).sum())
    if ups == 0 or downs == 0:
        return math.nan
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    return float((ranks[positive].sum() - ups * (ups + 1) / 2) / (ups * downs))


def is_poor(value: float, threshold: float, rule: Rule) -> bool:
    """Return True for a value that is worse than the threshold, or undefined."""
    return not (value >= threshold if rule.higher else value <= threshold)


def agreement(predictions: Sequence[Prediction], *, threshold: float | None, rule: Rule) -> dict[str, float]:
    """Return statistics of predictions for masks whose true value is known; only those that are defined, counts included.

    Keys: `masks` (all with a real value and a prediction); `pearson_r`, `mae` and `bias` of the best score, `mean_pearson_r` and
    `mean_mae` of the mean, `calibrated_mae`; `real_mean` and `predicted_mean`, by the best score, of the masks that `mae` is of;
    `accuracy@T` of good or poor at the threshold, `failure_auroc` (poor masks have low predictions), `poor`; `coverage` and
    `interval_width`, where there are intervals. Infinite distances count in accuracy and failure detection, not in correlation
    and errors; where there are any, `finite` is the number of masks of `mae`. Without a `threshold` no mask is good or poor.
    """
    known = [p for p in predictions if not math.isnan(p.mask.real) and p.defined]
    out: dict[str, float] = {"masks": len(known)}
    if not known:
        return out
    real, best, mean, calibrated, low, high = (
        np.array(column, np.float64)
        for column in zip(*((p.mask.real, p.best, p.mean, p.calibrated, p.low, p.high) for p in known), strict=True)
    )
    comparable = np.isfinite(real) & np.isfinite(best)
    if not comparable.all():
        out["finite"] = int(comparable.sum())
    out |= _errors("", best, real) | _errors("mean_", mean, real)
    if (usable := np.isfinite(calibrated) & np.isfinite(real)).any():
        out["calibrated_mae"] = float(np.abs(calibrated[usable] - real[usable]).mean())
    if threshold is not None:
        poor = np.array([is_poor(value, threshold, rule) for value in real])
        flagged = np.array([is_poor(value, threshold, rule) for value in best])
        out[f"accuracy@{threshold:g}"] = float((poor == flagged).mean())
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


def quality_metrics(
    predictions: Sequence[Prediction], *, threshold: float | None, flagged: int, rule: Rule, failed: int = 0
) -> dict[str, float]:
    """Return the metrics of `results.json`: over all masks, by label, by segmenter, and by both where there are several."""
    out: dict[str, float] = {}

    def add(prefix: str, subset: Iterable[Prediction]) -> None:
        for name, value in agreement(list(subset), threshold=threshold, rule=rule).items():
            if not math.isnan(value):
                out[f"{prefix}/{name}"] = value

    add("rca", predictions)
    defined = [p.best for p in predictions if math.isfinite(p.best)]
    if defined:
        out["rca/predicted_mean"] = float(np.mean(defined))
    cases = {p.mask.case for p in predictions}
    undefined = sum(not p.defined for p in predictions)
    out |= {"rca/cases": len(cases), "rca/failed_cases": failed, "rca/predictions": len(predictions)}
    out["rca/undefined"] = undefined
    if threshold is not None:
        out["rca/flagged"] = flagged
    labels = list(dict.fromkeys(p.mask.label for p in predictions))
    segmenters = list(dict.fromkeys(p.mask.segmenter for p in predictions))
    if any(not math.isnan(p.mask.real) for p in predictions):
        for label in labels:
            add(f"rca/{label}", (p for p in predictions if p.mask.label == label))
        for segmenter in segmenters if len(segmenters) > 1 else ():
            own = [p for p in predictions if p.mask.segmenter == segmenter]
            add(f"rca/by/{segmenter}", own)
            for label in labels:
                add(f"rca/by/{segmenter}/{label}", (p for p in own if p.mask.label == label))
    return out


def as_number(value: Any) -> float:
    """Parse a number of a file: `nan`, `inf` and empty fields included. Raises ValueError for anything else."""
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"{value!r} is no number")  # Python alone reads 1_000
    return math.nan if value in ("", None) else float(value)


# --- tables -----------------------------------------------------------------------------------------------------------


CASE_COLUMNS = (
    "case", "segmenter", "label", "metric", "max", "mean", "calibrated", "low", "high", "flag", "best_reference",
    "references", "undefined", "failed_references", "real", "problem",
)  # fmt: skip
REFERENCE_COLUMNS = ("case", "segmenter", "label", "metric", "reference", "score", "problem")

POOR, GOOD, UNDEFINED = "poor", "good", "undefined"


def flag(prediction: Prediction, *, threshold: float | None, on: str, rule: Rule) -> str:
    """Return `poor` below the threshold (for distances: above), `good`, `undefined` without a prediction; empty without a
    threshold."""
    value = {"max": prediction.best, "mean": prediction.mean, "calibrated": prediction.calibrated}[on]
    if math.isnan(value):
        return UNDEFINED
    if threshold is None:
        return ""
    return POOR if is_poor(value, threshold, rule) else GOOD


FEWEST_COPIES: Final = 3
"""Cases whose masks equal their truth, from which a copy is likelier than a perfect segmenter."""


def equal_to_truth(predictions: Iterable[Prediction], of_equal: float | None) -> dict[str, int]:
    """Return the segmenters whose masks all equal their truth, with their cases. of_equal: the value that equal masks have."""
    cases: dict[str, set[str]] = {}
    unequal: set[str] = set()
    for prediction in predictions:
        mask = prediction.mask
        if not math.isnan(mask.real):
            cases.setdefault(mask.segmenter, set()).add(mask.case)
            if mask.real != of_equal:
                unequal.add(mask.segmenter)
    return {name: len(held) for name, held in cases.items() if name not in unequal and len(held) >= FEWEST_COPIES}


def case_row(prediction: Prediction, flagged: str, failed: int = 0) -> dict[str, Any]:
    """Return one line of `cases.csv`. `max` is the best score: for distances the smallest."""
    mask = prediction.mask
    return {
        "case": mask.case,
        "segmenter": mask.segmenter,
        "label": mask.label,
        "metric": mask.metric,
        "max": number(prediction.best),
        "mean": number(prediction.mean),
        "calibrated": number(prediction.calibrated),
        "low": number(prediction.low),
        "high": number(prediction.high),
        "flag": flagged,
        "best_reference": prediction.reference,
        "references": prediction.defined,
        "undefined": len(mask.scores) - prediction.defined,
        "failed_references": failed,
        "real": number(mask.real),
        "problem": "",
    }


def problem_rows(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """Return a line for each case, segmenter of a case, or label of a mask without a prediction, and for each remark."""
    rows = [
        {"case": result.case, "segmenter": segmenter, "flag": UNDEFINED, "problem": text}
        for result in results
        for segmenter, text in result.problems.items()
    ]
    for result in results:
        for remark in result.remarks:
            row = {"case": result.case, "segmenter": remark.segmenter, "label": remark.label}
            rows.append({**row, "flag": UNDEFINED if remark.label else "", "problem": remark.text})
    return rows


def reference_rows(results: Sequence[CaseResult]) -> Iterable[dict[str, Any]]:
    """Yield a line for each score of a reference, and for each reference that failed."""
    for result in results:
        for mask in result.masks:
            for reference, score in mask.scores:
                yield {
                    "case": mask.case,
                    "segmenter": mask.segmenter,
                    "label": mask.label,
                    "metric": mask.metric,
                    "reference": reference,
                    "score": "nan" if math.isnan(score) else number(score),
                }
        for reference, text in result.failures:
            yield {"case": result.case, "reference": reference, "problem": text}


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file, entirely or not at all; missing fields stay empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: escaped(value) for key, value in row.items()} for row in rows)
    write_atomic(path, text.getvalue())


def escaped(value: Any) -> Any:
    """Prefix text that a spreadsheet would read as a formula: names come from files of other people."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r") else value


def number(value: float) -> str:
    """Format with six decimals; NaN is empty."""
    return "" if math.isnan(value) else f"{value:.6f}" if math.isfinite(value) else "inf"
