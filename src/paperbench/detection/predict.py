"""Predictions of a trained detector on images: `paperbench predict RUN IMAGE…`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paperbench.data.detection import DetectionSet, Record
from paperbench.data.image_files import decode_rgb, inspect
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
from paperbench.engine.reporter import Reporter
from paperbench.errors import ConfigError


def pictures(paths: Sequence[Path], classes: Sequence[str]) -> DetectionSet:
    """Image files without ground truth as a data set; raises `DataError` for one that is missing or damaged."""
    records = []
    for path in paths:
        height, width = inspect(path)
        records.append(
            Record(
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
        )
    return DetectionSet(
        name="pictures",
        split="",
        classes=tuple(classes),
        records=records,
        decode=lambda index: decode_rgb(paths[index]),
        dropped={},
    )


def predict(
    config: DetectTrain,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    score_threshold: float = 0.5,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw the detections of the run's detector in each image, into `output/<name>.png`; see `engine.task.Predicts`.

    Returns one dict an image: `image`, `picture`, `detections` (each with `class`, `score` in 0..1 and `box`, xyxy in pixels;
    of nets that draw masks also `mask`, as COCO's runs).
    """
    where = devices.resolve(device or config.device)
    precision = devices.resolve_precision(config.precision, where)
    # An evaluation has no weights of its own: it names those it looked at.
    weights = config.checkpoint if isinstance(config, DetectEval) else run_dir
    model, _ = load_detector(config, weights, where, reporter)
    dataset = pictures(images, model.class_names)
    make = BatchMaker(
        dataset,
        datasets.store(config.data, dataset, where),
        flip=0.0,
        seed=0,
        multiple=model.multiple,
        square=model.square,
        training=False,
    )
    return show(model, make, images, output, score_threshold=score_threshold, precision=precision)


def show(
    model: Detector, make: BatchMaker, images: Sequence[Path], output: Path, *, score_threshold: float, precision: str
) -> list[dict[str, Any]]:
    """Draw the detections of `model` in each of `images`, of which `make` makes batches; arguments and result as of `predict`."""
    where, dataset = make.store.device, make.dataset
    output.mkdir(parents=True, exist_ok=True)
    answers = []
    names = _distinct_names(images)
    for index, path in enumerate(images):
        batch = make(np.array([index]), np.array([0]))
        with devices.autocast(where, precision), torch.inference_mode():
            found, proposals = model.detect(batch)
        detections = next(iter(per_image(found, proposals, batch)))[0].above(score_threshold)
        picture = output / f"{names[index]}.png"
        draw(dataset.decode(index), detections, dataset.classes).save(picture)
        answers.append(
            {
                "image": str(path),
                "picture": str(picture),
                "detections": [
                    _answer(detections, place, dataset.classes, dataset.records[index])
                    for place in range(len(detections))
                ],
            }
        )
    return answers


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


def _distinct_names(images: Sequence[Path]) -> list[str]:
    """Stems of the files, numbered where two folders hold the same name."""
    names: list[str] = []
    for path in images:
        name, number = path.stem, 1
        while name in names:
            number += 1
            name = f"{path.stem}-{number}"
        names.append(name)
    return names


def predict_on_proposals(
    config: RCNNTrain,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    score_threshold: float = 0.5,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw the detections of the run's detector in each image, into `output/<name>.png`; see `detection.predict.predict`.

    Scores of SVMs are logistic functions of their margins. Raise `ConfigError` for a run whose proposals came from a file:
    it says nothing about other pictures.
    """
    where = devices.resolve(device or config.device)
    precision = devices.resolve_precision(config.precision, where)
    weights = config.checkpoint if isinstance(config, RCNNEval) else run_dir
    model, _ = load_detector(config, weights, where, reporter)
    assert isinstance(model, FastRCNN)
    dataset = pictures(images, model.class_names)
    boxes = _search_proposals(dataset, config.proposals, where, precision)
    count = config.proposals.test_count or None
    store = datasets.store(config.data, dataset, where)
    make = proposal_batches(config, model, dataset, [found[:count] for found in boxes], store, 0, training=False)
    return show(model, make, images, output, score_threshold=score_threshold, precision=precision)


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
