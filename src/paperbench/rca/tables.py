"""`cases.csv` and `references.csv`: one line a prediction, one line a reference's score."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paperbench.engine.files import write_atomic
from paperbench.rca.aggregation import Prediction, Rule
from paperbench.rca.judging import Verdicts
from paperbench.rca.statistics import is_poor

CASE_COLUMNS = (
    "case", "segmenter", "label", "metric", "max", "mean", "calibrated", "low", "high", "flag", "best_reference",
    "references", "undefined", "failed_references", "real", "problem",
)  # fmt: skip
REFERENCE_COLUMNS = ("case", "segmenter", "label", "metric", "reference", "score", "problem")

FLAGGED, FINE, UNKNOWN = "poor", "good", "undefined"


def flag(prediction: Prediction, *, threshold: float, on: str, rule: Rule) -> str:
    """`poor` below the threshold (for distances: above), `good`, or `undefined` where nothing can be predicted."""
    value = {"max": prediction.best, "mean": prediction.mean, "calibrated": prediction.calibrated}[on]
    if math.isnan(value):
        return UNKNOWN
    return FLAGGED if is_poor(value, threshold, rule) else FINE


def case_row(prediction: Prediction, flagged: str, failed: int = 0) -> dict[str, Any]:
    """One line of `cases.csv`. `max` is the best score: for distances the smallest."""
    judged = prediction.judged
    return {
        "case": judged.case,
        "segmenter": judged.segmenter,
        "label": judged.label,
        "metric": judged.metric,
        "max": number(prediction.best),
        "mean": number(prediction.mean),
        "calibrated": number(prediction.calibrated),
        "low": number(prediction.low),
        "high": number(prediction.high),
        "flag": flagged,
        "best_reference": prediction.reference,
        "references": prediction.defined,
        "undefined": len(judged.scores) - prediction.defined,
        "failed_references": failed,
        "real": number(judged.real),
        "problem": "",
    }


def problem_rows(verdicts: Sequence[Verdicts]) -> list[dict[str, Any]]:
    """A line for each case, or each segmenter of a case, that could not be judged."""
    return [
        {"case": verdict.case, "segmenter": segmenter, "flag": UNKNOWN, "problem": text}
        for verdict in verdicts
        for segmenter, text in verdict.problems.items()
    ]


def reference_rows(verdicts: Sequence[Verdicts]) -> Iterable[dict[str, Any]]:
    """Every reference's score, and a line for each reference that failed."""
    for verdict in verdicts:
        for judged in verdict.judged:
            for reference, score in judged.scores:
                yield {
                    "case": judged.case,
                    "segmenter": judged.segmenter,
                    "label": judged.label,
                    "metric": judged.metric,
                    "reference": reference,
                    "score": "nan" if math.isnan(score) else number(score),
                }
        for reference, text in verdict.failures:
            yield {"case": verdict.case, "reference": reference, "problem": text}


def write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV file, whole or not at all; fields that a row lacks stay empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: guarded(value) for key, value in row.items()} for row in rows)
    write_atomic(path, text.getvalue())


def guarded(value: Any) -> Any:
    """Names come from strangers' files: one that a spreadsheet would take for a formula is made plain text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r") else value


def number(value: float) -> str:
    """Six decimals; empty where there is none."""
    return "" if math.isnan(value) else f"{value:.6f}" if math.isfinite(value) else "inf"
