"""Task `rca-scores`: predictions and statistics of reference scores that another program computed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paperbench.config.paths import expanded
from paperbench.config.words import counted
from paperbench.engine.run import Run
from paperbench.errors import ConfigError, DataError
from paperbench.rca import figures
from paperbench.rca.config import RcaScores
from paperbench.rca.estimation import write_tables
from paperbench.rca.evaluation import as_number, quality_metrics
from paperbench.rca.manifest import read_rows
from paperbench.rca.mask_metric_specs import (
    DISTANCE_NAMES,
    METRIC_SPECS,
    PERCENT,
    SLACK,
    MaskMetric,
    out_of_range,
    threshold_of,
)
from paperbench.rca.prediction import NONE, Rule, calibrate, predict
from paperbench.rca.scoring import CaseResult, MaskScores

NEEDED = ("case", "label", "reference", "score")
KNOWN = (*NEEDED, "truth", "segmenter", "metric")
METRIC = "score"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The masks of the files, and the metric of which their scores are. remark: an assumption about it, and what is
    undefined; empty for none."""

    masks: Sequence[MaskScores]
    calibration: Sequence[MaskScores]
    metric: MaskMetric
    threshold: float | None
    remark: str


def plan(config: RcaScores) -> Mapping[str, str]:
    """Read the files and describe them.

    Raises ConfigError for a missing key and for keys that contradict the scores, DataError for a file without scores and for scores
    out of the range of their metric.
    """
    scores = _load(config)
    masks, metric = scores.masks, scores.metric
    known = sum(not math.isnan(mask.real) for mask in masks)
    best = "larger" if metric.higher_is_better else "smaller"
    poor = "none" if scores.threshold is None else f"{scores.threshold:g}"
    return {
        "data": f"{counted(len(masks), 'masks and labels')}, truth of {known}, from {config.scores}",
        "metric": f"{metric.name}, {best} is better, {metric.range}; threshold {poor}",
        "calibration": f"{counted(len(scores.calibration), 'masks and labels')}, from {config.calibration}"
        if scores.calibration
        else "none",
        **({"remark": scores.remark} if scores.remark else {}),
    }


def run(config: RcaScores, run: Run) -> dict[str, float]:
    """Predict, calibrate and compare; writes the tables of `rca-estimate`."""
    return run.ranks.on_main(lambda: _work(config, run))


def _work(config: RcaScores, run: Run) -> dict[str, float]:
    scores = _load(config)
    if scores.remark:
        run.reporter.message(scores.remark)
    if scores.threshold is None:
        run.reporter.message(
            f"{scores.metric.name} has no usual threshold: no mask is flagged; threshold=VALUE gives one"
        )
    interval = config.interval
    rule = Rule(
        higher=scores.metric.higher_is_better,
        limit=scores.metric.upper,
        coverage=interval.coverage,
        low=interval.low,
        high=interval.high,
    )
    calibration = calibrate(scores.calibration, rule) if scores.calibration else NONE
    if scores.calibration and not calibration.curves:
        run.reporter.message(f"too few masks of known quality to calibrate on ({calibration.masks})")
    predictions = [predict(mask, rule, calibration) for mask in scores.masks]
    by_case: dict[str, list[MaskScores]] = defaultdict(list)
    for mask in scores.masks:
        by_case[mask.case].append(mask)
    results = [CaseResult(case=case, masks=tuple(group)) for case, group in by_case.items()]
    threshold = scores.threshold
    flagged = write_tables(run.directory.path, config, {METRIC: predictions}, results, rule, threshold)
    run.draw(figures.scatter, predictions, run.directory.figures / "predicted_real.png", METRIC, threshold)
    return quality_metrics(predictions, threshold=threshold, flagged=flagged, rule=rule)


def _load(config: RcaScores) -> Scores:
    if not config.scores:
        raise ConfigError(
            f"scores is empty: scores=FILE.csv names a file with the columns {', '.join(NEEDED)}[, truth, segmenter]"
        )
    masks, named = read_scores(Path(config.scores))
    known, named_too = read_scores(Path(config.calibration)) if config.calibration else ([], "")
    if known and all(math.isnan(mask.real) for mask in known):
        raise DataError(f"{config.calibration}: has no truth in any row; calibration learns from it")
    if shared := {mask.case for mask in masks} & {mask.case for mask in known}:
        raise DataError(
            f"{config.calibration}: holds {len(shared)} cases of {config.scores} as well, {min(shared)} for one; "
            "an interval that was fitted on its own test cases is not valid; remove them from one file"
        )
    names = {name for name in (config.metric, named, named_too) if name}
    if len(names) > 1:
        raise ConfigError(
            f"the scores are of several metrics, {', '.join(sorted(names))}; give files and metric= of one of them"
        )
    metric, remark = metric_of(config, next(iter(names), ""), [*masks, *known])
    refuse_out_of_range(config, metric, masks, known)
    threshold, mistake = threshold_of(metric, config.threshold)
    if mistake:
        raise ConfigError(mistake)
    remarks = [remark, _without_a_number(masks), _own_references(masks), _alike([*masks, *known])]
    return Scores(
        masks=masks, calibration=known, metric=metric, threshold=threshold, remark="; ".join(filter(None, remarks))
    )


def _own_references(masks: Sequence[MaskScores]) -> str:
    """Text for a remark about masks that are scored on a reference of their own name; empty where none is."""
    own = [mask.case for mask in masks if mask.case in dict(mask.scores)]
    if not own:
        return ""
    return (
        f"{len(own)} of {len(masks)} masks and labels have a score on a reference of their own name, such as case {own[0]}: where "
        "it is the same image, remove the row, a mask is never scored on its own image"
    )


def _alike(masks: Sequence[MaskScores]) -> str:
    """Text for a remark about names that differ in upper and lower case, or as 1 and 1.0 do; empty where there are none."""
    for what in ("case", "segmenter", "label"):
        folded: dict[str, str] = {}
        for name in sorted({getattr(mask, what) for mask in masks}):
            other = folded.setdefault(_folded(name), name)
            if other != name:
                return f"{what} {other} and {what} {name} are taken for two, though they differ in their spelling alone"
    return ""


def _folded(name: str) -> str:
    try:
        return repr(as_number(name)) if name else name
    except ValueError:
        return name.casefold()


def _without_a_number(masks: Sequence[MaskScores]) -> str:
    """Text for a remark about masks of which every score is NaN; empty where there is none."""
    empty = [mask for mask in masks if all(math.isnan(score) for _, score in mask.scores)]
    if not empty:
        return ""
    return (
        f"{len(empty)} of {len(masks)} masks and labels have no score that is a number, such as case {empty[0].case}, label "
        f"{empty[0].label}: their quality is undefined, and no statistic counts them"
    )


def metric_of(config: RcaScores, name: str, masks: Sequence[MaskScores]) -> tuple[MaskMetric, str]:
    """Return the metric of the scores, by its name or by their range, and the assumption that was made, if any.

    Raises ConfigError where the keys contradict the metric, or nothing says what the scores are.
    """
    higher = config.higher_is_better
    if spec := METRIC_SPECS.get(name):
        if higher not in (None, spec.higher_is_better):
            raise ConfigError(
                f"higher_is_better={str(higher).lower()}: of {spec.name} {'larger' if spec.higher_is_better else 'smaller'} values "
                "are better; leave the key out"
            )
        return spec, ""
    largest = max((value for mask in masks for value in _values(mask)), default=0.0)
    if higher is False:
        return MaskMetric(name=name or METRIC, higher_is_better=False), ""
    if largest <= 1 + SLACK:
        spec = replace(METRIC_SPECS["dsc"], name=name or METRIC)
        if higher:
            return spec, ""
        return spec, (
            "nothing says of which metric the scores are: they are taken for overlaps in 0..1, of which larger ones are better; "
            "else metric=NAME, or higher_is_better=false"
        )
    if higher and config.threshold is not None:
        return MaskMetric(name=name or METRIC, higher_is_better=True), ""
    raise ConfigError(
        f"{config.scores}: goes up to {largest:g}, so these are no overlaps in 0..1. In percent: divide them by 100. Distances: "
        f"metric={' or '.join(DISTANCE_NAMES)}, or higher_is_better=false. Another metric of which larger values are better: "
        "higher_is_better=true threshold=VALUE"
    )


def refuse_out_of_range(
    config: RcaScores, metric: MaskMetric, masks: Sequence[MaskScores], known: Sequence[MaskScores]
) -> None:
    """Raise DataError for scores or true values that the metric cannot have."""
    mistakes = []
    for file, group in ((config.scores, masks), (config.calibration, known)):
        wrong = [mask for mask in group if any(out_of_range(metric, value) for value in _values(mask))]
        if wrong:
            first = wrong[0]
            value = next(value for value in _values(first) if out_of_range(metric, value))
            percent = " In percent: divide all by 100." if math.isfinite(value) and value <= PERCENT else ""
            mistakes.append(
                f"{file}: {value:g} of case {first.case}, label {first.label} (and of {len(wrong) - 1} further masks): "
                f"{metric.name} goes from {metric.range}.{percent} Another metric: metric=NAME"
            )
    if mistakes:
        raise DataError("\n".join(mistakes))


def _values(mask: MaskScores) -> list[float]:
    return [value for value in (*(score for _, score in mask.scores), mask.real) if not math.isnan(value)]


def read_scores(path: Path) -> tuple[list[MaskScores], str]:
    """Read scores by case, segmenter and label, in the order of the file, and the metric that it names, if any.

    Raises DataError naming file and line.
    """
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
    masks = [
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
    return masks, next(iter(measured), "")


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
