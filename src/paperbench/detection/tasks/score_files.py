"""Task `detect-score`: detections and ground truth from files alone, by the rules of VOC, of COCO, or both (YOLO)."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paperbench.config.paths import expanded
from paperbench.config.words import counted
from paperbench.data import yolo, yolo_layout
from paperbench.data.voc import CLASSES
from paperbench.detection import datasets
from paperbench.detection.config import ScoreFiles, class_mistakes
from paperbench.detection.drawing import precision_recall_curves
from paperbench.detection.evaluation import coco, voc
from paperbench.detection.evaluation.files import read_truth, read_voc
from paperbench.detection.evaluation.fit import Flat, remarks_on_fit
from paperbench.detection.evaluation.pixel_origin import is_moved
from paperbench.detection.evaluation.result_remarks import remarks_on_boxes
from paperbench.detection.evaluation.scoring import measure, voc_metrics
from paperbench.detection.evaluation.yolo_detections import read_yolo
from paperbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from paperbench.engine.run import Run

_WANTED = {
    ("voc", "gt"): "the folder VOCdevkit/VOC<year>",
    ("voc", "dt"): "the folder of comp4_det_<split>_<class>.txt",
    ("coco", "gt"): "the annotations, instances_<split>.json",
    ("coco", "dt"): "the JSON file of results",
    ("yolo", "gt"): "the folder of images and labels, or its data.yaml",
    ("yolo", "dt"): "the folder of a text file for each image",
}


def plan(config: ScoreFiles) -> Mapping[str, str]:
    """What would be scored against what. Raise `ConfigError` for keys left empty, `DataError` for paths that lead nowhere."""
    truth, found = _paths(config)
    if config.format == "coco":
        return {
            "data": f"coco: {truth}{_held_out(config)}",
            "detections": str(found),
            "rules": "COCO's twelve numbers",
        }
    if config.format == "yolo":
        layout = yolo_layout.find(truth)
        classes = yolo.chosen_classes(layout, config.classes, "classes")[1]
        images = len(layout.images(config.split))
        counts = f"{counted(images, 'images')}, {counted(len(classes), 'classes')}"
        return {
            "data": f"yolo: {config.split}{_held_out(config)}, {counts}, in {truth}",
            "detections": str(found),
            "rules": "COCO's twelve numbers; VOC's means by 11 points (voc07) and by area (voc)",
        }
    classes = counted(len(config.classes or CLASSES), "classes")
    return {
        "data": f"voc: {truth.name} {config.split}{_held_out(config)}, {classes}, in {truth}",
        "detections": str(found),
        "rules": "VOC devkit, by 11 points (voc07) and by area (voc)",
    }


def _held_out(config: ScoreFiles) -> str:
    """What of the split is scored, to stand behind its name; empty for all of it."""
    if not config.test_fraction:
        return ""
    return f" (the {100 * config.test_fraction:g} % of its images that split_seed={config.split_seed} holds out)"


def run(config: ScoreFiles, run: Run) -> dict[str, float]:
    """Score the files; precision-recall curves go to `figures/`. The same metrics on every rank."""
    score = {"coco": _coco, "voc": _voc, "yolo": _yolo}[config.format]
    return run.ranks.on_main(lambda: score(config, run))


def _voc(config: ScoreFiles, run: Run) -> dict[str, float]:
    """The readers keep the devkit's corners, so `voc.evaluate` takes its widths, x2 - x1 + 1."""
    truth, found = _paths(config)
    classes = config.classes or CLASSES
    part = config.part(test=True)
    records = read_truth(truth, config.split, config.classes, zero_based=config.zero_based, part=part)
    # `paperbench eval` names its files by the part of the split.
    own = f"{config.split}-{part.name}" if part else config.split
    named = own if any(found.glob(f"comp4_det_{glob.escape(own)}_*.txt")) else config.split
    detections = read_voc(found, named, [str(record.image_id) for record in records], classes)
    if not any(record.wanted.any() for record in records):
        difficult = sum(len(record.labels) for record in records)
        what = f"all {difficult} objects are difficult" if difficult else "no image has an object"
        raise DataError(
            f"{truth} ({config.split}): {what} of {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}: there is nothing "
            "to be found and no number to compute; look at split= and classes="
        )
    run.reporter.message(
        f"{counted(sum(map(len, detections)), 'detections')} in {counted(len(records), 'images')} with "
        f"{counted(sum(len(record.labels) for record in records), 'objects')}"
    )
    for remark in remarks_on_boxes(np.concatenate([item.boxes for item in detections])):
        run.reporter.message(remark)
    for remark in remarks_on_fit(Flat.objects(records), Flat.detections(detections), classes):
        run.reporter.message(remark)
    result = voc.evaluate(records, detections, classes, inclusive=True)
    without = [curve.name for curve in result.curves if not curve.objects]
    if without:
        run.reporter.message(f"no object to find, so left out of the means: {', '.join(without)}")
    shift = -1 if config.zero_based else 1
    moved = [replace(record, boxes=record.boxes + shift) for record in records]
    otherwise = voc.evaluate(moved, detections, classes, inclusive=True)
    if otherwise.map_area > result.map_area + 0.01 and is_moved(records, detections, shift):
        other = str(not config.zero_based).lower()
        run.reporter.message(
            f"the detections fit annotations that count pixels from {int(config.zero_based)} better: zero_based={other} gives "
            f"voc/mAP {100 * otherwise.map_area:.1f} instead of {100 * result.map_area:.1f}"
        )
    run.draw(precision_recall_curves, result, run.directory.figures / "precision_recall.png")
    return voc_metrics(result)


def _yolo(config: ScoreFiles, run: Run) -> dict[str, float]:
    """Boxes are continuous, so both rules are those of a trained detector's evaluation."""
    truth, found = _paths(config)
    layout = yolo_layout.find(truth)
    yolo.chosen_classes(layout, config.classes, "classes")
    remedy = "Nothing was scored: correct the labels"
    dataset = yolo.read(
        root=truth, split=config.split, classes=config.classes, part=config.part(test=True), remedy=remedy
    )
    if not dataset.wanted:
        raise DataError(
            f"{truth} ({config.split}): no image has an object of {', '.join(dataset.classes[:5])}: there is nothing to be found "
            "and no number to compute; look at split= and classes="
        )
    detections = read_yolo(found, dataset, layout.classes)
    silent = sum(not len(item) for item in detections)
    run.reporter.message(datasets.describe(dataset))
    run.reporter.message(
        f"{counted(sum(map(len, detections)), 'detections')}; none in {silent:,} of {len(dataset):,} images"
    )
    for remark in remarks_on_fit(Flat.objects(dataset.records), Flat.detections(detections), dataset.classes):
        run.reporter.message(remark)
    evaluation = measure(dataset, detections, engine=config.engine)
    run.draw(precision_recall_curves, evaluation.voc, run.directory.figures / "precision_recall.png")
    return evaluation.metrics


def _coco(config: ScoreFiles, run: Run) -> dict[str, float]:
    result = coco.evaluate_files(*_paths(config), part=config.part(test=True), engine=config.engine)
    for remark in result.remarks:
        run.reporter.message(remark)
    return result.metrics()


def _paths(config: ScoreFiles) -> tuple[Path, Path]:
    empty = [
        f"{key} is empty: {key}={'FILE' if config.format == 'coco' else 'DIR'} names {_WANTED[config.format, key]}"
        for key in ("gt", "dt")
        if not getattr(config, key)
    ]
    if config.format == "coco" and config.classes:
        empty.append("classes belongs to format=voc and format=yolo; COCO's files name their own categories")
    if config.format != "voc" and config.zero_based:
        others = {"coco": "COCO's boxes count from 0 always", "yolo": "YOLO's boxes are shares of the image"}
        empty.append(f"zero_based belongs to format=voc; {others[config.format]}")
    mistakes = [*empty, *class_mistakes("classes", config.classes)]
    if mistakes:
        raise ConfigError(*mistakes)
    truth, found = expanded(config.gt), expanded(config.dt)
    for key, path in (("gt", truth), ("dt", found)):
        fits = {"voc": path.is_dir(), "coco": path.is_file(), "yolo": path.exists() if key == "gt" else path.is_dir()}
        if not fits[config.format]:
            there = "is not one" if path.exists() else "does not exist"
            raise DataError(f"{key}={path}: should be {_WANTED[config.format, key]}, but {there}")
    return truth, found
