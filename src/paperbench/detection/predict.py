"""Showing pictures to a trained detector: `paperbench predict RUN IMAGE…`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from paperbench.data.detection import DetectionSet, Record
from paperbench.data.pictures import decode_rgb, inspect
from paperbench.detection import datasets
from paperbench.detection.base import Detector
from paperbench.detection.batches import BatchMaker
from paperbench.detection.build import build
from paperbench.detection.config import DetectEval, DetectTrain
from paperbench.detection.drawing import draw
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.inference import per_image
from paperbench.detection.masks import as_runs, in_image
from paperbench.engine import device as devices
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.reporter import Reporter, SilentReporter
from paperbench.errors import CheckpointError


class HasModel(Protocol):
    """A configuration with a model that `build` takes."""

    @property
    def model(self) -> Any: ...


def load_detector(
    config: HasModel,
    checkpoint: Path | str,
    device: torch.device,
    reporter: Reporter | None = None,
    *,
    classes: Sequence[str] | None = None,
    build: Callable[..., Detector] = build,
) -> tuple[Detector, int]:
    """The trained detector of a run directory or checkpoint file, in test mode, and its step.

    `classes`: the label set of the data it is to be used on; by default the one it was trained on. `build`: what makes a detector
    from the section `model`, as `build.build` does. Raises `CheckpointError`
    when the weights belong to another net or label set.
    """
    state, step, path = load_for_evaluation(checkpoint, reporter or SilentReporter())
    try:
        weights = state["module"]
        names = weights["_extra_state"]["classes"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: holds no detector; give a run of one, such as `paperbench train faster-rcnn` makes"
        ) from error
    model = build(config.model, classes=names if classes is None else classes, pretrained=False)
    if classes is not None:
        model.set_extra_state(weights["_extra_state"])  # says which label set differs before any shape does
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(
            f"{path}: does not fit the model of this configuration ({first}). Leave the model's keys as they were in training."
        ) from error
    return model.to(device).eval(), step


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
    """Draws what the run's detector finds in each image, into `output/<name>.png`; see `engine.task.Predicts`.

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
    """Draws what `model` finds in each of the `pictures` that `make` makes batches of; arguments and result as of `predict`."""
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
