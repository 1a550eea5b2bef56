"""Estimation of mask quality: case by case, resumable after each; then calibration, tables, statistics and figures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from paperbench.config.paths import expanded
from paperbench.engine.first_look import Look, write_first_look
from paperbench.engine.run import Run
from paperbench.errors import ConfigError, DataError, EnvironmentError_
from paperbench.rca import evaluation, figures, settings_choice, sitk
from paperbench.rca.atlas import Atlas, TransformStore
from paperbench.rca.cases import (
    RECORDED,
    Case,
    CaseSet,
    Image,
    ImageSample,
    ReferenceSelection,
    Remark,
    leave_one_out,
    reason,
    without,
    without_itself,
)
from paperbench.rca.cnn import CnnClassifier
from paperbench.rca.config import QualityConfig, RcaEstimate
from paperbench.rca.evaluation import quality_metrics
from paperbench.rca.forest import ForestClassifier
from paperbench.rca.mask_metric_specs import METRIC_SPECS, threshold_of
from paperbench.rca.prediction import NONE, Prediction, Rule, calibrate, predict
from paperbench.rca.scoring import (
    FOLDER,
    CaseResult,
    ReverseClassifier,
    of_metric,
    read_result,
    score_masks,
    write_result,
)
from paperbench.rca.settings import Choice
from paperbench.rca.settings_choice import LeftOutSet, choice_metrics, choose_settings

CASES, CALIBRATING = "judged", "calibrating"
"""Folders of the results of cases, which earlier versions wrote under the same names."""
_PHASES = {CASES: "scoring"}


def estimate(config: RcaEstimate, case_set: CaseSet, run: Run) -> dict[str, float]:
    """Score every case that has no result yet; return the metrics of all. Raises DataError when none could be scored."""
    for remark in case_set.remarks:
        run.reporter.message(remark)
    choice = choose_registration(config, case_set, run)
    classifier = build_classifier(config, case_set, run, choice)
    runner = CaseRunner(config, case_set, classifier, run)
    calibrating = runner.run_all(
        CALIBRATING, calibration_cases(config, case_set), leave_out=config.calibration.kind == "references"
    )
    results = runner.run_all(CASES, case_set.cases, keep_images=config.pictures)
    metrics = run.ranks.on_main(lambda: summarise(config, runner, results, calibrating))
    return {**metrics, **(choice_metrics(choice) if choice else {})}


def choose_registration(config: RcaEstimate, case_set: CaseSet, run: Run) -> Choice | None:
    """Return the settings of the registration, chosen on the references; None for a classifier without registration of ours.

    Raises DataError in the folder of an unfinished run whose cases an earlier version scored: its settings are not recorded.
    """
    if config.classifier != "atlas":
        return None
    folder = run.directory.path
    scored = any((folder / FOLDER / group).is_dir() for group in (CASES, CALIBRATING))
    if run.ranks.on_main(lambda: scored and not (folder / settings_choice.FILE).exists()):
        raise DataError(
            f"{folder}: its cases were scored by an earlier version with other settings of the registration, and the rest would "
            "differ; start again with another --run-dir"
        )
    left_out = LeftOutSet(
        case_set.references,
        case_set.labels,
        config.registration,
        config.reference,
        masks=config.calibration.degraded,
    )
    return choose_settings(left_out, run, transforms_folder(config))


def build_classifier(config: RcaEstimate, case_set: CaseSet, run: Run, choice: Choice | None) -> ReverseClassifier:
    """Return the reverse classifier of the configuration, registration with the chosen settings."""
    match config.classifier:
        case "atlas-sitk":
            return sitk.SitkAtlas()
        case "forest":
            return ForestClassifier(seed=config.seed)
        case "cnn":
            return CnnClassifier(seed=config.seed, steps=config.cnn_steps, device=run.device)
    assert choice is not None
    levels = choice.settings.apply(config.registration, case_set.references[0].intensities.ndim)
    folder = transforms_folder(config)
    store = None if folder is None else TransformStore(folder, levels)
    if store is not None:
        run.ranks.on_main(store.check)
    samples = config.registration.samples
    return Atlas(levels, labels=case_set.labels, samples=samples, device=run.device, store=store)


def transforms_folder(config: RcaEstimate) -> Path | None:
    """Return the folder of computed transforms; None where none are stored."""
    folder = config.output.transforms
    if folder == "":
        return None
    return expanded(folder) if folder is not None else Path(config.output.root) / "transforms"


def calibration_cases(config: RcaEstimate, case_set: CaseSet) -> tuple[Case, ...]:
    """Return cases with masks of known quality; none for `calibration.kind=none`."""
    match config.calibration.kind:
        case "none":
            return ()
        case "labelled":
            if not case_set.calibration:
                raise ConfigError(
                    "calibration.kind=labelled needs labelled images: set data.calibration to their number, such as 24"
                )
            return case_set.calibration
        case "references":
            return leave_one_out(
                case_set.references, case_set.labels, masks=config.calibration.degraded, seed=config.seed
            )


class CaseRunner:
    """Scores cases one after another, each rank its part, and writes every result at once."""

    def __init__(self, config: RcaEstimate, case_set: CaseSet, classifier: ReverseClassifier, run: Run) -> None:
        self.config = config
        self.case_set = case_set
        self.classifier = classifier
        self.run = run
        self.selection = ReferenceSelection(config.reference, seed=config.seed)
        self.folder = run.directory.path / FOLDER
        self.images: dict[str, Image] = {}
        """Images of the worst cases that this process has scored, for the figures."""
        self._worst: list[tuple[float, str]] = []
        self._calibrating: list[ImageSample] | None = None

    def run_all(
        self, group: str, cases: Sequence[Case], *, leave_out: bool = False, keep_images: int = 0
    ) -> list[CaseResult]:
        """Return the results of `cases`, in their order, those of earlier sessions included. Raises Stopped between two cases.

        leave_out: a case is scored by all references but itself. keep_images: number of worst cases whose images stay in `images`.
        """
        ranks = self.run.ranks
        for step in range(-(-len(cases) // ranks.world)):
            self.run.raise_if_stopped()
            index = step * ranks.world + ranks.rank
            if index < len(cases):
                self._run_one(group, cases[index], leave_out=leave_out, keep_images=keep_images)
            done = min(len(cases), (step + 1) * ranks.world)
            self.run.reporter.progress(_PHASES.get(group, group), done, len(cases), {})
        ranks.any(False)  # every rank's files are written before rank 0 reads them
        results = [read_result(self.folder, group, case.name) for case in cases]
        return [result for result in results if result is not None]

    def _run_one(self, group: str, case: Case, *, leave_out: bool, keep_images: int) -> None:
        if read_result(self.folder, group, case.name) is not None:
            return
        start = time.perf_counter()
        try:
            image = case.load()
            if group == CASES:
                image = self._told_of_calibration(image)
            result = self._score(image, leave_out=leave_out)
            self._keep(image, result, keep_images)
        except EnvironmentError_ as error:
            if not isinstance(error, DataError):
                raise  # a full disk is no fault of this case
            result = CaseResult(case=case.name, problems={"": reason(error)})
        except RECORDED as error:
            result = CaseResult(case=case.name, problems={"": reason(error)})
        for segmenter, text in result.problems.items():
            self.run.reporter.message(f"{case.name}{f', {segmenter}' if segmenter else ''}: no prediction: {text}")
        for remark in result.remarks:
            of = ", ".join(filter(None, (remark.segmenter, remark.label and f"label {remark.label}")))
            self.run.reporter.message(f"{case.name}{of and f', {of}'}: {remark.text}")
        write_result(self.folder, group, replace(result, seconds=time.perf_counter() - start))

    def _score(self, image: Image, *, leave_out: bool) -> CaseResult:
        pool: Sequence[Image] = self.case_set.references
        if leave_out:
            pool = without(pool, image.name)
        pool, same = without_itself(image, pool)
        if same:
            text = f"the reference {', '.join(same)} is this very image and is left out: no mask is scored on its own image"
            if not pool:
                raise DataError(f"{text}; no other reference is there")
            image = replace(image, remarks=(*image.remarks, Remark(text=text)))
        references = self.selection.select(image, pool)
        return score_masks(image, references, self.classifier, self.case_set.labels, self.config.metrics)

    def _told_of_calibration(self, image: Image) -> Image:
        """Return the image with a remark where it is one of those with a truth that calibrate."""
        if self.config.calibration.kind != "labelled":
            return image
        if self._calibrating is None:
            self._calibrating = list(_samples(self.case_set.calibration))
        own = ImageSample.of(image)
        same = [sample.name for sample in self._calibrating if sample.same(own)]
        if not same:
            return image
        text = (
            f"the calibration image {', '.join(same)} is this very image: its interval was calibrated on its own truth, "
            "and says nothing about new images"
        )
        return replace(image, remarks=(*image.remarks, Remark(text=text)))

    def _keep(self, image: Image, result: CaseResult, count: int) -> None:
        rule = rule_of(self.config, self.config.metrics[0])
        predictions = [predict(mask, rule) for mask in of_metric([result], self.config.metrics[0])]
        badness = [badness_of(prediction, rule) for prediction in predictions if prediction.reference]
        if not count or not badness:
            return
        self.images[image.name] = image
        self._worst = sorted([*self._worst, (min(badness), image.name)])
        for _, name in self._worst[count:]:
            self.images.pop(name, None)
        del self._worst[count:]


def _samples(cases: Sequence[Case]) -> Iterator[ImageSample]:
    """Yield the samples of the images that can be read; another place says of the others why not."""
    for case in cases:
        with suppress(*RECORDED):
            yield ImageSample.of(case.load())


# --- at the end -------------------------------------------------------------------------------------------------------


def summarise(
    config: RcaEstimate, runner: CaseRunner, results: Sequence[CaseResult], calibrating: Sequence[CaseResult]
) -> dict[str, float]:
    """Write tables and figures of all cases together; return the metrics."""
    run = runner.run
    failed = [result for result in results if not result.masks]
    threshold = first_threshold(config)
    if len(failed) == len(results):
        write_tables(run.directory.path, config, {}, results, rule_of(config, config.metrics[0]), threshold)
        texts = "\n".join(f"  {result.case}: {'; '.join(result.problems.values())}" for result in failed[:5])
        raise DataError(f"none of the {len(failed)} cases could be scored:\n{texts}")
    predictions: dict[str, list[Prediction]] = {}
    for metric in config.metrics:
        rule = rule_of(config, metric)
        calibration = calibrate(of_metric(calibrating, metric), rule) if calibrating else NONE
        predictions[metric] = [predict(mask, rule, calibration) for mask in of_metric(results, metric)]
        if calibrating and not calibration.curves:
            run.reporter.message(f"{metric}: too few masks of known quality to calibrate on ({calibration.masks})")
    first = config.metrics[0]
    rule = rule_of(config, first)
    for segmenter, count in evaluation.equal_to_truth(predictions[first], METRIC_SPECS[first].of_equal).items():
        run.reporter.message(
            f"{segmenter}: the masks of all {count} cases equal their truth, voxel by voxel. Where one was copied from the other, "
            "no number that is held against the truth says anything"
        )
    flagged = write_tables(run.directory.path, config, predictions, results, rule, threshold)
    if threshold is None:
        run.reporter.message(f"{first} has no usual threshold: no mask is flagged; threshold=VALUE gives one")
    out = quality_metrics(predictions[first], threshold=threshold, flagged=flagged, rule=rule, failed=len(failed))
    for metric in config.metrics[1:]:
        further = quality_metrics(predictions[metric], threshold=None, flagged=0, rule=rule_of(config, metric))
        out |= {
            f"{metric}/{name}": further[f"rca/{name}"]
            for name in ("pearson_r", "mae", "masks")
            if f"rca/{name}" in further
        }
    run.draw(figures.scatter, predictions[first], run.directory.figures / "predicted_real.png", first, threshold)
    run.draw(draw_worst, config, runner, predictions[first], rule)
    seconds = [result.seconds for result in results if result.masks]
    return {**out, "seconds_per_image": sum(seconds) / len(seconds)}


def first_threshold(config: RcaEstimate) -> float | None:
    """Return the threshold of the first metric; None where it has none. Raises ConfigError for one out of its range."""
    value, mistake = threshold_of(METRIC_SPECS[config.metrics[0]], config.threshold)
    if mistake:
        raise ConfigError(mistake)
    return value


def rule_of(config: RcaEstimate, metric: str) -> Rule:
    """Return the rule by which the scores of one metric become a prediction."""
    return Rule(
        higher=METRIC_SPECS[metric].higher_is_better,
        limit=METRIC_SPECS[metric].upper,
        coverage=config.calibration.coverage,
        low=config.calibration.low,
        high=config.calibration.high,
    )


def write_tables(
    folder: Path,
    config: QualityConfig,
    predictions: Mapping[str, Sequence[Prediction]],
    results: Sequence[CaseResult],
    rule: Rule,
    threshold: float | None,
) -> int:
    """Write `cases.csv` and `references.csv`; return the number of masks that are flagged by the first metric."""
    failed = {result.case: len(result.failures) for result in results}
    rows, flagged = [], 0
    for number, group in enumerate(predictions.values()):
        for prediction in group:
            flag = ""
            if number == 0:
                flag = evaluation.flag(prediction, threshold=threshold, on=config.flag_on, rule=rule)
            flagged += flag == evaluation.POOR
            rows.append(evaluation.case_row(prediction, flag, failed.get(prediction.mask.case, 0)))
    rows += evaluation.problem_rows(results)
    evaluation.write_table(folder / "cases.csv", evaluation.CASE_COLUMNS, sorted(rows, key=lambda row: row["case"]))
    evaluation.write_table(folder / "references.csv", evaluation.REFERENCE_COLUMNS, evaluation.reference_rows(results))
    return flagged


def badness_of(prediction: Prediction, rule: Rule) -> float:
    """Return the best score, signed so that the worst masks come first."""
    return prediction.best if rule.higher else -prediction.best


def draw_worst(config: RcaEstimate, runner: CaseRunner, predictions: Sequence[Prediction], rule: Rule) -> None:
    """Draw the masks with the worst predictions, each with the reference of its best score."""
    case_set, run = runner.case_set, runner.run
    cases = {case.name: case for case in case_set.cases}
    references = {reference.name: reference for reference in case_set.references}
    ordered = sorted((p for p in predictions if p.reference), key=lambda p: (badness_of(p, rule), p.mask.case))
    worst: dict[tuple[str, str], Prediction] = {}
    for prediction in ordered:
        worst.setdefault((prediction.mask.case, prediction.mask.segmenter), prediction)
    looks = []
    for rank, ((name, segmenter), prediction) in enumerate(list(worst.items())[: config.pictures], start=1):
        try:
            image = runner.images.get(name) or cases[name].load()
            image = replace(image, masks={segmenter: image.masks[segmenter]})
            own = [p for p in ordered if (p.mask.case, p.mask.segmenter) == (name, segmenter)]
            picture = figures.first_look(
                image, segmenter, case_set.labels, own, run.directory.figures / f"first-{rank:02d}.png",
                metric=config.metrics[0], threshold=first_threshold(config),
            )  # fmt: skip
            relative = picture.relative_to(run.directory.path).as_posix()
            looks.append(Look(picture=relative, caption=_caption(prediction, config.metrics[0])))
            reference = references[prediction.reference]
            labelled = next(iter(runner.classifier.segment(image, [reference])))
            if labelled.failure:
                continue
            mapped: torch.Tensor = labelled.maps[segmenter]
            figures.worst(
                image, segmenter, reference, mapped.cpu().numpy(), case_set.labels, prediction,
                run.directory.figures / f"worst-{rank:02d}.png",
            )  # fmt: skip
        except RECORDED as error:
            run.reporter.message(f"no figure of {name}: {reason(error)}")
    if looks:
        write_first_look(run.directory.path, "Cases to look at first", looks)


def _caption(prediction: Prediction, metric: str) -> str:
    """Return a line for a mask: its worst label, the predicted value, its interval and the real value where there is one."""
    mask, value = prediction.mask, figures.value_of(prediction)
    text = f"{mask.case}, {mask.segmenter}: {mask.label}, {metric} {value:.3f}"
    if math.isfinite(prediction.low) and math.isfinite(prediction.high):
        text += f" ({prediction.low:.3f} to {prediction.high:.3f})"
    return text if math.isnan(mask.real) else f"{text}, real {mask.real:.3f}"
