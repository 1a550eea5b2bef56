"""Task `rca-scores`: predictions and statistics of reference scores that another program computed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from paperbench.config.paths import expanded
from paperbench.engine.run import Run
from paperbench.errors import ConfigError, DataError
from paperbench.rca import figures
from paperbench.rca.config import RcaScores
from paperbench.rca.estimation import write_tables
from paperbench.rca.evaluation import as_number, quality_metrics
from paperbench.rca.manifest import read_rows
from paperbench.rca.prediction import NONE, Rule, calibrate, predict
from paperbench.rca.scoring import CaseResult, MaskScores

NEEDED = ("case", "label", "reference", "score")
KNOWN = (*NEEDED, "truth", "segmenter", "metric")
METRIC = "score"


def plan(config: RcaScores) -> Mapping[str, str]:
    """Read the files and describe them. Raises ConfigError for a missing key, DataError for a file without scores."""
    masks, calibration = _load(config)
    known = sum(not math.isnan(mask.real) for mask in masks)
    return {
        "data": f"{len(masks)} masks and labels, truth of {known}, from {config.scores}",
        "calibration": f"{len(calibration)} masks and labels, from {config.calibration}" if calibration else "none",
    }


def run(config: RcaScores, run: Run) -> dict[str, float]:
    """Predict, calibrate and compare; writes the tables of `rca-estimate`."""
    return run.ranks.on_main(lambda: _work(config, run))


def _work(config: RcaScores, run: Run) -> dict[str, float]:
    masks, known = _load(config)
    rule = _rule(config, [*masks, *known])
    calibration = calibrate(known, rule) if known else NONE
    if known and not calibration.curves:
        run.reporter.message(f"too few masks of known quality to calibrate on ({calibration.masks})")
    predictions = [predict(mask, rule, calibration) for mask in masks]
    by_case: dict[str, list[MaskScores]] = defaultdict(list)
    for mask in masks:
        by_case[mask.case].append(mask)
    results = [CaseResult(case=case, masks=tuple(group)) for case, group in by_case.items()]
    flagged = write_tables(run.directory.path, config, {METRIC: predictions}, results, rule)
    run.draw(figures.scatter, predictions, run.directory.figures / "predicted_real.png", METRIC, config.threshold)
    return quality_metrics(predictions, threshold=config.threshold, flagged=flagged, rule=rule)


def _rule(config: RcaScores, masks: Sequence[MaskScores]) -> Rule:
    """Return the rule; scores of which higher is better have the limit 1, unless some are larger: then there is none."""
    values = [score for mask in masks for _, score in mask.scores if math.isfinite(score)]
    bounded = config.higher_is_better and max(values, default=0.0) <= 1.0
    interval = config.interval
    return Rule(
        higher=config.higher_is_better,
        limit=1.0 if bounded else math.inf,
        coverage=interval.coverage,
        low=interval.low,
        high=interval.high,
    )


def _load(config: RcaScores) -> tuple[list[MaskScores], list[MaskScores]]:
    if not config.scores:
        raise ConfigError(
            f"scores is empty: scores=FILE.csv names a file with the columns {', '.join(NEEDED)}[, truth, segmenter]"
        )
    masks = read_scores(Path(config.scores))
    known = read_scores(Path(config.calibration)) if config.calibration else []
    if known and all(math.isnan(mask.real) for mask in known):
        raise DataError(f"{config.calibration}: has no truth in any row; calibration learns from it")
    if shared := {mask.case for mask in masks} & {mask.case for mask in known}:
        raise DataError(
            f"{config.calibration}: holds {len(shared)} cases of {config.scores} as well, {min(shared)} for one; "
            "an interval that was fitted on its own test cases is not valid; remove them from one file"
        )
    return masks, known


def read_scores(path: Path) -> list[MaskScores]:
    """Read scores by case, segmenter and label, in the order of the file. Raises DataError naming file and line."""
    scores: dict[tuple[str, str, str], dict[str, float]] = {}
    truths: dict[tuple[str, str, str], float] = {}
    mistakes: list[str] = []
    rows = read_rows(expanded(path), needed=NEEDED, known=KNOWN)
    if len(measured := {row["metric"] for _, row in rows if row.get("metric")}) > 1:
        raise DataError(f"{path}: holds several metrics, {', '.join(sorted(measured))}; give the rows of one of them")
    for line, row in rows:
        if not row["score"] and not row["label"]:
            continue  # a reference that failed, as `references.csv` records it
        key = (row["case"], row.get("segmenter") or "scores", row["label"])
        try:
            _take(row, key, scores, truths)
        except ValueError as error:
            mistakes.append(f"{path}:{line}: {error}")
    if mistakes:
        more = [f"and {len(mistakes) - 20} more"] if len(mistakes) > 20 else []
        raise DataError("\n".join([*mistakes[:20], *more]))
    return [
        MaskScores(
            case=case,
            segmenter=segmenter,
            label=label,
            metric=METRIC,
            scores=tuple(sorted(found.items())),
            real=truths.get((case, segmenter, label), math.nan),
        )
        for (case, segmenter, label), found in scores.items()
    ]


def _take(
    row: Mapping[str, str],
    key: tuple[str, str, str],
    scores: dict[tuple[str, str, str], dict[str, float]],
    truths: dict[tuple[str, str, str], float],
) -> None:
    """Add one row; the truth of a mask may stand in each of its rows, or in one."""
    if not row["case"] or not row["reference"]:
        raise ValueError("case or reference is empty")
    values = {}
    for name in ("score", "truth"):
        try:
            values[name] = as_number(row.get(name))
        except ValueError:
            raise ValueError(f"{name} {row[name]!r} is no number") from None
        if values[name] < 0:
            raise ValueError(f"{name} {row[name]} is negative")
    found = scores.setdefault(key, {})
    if row["reference"] in found:
        raise ValueError(f"a second score of reference {row['reference']} for case {row['case']}, label {row['label']}")
    found[row["reference"]] = values["score"]
    truth = values["truth"]
    if not math.isnan(truth) and truths.setdefault(key, truth) != truth:
        raise ValueError(
            f"truth {truth:g} of case {row['case']}, label {row['label']}; an earlier row says {truths[key]:g}"
        )
