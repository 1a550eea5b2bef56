"""What a run has judged so far, one file a case: a stopped run goes on with the case after the last."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paperbench.engine.files import write_atomic
from paperbench.rca.judging import Judged, Verdicts

FOLDER = "cases"
Scores = list[list[Any]]


def file_of(folder: Path, group: str, case: str) -> Path:
    """Where a case's verdicts stand. Names of cases are a user's own: their hash is the file's name."""
    return folder / group / f"{hashlib.sha256(case.encode()).hexdigest()[:24]}.json"


def write(folder: Path, group: str, verdicts: Verdicts) -> None:
    """Keeps one case's verdicts, whole or not at all."""
    content = {
        "case": verdicts.case,
        "seconds": round(verdicts.seconds, 4),
        "problems": verdicts.problems,
        "failures": [list(pair) for pair in verdicts.failures],
        "judged": [
            {
                "segmenter": judged.segmenter,
                "label": judged.label,
                "metric": judged.metric,
                "real": _text(judged.real),
                "scores": [[name, _text(score)] for name, score in judged.scores],
            }
            for judged in verdicts.judged
        ],
    }
    path = file_of(folder, group, verdicts.case)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, allow_nan=False))


def read(folder: Path, group: str, case: str) -> Verdicts | None:
    """The verdicts on a case; None if there are none that can be read, and the case is then judged again."""
    try:
        content = json.loads(file_of(folder, group, case).read_text(encoding="utf-8"))
        return Verdicts(
            case=content["case"],
            seconds=content["seconds"],
            problems=content["problems"],
            failures=tuple((name, text) for name, text in content["failures"]),
            judged=tuple(
                Judged(
                    case=content["case"],
                    segmenter=row["segmenter"],
                    label=row["label"],
                    metric=row["metric"],
                    real=float(row["real"]),
                    scores=tuple((name, float(score)) for name, score in row["scores"]),
                )
                for row in content["judged"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def of_metric(verdicts: Sequence[Verdicts], metric: str) -> list[Judged]:
    """Everything that one metric judged, in the order of the cases."""
    return [judged for verdict in verdicts for judged in verdict.judged if judged.metric == metric]


def _text(value: float) -> float | str:
    """JSON has no nan and no infinity."""
    return value if math.isfinite(value) else str(value)
