"""Task `detect-score`: detections and ground truth from files alone, by the rules of VOC or of COCO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from paperbench.config.paths import expanded
from paperbench.data.voc import CLASSES
from paperbench.detection.config import ScoreFiles
from paperbench.detection.drawing import precision_recall_curves
from paperbench.detection.evaluation import coco, voc
from paperbench.detection.evaluation.files import read_truth, read_voc
from paperbench.detection.evaluation.scoring import voc_metrics
from paperbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from paperbench.engine.run import Run

_WANTED = {
    ("voc", "gt"): "the folder VOCdevkit/VOC<year>",
    ("voc", "dt"): "the folder of comp4_det_<split>_<class>.txt",
    ("coco", "gt"): "the annotations, instances_<split>.json",
    ("coco", "dt"): "the JSON file of results",
}


def plan(config: ScoreFiles) -> Mapping[str, str]:
    """What would be scored against what. Raise `ConfigError` for keys left empty, `DataError` for paths that lead nowhere."""
    truth, found = _paths(config)
    if config.format == "coco":
        return {"data": f"coco: {truth}", "detections": str(found), "rules": "pycocotools, twelve numbers"}
    return {
        "data": f"voc: {truth.name} {config.split}, {len(config.classes or CLASSES)} classes, in {truth}",
        "detections": str(found),
        "rules": "VOC devkit, by 11 points (voc07) and by area (voc)",
    }


def run(config: ScoreFiles, run: Run) -> dict[str, float]:
    """Score the files; precision-recall curves go to `figures/`. The same metrics on every rank."""
    return run.ranks.on_main(lambda: _coco(config) if config.format == "coco" else _voc(config, run))


def _voc(config: ScoreFiles, run: Run) -> dict[str, float]:
    """The readers turn the devkit's pixel corners into continuous boxes whose plain overlaps are the devkit's own, so
    `voc.evaluate` is not asked to widen them once more."""
    truth, found = _paths(config)
    classes = config.classes or CLASSES
    records = read_truth(truth, config.split, config.classes)
    detections = read_voc(found, config.split, [str(record.image_id) for record in records], classes)
    run.reporter.message(
        f"{sum(map(len, detections)):,} detections in {len(records):,} images with "
        f"{sum(len(record.labels) for record in records):,} objects"
    )
    result = voc.evaluate(records, detections, classes)
    without = [curve.name for curve in result.curves if not curve.objects]
    if without:
        run.reporter.message(f"no object to find, so left out of the means: {', '.join(without)}")
    run.draw(precision_recall_curves, result, run.directory.figures / "precision_recall.png")
    return voc_metrics(result)


def _coco(config: ScoreFiles) -> dict[str, float]:
    return coco.evaluate_files(*_paths(config)).metrics()


def _paths(config: ScoreFiles) -> tuple[Path, Path]:
    empty = [
        f"{key} is empty: {key}={'DIR' if config.format == 'voc' else 'FILE'} names {_WANTED[config.format, key]}"
        for key in ("gt", "dt")
        if not getattr(config, key)
    ]
    if config.format == "coco" and config.classes:
        empty.append("classes belongs to format=voc; COCO's files name their own categories")
    if empty:
        raise ConfigError(*empty)
    truth, found = expanded(config.gt), expanded(config.dt)
    for key, path in (("gt", truth), ("dt", found)):
        if not (path.is_dir() if config.format == "voc" else path.is_file()):
            there = "is not one" if path.exists() else "does not exist"
            raise DataError(f"{key}={path}: should be {_WANTED[config.format, key]}, but {there}")
    return truth, found
