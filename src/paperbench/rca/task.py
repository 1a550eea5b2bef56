"""Task `rca-estimate`: case by case, resumable after each; then calibration, tables, statistics and pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from paperbench.engine.run import Run
from paperbench.errors import ConfigError, DataError, EnvironmentError_
from paperbench.rca import drawing, folders, generated, known, records, selection, sitk, tables
from paperbench.rca.aggregation import NONE, Prediction, Rule, calibrate, predict
from paperbench.rca.atlas import Atlas, schedule
from paperbench.rca.cases import RECORDED, Case, Material, Picture, reason
from paperbench.rca.classifier import ReverseClassifier
from paperbench.rca.cnn import CnnClassifier
from paperbench.rca.config import JudgedConfig, RcaEstimate, RegistrationConfig
from paperbench.rca.forest import ForestClassifier
from paperbench.rca.judging import Verdicts, judge
from paperbench.rca.mask_metrics import HIGHER_IS_BETTER, OVERLAPS
from paperbench.rca.statistics import agreement
from paperbench.rca.statistics import metrics as numbers
from paperbench.rca.transforms import TransformStore

JUDGED, CALIBRATING = "judged", "calibrating"


def plan(config: RcaEstimate) -> Mapping[str, str]:
    """What would be judged, by what. Raises ConfigError and DataError for what could not be, before anything is written."""
    return facts(config, gather(config))


def facts(config: RcaEstimate, material: Material) -> Mapping[str, str]:
    """`plan` of a material, wherever it comes from."""
    dims = material.references[0].image.ndim
    if config.classifier == "atlas-sitk":
        sitk.require()
    if config.classifier != "atlas" and config.registration != RegistrationConfig():
        raise ConfigError(
            f"registration: belongs to classifier=atlas; classifier={config.classifier} has none of its settings"
        )
    levels = schedule(config.registration, dims)
    leaves_out = config.calibration.kind == "references" or config.registration.choose_stiffness
    if leaves_out and len(material.references) < 2:
        known.left_out(material.references, material.labels, masks=1, seed=0)
    count = len(material.references)
    select = config.reference.select
    chosen = "all references" if select == "all" else f"{min(config.reference.count, count)} {select} references"
    steps = sum(n for _, n in levels.affine) + sum(n for _, _, n in levels.bspline)
    return {
        "data": material.description,
        "judged": f"{', '.join(material.segmenters)}; labels {', '.join(material.labels.names)}",
        "classifier": f"{config.classifier}, {dims}-D{f', {steps} steps' if config.classifier == 'atlas' else ''}; {chosen}",
        "calibration": config.calibration.kind,
        **({"remark": "; ".join(material.remarks)} if material.remarks else {}),
    }


def gather(config: RcaEstimate) -> Material:
    """References and cases, from the user's files if any are named, else from `data`."""
    own = [key for key in ("masks", "truth", "images", "manifest") if getattr(config, key)]
    own += [f"reference.{key}" for key in ("images", "masks") if getattr(config.reference, key)]
    if config.calibration.images and config.calibration.kind != "labelled":
        raise ConfigError("calibration.images is given: calibration.kind=labelled uses it, or leave it out")
    return folders.load(config, folders.find(config)) if own else generated.load(config)


def store_folder(config: RcaEstimate) -> Path | None:
    """Where transforms are kept; None where none are."""
    given = config.output.transforms
    if given == "":
        return None
    return Path(given).expanduser() if given is not None else Path(config.output.root) / "transforms"


def run(config: RcaEstimate, run: Run) -> dict[str, float]:
    """Judges every case that is not judged yet; see `engine.task.Task`. Raises DataError when none could be judged."""
    return estimate(config, gather(config), run)


def estimate(config: RcaEstimate, material: Material, run: Run) -> dict[str, float]:
    """`run` of a material, wherever it comes from."""
    for remark in material.remarks:
        run.reporter.message(remark)
    classifier = build(config, material, run, choose_stiffness(config, material, run))
    worker = Worker(config, material, classifier, run)
    calibrating = calibrating_cases(config, material)
    learnt = worker.all(CALIBRATING, calibrating, leave_out=config.calibration.kind == "references")
    verdicts = worker.all(JUDGED, material.cases)
    return run.ranks.on_main(lambda: conclude(config, material, verdicts, learnt, classifier, run))


def choose_stiffness(config: RcaEstimate, material: Material, run: Run) -> float | None:
    """Of `registration.choose_stiffness` the value that predicts degraded masks of the references best, each left out in turn, by
    the mean absolute error of the first metric's best score; None where there is nothing to choose."""
    errors: dict[float, float] = {}
    metric = config.metrics[0]
    for value in config.registration.choose_stiffness:
        worker = Worker(config, material, build(config, material, run, value), run)
        masks = config.calibration.degraded
        cases = known.left_out(material.references, material.labels, masks=masks, seed=config.seed)
        judged = records.of_metric(worker.all(f"stiffness-{value:g}", cases, leave_out=True), metric)
        predictions = [predict(item, rule_of(config, metric)) for item in judged]
        found = agreement(predictions, threshold=config.threshold, rule=rule_of(config, metric))
        errors[value] = found.get("mae", math.inf)
    if not errors:
        return None
    chosen = min(errors, key=lambda value: (errors[value], value))
    tried = ", ".join(f"{value:g}: {error:.4f}" for value, error in errors.items())
    run.reporter.message(f"stiffness {chosen:g} chosen on the references (mean absolute errors {tried})")
    return chosen


def build(config: RcaEstimate, material: Material, run: Run, stiffness: float | None = None) -> ReverseClassifier:
    """The reverse classifier of the configuration, with another stiffness if one was chosen."""
    match config.classifier:
        case "atlas-sitk":
            return sitk.SitkAtlas()
        case "forest":
            return ForestClassifier(seed=config.seed)
        case "cnn":
            return CnnClassifier(seed=config.seed, steps=config.cnn_steps, device=run.device)
    levels = schedule(config.registration, material.references[0].image.ndim)
    levels = levels if stiffness is None else replace(levels, stiffness=stiffness)
    folder = store_folder(config)
    store = None if folder is None else TransformStore(folder, levels)
    if store is not None:
        run.ranks.on_main(store.check)
    asked = config.registration.samples
    return Atlas(levels, labels=material.labels, samples=asked, device=run.device, store=store)


def calibrating_cases(config: RcaEstimate, material: Material) -> tuple[Case, ...]:
    """Cases with masks of known quality; none where nothing is calibrated."""
    match config.calibration.kind:
        case "none":
            return ()
        case "labelled":
            if not material.calibration:
                raise ConfigError(
                    "calibration.kind=labelled needs labelled images: data.calibration=N of the program's own"
                )
            return material.calibration
        case "references":
            return known.left_out(
                material.references, material.labels, masks=config.calibration.degraded, seed=config.seed
            )


class Worker:
    """Judges cases in turn, each rank its share, and keeps every verdict as soon as it is there."""

    def __init__(self, config: RcaEstimate, material: Material, classifier: ReverseClassifier, run: Run) -> None:
        self.config = config
        self.material = material
        self.classifier = classifier
        self.run = run
        self.selection = selection.Selection(config.reference, seed=config.seed)
        self.folder = run.directory.path / records.FOLDER

    def all(self, group: str, cases: Sequence[Case], *, leave_out: bool = False) -> list[Verdicts]:
        """The verdicts on `cases`, in their order, those of earlier sessions included. Raises Stopped between two cases."""
        ranks = self.run.ranks
        for step in range(-(-len(cases) // ranks.world)):
            self.run.raise_if_stopped()
            index = step * ranks.world + ranks.rank
            if index < len(cases):
                self._one(group, cases[index], leave_out=leave_out)
            done = min(len(cases), (step + 1) * ranks.world)
            self.run.reporter.progress(group, done, len(cases), {})
        ranks.any(False)  # every rank's files are written before rank 0 reads them
        found = [records.read(self.folder, group, case.name) for case in cases]
        return [verdict for verdict in found if verdict is not None]

    def _one(self, group: str, case: Case, *, leave_out: bool) -> None:
        if records.read(self.folder, group, case.name) is not None:
            return
        began = time.perf_counter()
        try:
            verdicts = self._judge(case, leave_out=leave_out)
        except EnvironmentError_ as error:
            if not isinstance(error, DataError):
                raise  # a full disk is no fault of this case
            verdicts = Verdicts(case=case.name, problems={"": reason(error)})
        except RECORDED as error:
            verdicts = Verdicts(case=case.name, problems={"": reason(error)})
        for segmenter, text in verdicts.problems.items():
            self.run.reporter.message(f"{case.name}{f', {segmenter}' if segmenter else ''}: not judged: {text}")
        records.write(self.folder, group, replace(verdicts, seconds=time.perf_counter() - began))

    def _judge(self, case: Case, *, leave_out: bool) -> Verdicts:
        picture = case.load()
        pool: Sequence[Picture] = self.material.references
        if leave_out:
            pool = known.others(pool, case.name)
        chosen = self.selection.choose(picture, pool)
        return judge(picture, chosen, self.classifier, self.material.labels, self.config.metrics)


# --- at the end -------------------------------------------------------------------------------------------------------


def conclude(
    config: RcaEstimate,
    material: Material,
    verdicts: Sequence[Verdicts],
    learnt: Sequence[Verdicts],
    classifier: ReverseClassifier,
    run: Run,
) -> dict[str, float]:
    """Tables, figures and numbers of all cases together."""
    failed = [verdict for verdict in verdicts if not verdict.judged]
    if len(failed) == len(verdicts):
        texts = "\n".join(f"  {v.case}: {'; '.join(v.problems.values())}" for v in failed[:5])
        raise DataError(f"none of the {len(failed)} cases could be judged:\n{texts}")
    predictions: dict[str, list[Prediction]] = {}
    for metric in config.metrics:
        rule = rule_of(config, metric)
        calibration = calibrate(records.of_metric(learnt, metric), rule) if learnt else NONE
        predictions[metric] = [predict(judged, rule, calibration) for judged in records.of_metric(verdicts, metric)]
        if learnt and not calibration.curves:
            run.reporter.message(f"{metric}: too few masks of known quality to calibrate on ({calibration.masks})")
    first = config.metrics[0]
    rule = rule_of(config, first)
    flags = write_tables(run.directory.path, config, predictions, verdicts, rule)
    out = numbers(predictions[first], threshold=config.threshold, flagged=flags, rule=rule, failed=len(failed))
    for metric in config.metrics[1:]:
        other = numbers(predictions[metric], threshold=math.inf, flagged=0, rule=rule_of(config, metric))
        out |= {
            f"{metric}/{name}": other[f"rca/{name}"] for name in ("pearson_r", "mae", "masks") if f"rca/{name}" in other
        }
    drawing.scatter(predictions[first], run.directory.figures / "predicted_real.png", first, config.threshold)
    draw_worst(config, material, predictions[first], classifier, run, rule)
    seconds = [verdict.seconds for verdict in verdicts if verdict.judged]
    return {**out, "seconds_per_image": sum(seconds) / len(seconds)}


def rule_of(config: RcaEstimate, metric: str) -> Rule:
    """How one metric's scores are aggregated."""
    return Rule(
        higher=HIGHER_IS_BETTER[metric],
        limit=1.0 if metric in OVERLAPS else math.inf,
        coverage=config.calibration.coverage,
        low=config.calibration.low,
        high=config.calibration.high,
    )


def write_tables(
    folder: Path,
    config: JudgedConfig,
    predictions: Mapping[str, Sequence[Prediction]],
    verdicts: Sequence[Verdicts],
    rule: Rule,
) -> int:
    """Writes `cases.csv` and `references.csv`; how many masks were flagged by the first metric."""
    failed = {verdict.case: len(verdict.failures) for verdict in verdicts}
    rows, flagged = [], 0
    for number, group in enumerate(predictions.values()):
        for prediction in group:
            said = (
                tables.flag(prediction, threshold=config.threshold, on=config.flag_on, rule=rule) if number == 0 else ""
            )
            flagged += said == tables.FLAGGED
            rows.append(tables.case_row(prediction, said, failed.get(prediction.judged.case, 0)))
    rows += tables.problem_rows(verdicts)
    tables.write(folder / "cases.csv", tables.CASE_COLUMNS, sorted(rows, key=lambda row: row["case"]))
    tables.write(folder / "references.csv", tables.REFERENCE_COLUMNS, tables.reference_rows(verdicts))
    return flagged


def draw_worst(
    config: RcaEstimate,
    material: Material,
    predictions: Sequence[Prediction],
    classifier: ReverseClassifier,
    run: Run,
    rule: Rule,
) -> None:
    """Pictures of the masks that are predicted to be worst, each with the reference that judged it."""
    cases = {case.name: case for case in material.cases}
    references = {reference.name: reference for reference in material.references}
    ordered = sorted(
        (p for p in predictions if p.reference), key=lambda p: (p.best if rule.higher else -p.best, p.judged.case)
    )
    shown: dict[tuple[str, str], Prediction] = {}
    for prediction in ordered:
        shown.setdefault((prediction.judged.case, prediction.judged.segmenter), prediction)
    for rank, ((name, segmenter), prediction) in enumerate(list(shown.items())[: config.pictures], start=1):
        try:
            picture = cases[name].load()
            picture = replace(picture, masks={segmenter: picture.masks[segmenter]})
            reference = references[prediction.reference]
            drawn = next(iter(classifier.draw(picture, [reference])))
            if drawn.failure:
                continue
            mapped: torch.Tensor = drawn.maps[segmenter]
            drawing.worst(
                picture, segmenter, reference, mapped.cpu().numpy(), material.labels, prediction,
                run.directory.figures / f"worst-{rank:02d}.png",
            )  # fmt: skip
        except RECORDED as error:
            run.reporter.message(f"no picture of {name}: {reason(error)}")
