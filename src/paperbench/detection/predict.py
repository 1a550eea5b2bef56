"""Predictions of a trained detector on images: `paperbench predict RUN IMAGE…`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paperbench.data.detection import DetectionSet, Record
from paperbench.data.pictures import notes_of, read_picture
from paperbench.detection import datasets
from paperbench.detection.batches import BatchMaker
from paperbench.detection.build import load_detector
from paperbench.detection.config import DetectEval, DetectTrain, RCNNEval, RCNNTrain
from paperbench.detection.detectors.base import Detector
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.drawing import draw
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.inference import per_image
from paperbench.detection.masks import as_runs, in_image
from paperbench.detection.proposals import search, source
from paperbench.detection.rcnn_config import ProposalConfig
from paperbench.detection.training.multi_stage import proposal_batches
from paperbench.engine import device as devices
from paperbench.engine.drawings import SOFTWARE, Drawings
from paperbench.engine.figures import save_image
from paperbench.engine.reporter import Reporter
from paperbench.errors import ConfigError, DataError


class Pictures:
    """Image files to predict on: those that can be read, as a data set without ground truth, and why the others cannot."""

    def __init__(self, paths: Sequence[Path], classes: Sequence[str]) -> None:
        self.faults: dict[int, DataError] = {}
        """By the number of the file."""
        self.notes: dict[int, dict[str, Any]] = {}
        records = []
        for number, path in enumerate(paths):
            try:
                picture = read_picture(path)
            except DataError as error:
                self.faults[number] = error
            else:
                self.notes[number] = notes_of(picture)
                records.append(_record(path, *picture.pixels.shape[:2]))
        good = [number for number in range(len(paths)) if number not in self.faults]
        self._row = {number: row for row, number in enumerate(good)}
        self.dataset = DetectionSet(
            name="pictures",
            split="",
            classes=tuple(classes),
            records=records,
            decode=lambda row: read_picture(paths[good[row]]).pixels,
            dropped={},
        )

    def row_of(self, number: int) -> tuple[int, dict[str, Any]]:
        """Return the row of a file in the data set, and its notes. Raises the `DataError` of one that cannot be read."""
        if number in self.faults:
            raise self.faults[number]
        return self._row[number], self.notes[number]


def _record(path: Path, height: int, width: int) -> Record:
    return Record(
        image_id=path.name,
        source=str(path),
        height=height,
        width=width,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=np.zeros(0, bool),
        crowd=np.zeros(0, bool),
        area=np.zeros(0, np.float32),
    )


def predict(
    config: DetectTrain,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    score_threshold: float = 0.5,
    skip_damaged: bool = False,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw the detections of the run's detector in each image, into `output/<name>.png`; see `engine.task.Predicts`.

    Returns one dict an image: `image`, `picture`, `detections` (each with `class`, `score` in 0..1 and `box`, xyxy in pixels;
    of nets that draw masks also `mask`, as COCO's runs). Raises `DataError` for a file that is no image; with `skip_damaged` its
    dict says so instead.
    """
    drawings = Drawings(images, output)
    where = devices.resolve(device or config.device)
    precision = devices.resolve_precision(config.precision, where)
    # An evaluation has no weights of its own: it names those it looked at.
    weights = config.checkpoint if isinstance(config, DetectEval) else run_dir
    model, _ = load_detector(config, weights, where, reporter)
    pictures = Pictures(images, model.class_names)
    make = BatchMaker(
        pictures.dataset,
        datasets.store(config.data, pictures.dataset, where),
        flip=0.0,
        seed=0,
        multiple=model.multiple,
        square=model.square,
        training=False,
    )
    return _show(
        model, make, pictures, drawings, score_threshold=score_threshold, skip_damaged=skip_damaged, precision=precision
    )


def _show(
    model: Detector,
    make: BatchMaker,
    pictures: Pictures,
    drawings: Drawings,
    *,
    score_threshold: float,
    skip_damaged: bool,
    precision: str,
) -> list[dict[str, Any]]:
    """Draw the detections of `model` in each of `pictures`, of which `make` makes batches; result as of `predict`."""
    where, dataset = make.store.device, make.dataset

    def show(found_file: tuple[int, dict[str, Any]], place: Path) -> dict[str, Any]:
        index, notes = found_file
        batch = make(np.array([index]), np.array([0]))
        with devices.autocast(where, precision), torch.inference_mode():
            found, proposals = model.detect(batch)
        detections = next(iter(per_image(found, proposals, batch)))[0].above(score_threshold)
        save_image(draw(dataset.decode(index), detections, dataset.classes), place, software=SOFTWARE)
        found_there = (
            _answer(detections, row, dataset.classes, dataset.records[index]) for row in range(len(detections))
        )
        return {"detections": list(found_there), **notes}

    return drawings.of_each(pictures.row_of, show, skip_damaged=skip_damaged)


def _answer(detections: Detections, place: int, classes: Sequence[str], record: Record) -> dict[str, Any]:
    """One detection for JSON; a mask as COCO's runs, which pycocotools decodes."""
    box = detections.boxes[place]
    answer = {
        "class": classes[int(detections.labels[place]) - 1],
        "score": round(float(detections.scores[place]), 4),
        "box": [round(float(edge), 2) for edge in box],
    }
    if detections.masks is not None:
        answer["mask"] = as_runs(in_image(detections.masks[place], box, record.height, record.width))
    return answer


def predict_on_proposals(
    config: RCNNTrain,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    score_threshold: float = 0.5,
    skip_damaged: bool = False,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw the detections of the run's detector in each image, into `output/<name>.png`; see `detection.predict.predict`.

    Scores of SVMs are logistic functions of their margins. Raise `ConfigError` for a run whose proposals came from a file:
    it says nothing about other pictures.
    """
    drawings = Drawings(images, output)
    where = devices.resolve(device or config.device)
    precision = devices.resolve_precision(config.precision, where)
    weights = config.checkpoint if isinstance(config, RCNNEval) else run_dir
    model, _ = load_detector(config, weights, where, reporter)
    assert isinstance(model, FastRCNN)
    pictures = Pictures(images, model.class_names)
    dataset = pictures.dataset
    boxes = _search_proposals(dataset, config.proposals, where, precision)
    count = config.proposals.test_count or None
    store = datasets.store(config.data, dataset, where)
    make = proposal_batches(config, model, dataset, [found[:count] for found in boxes], store, 0, training=False)
    return _show(
        model, make, pictures, drawings, score_threshold=score_threshold, skip_damaged=skip_damaged, precision=precision
    )


def _search_proposals(
    dataset: DetectionSet, config: ProposalConfig, device: torch.device, precision: str
) -> list[np.ndarray]:
    if config.method == "file":
        raise ConfigError(
            "proposals.method=file: the run's proposals came from a file, which has none for these pictures; "
            "evaluate a checkpoint with proposals.method=selective-search and show them to that run"
        )
    if config.method == "rpn":
        return source.of_network(dataset, config, device, precision)
    settings = search.settings_of(config)
    return [search.search_image(dataset.decode(index), settings) for index in range(len(dataset))]
