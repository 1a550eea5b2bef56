"""A trained detector over a whole data set: batched, shared out among processes, timed, scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from paperbench.data.detection import DetectionSet
from paperbench.detection import datasets
from paperbench.detection.batches import Batch, BatchMaker
from paperbench.detection.config import DataConfig, EvaluationConfig, RCNNEvaluation
from paperbench.detection.detectors.base import Detector
from paperbench.detection.drawing import precision_recall_curves, recall_curves, sheet
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.files import write_coco, write_voc
from paperbench.detection.evaluation.scoring import Evaluation, measure
from paperbench.detection.evaluation.yolo_detections import write_yolo
from paperbench.detection.masks import as_bytes
from paperbench.detection.nms import DetectionBatch
from paperbench.detection.rpn import Proposals
from paperbench.engine.figures import save_image
from paperbench.engine.prefetch import Prefetcher, depth_for
from paperbench.engine.run import Run

T = TypeVar("T")


def map_batches(
    model: nn.Module,
    make: BatchMaker,
    answer: Callable[[Batch], Sequence[T]],
    *,
    batch_size: int,
    run: Run,
    name: str,
) -> list[T]:
    """`answer(batch)`, one value an image, for every image of `make` in its order; every rank returns all of them.

    `model` is in test mode meanwhile, then in the mode it came in. Ranks take whole batches in turn, so that a batch holds the same
    images however many processes there are. `name` is the phase under which progress is reported. Raises `Stopped` between
    two batches when the run was asked to stop.
    """
    count = len(make.dataset)
    chunks = [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    own = chunks[run.ranks.rank :: run.ranks.world]
    training = model.training
    model.eval()
    answers: dict[int, T] = {}
    try:
        with Prefetcher(
            lambda k: make(own[k], np.zeros_like(own[k])), 0, len(own), depth=depth_for(run.device), device=run.device
        ) as batches:
            stream = iter(batches)
            for turn in range(-(-len(chunks) // run.ranks.world)):
                run.raise_if_stopped()  # every rank asks in every turn, also one that has no batch left in the last
                if turn < len(own):
                    with run.autocast(), torch.inference_mode():
                        answers |= dict(zip(own[turn].tolist(), answer(next(stream)), strict=True))
                run.reporter.progress(name, min((turn + 1) * batch_size * run.ranks.world, count), count, {})
    finally:
        model.train(training)
    everything: dict[int, T] = {}
    for part in run.ranks.all_gather(answers):
        everything |= part
    return [everything[index] for index in range(count)]


TIMED_BATCHES = 50
"""Batches whose detection is timed where making the next ones has to wait for it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InferenceResult:
    """Detections and proposals of every image of a data set, in its order.

    `proposals[i]` is (P, 4) float32 xyxy, best first, in pixels of the stored image; None where the net makes none.
    `seconds_per_image` is the time of the detector alone, from the batch on the device to boxes on the host, on one process,
    without the first batch. Where batches are made ahead, on the same GPU, that is held up while the first `TIMED_BATCHES` are
    timed, and no others are.
    """

    detections: list[Detections]
    proposals: list[NDArray[np.float32]] | None
    seconds_per_image: float


def detect_all(
    model: Detector,
    make: BatchMaker,
    count: int,
    *,
    batch_size: int,
    run: Run,
    progress: Callable[[int, int], None] | None = None,
) -> InferenceResult:
    """Run `model` over images 0..count-1; every rank returns the whole answer.

    Ranks take whole batches in turn, so a batch holds the same images however many processes there are, and so do the answers.
    The model is left in the mode (training or test) it came in.
    """
    chunks = [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    own = chunks[run.ranks.rank :: run.ranks.world]
    training = model.training
    model.eval()
    answers: dict[int, tuple[Detections, NDArray[np.float32] | None]] = {}
    seconds, timed = 0.0, 0
    depth = depth_for(run.device)
    with Prefetcher(
        lambda k: make(own[k], np.zeros_like(own[k])), 0, len(own), depth=depth, device=run.device
    ) as batches:
        stream = iter(batches)
        for turn in range(-(-len(chunks) // run.ranks.world)):
            run.raise_if_stopped()  # every rank asks in every turn, also one that has no batch left in the last
            if turn >= len(own):
                continue
            batch = next(stream)
            is_timed = (turn > 0 or len(own) == 1) and (depth == 0 or turn <= TIMED_BATCHES)
            with batches.quiet() if is_timed else nullcontext():
                _synchronise(run.device)
                began = time.perf_counter()
                with run.autocast(), torch.inference_mode():
                    found, proposals = model.detect(batch)
                answers |= dict(zip(own[turn].tolist(), per_image(found, proposals, batch), strict=True))
                spent = time.perf_counter() - began
            if is_timed:
                seconds += spent
                timed += len(own[turn])
            if progress is not None:
                progress(min((turn + 1) * batch_size * run.ranks.world, count), count)
    model.train(training)

    everything: dict[int, tuple[Detections, NDArray[np.float32] | None]] = {}
    gathered = run.ranks.all_gather((answers, seconds, timed))
    for part, _, _ in gathered:
        everything |= part
    proposed = [boxes for index in range(count) if (boxes := everything[index][1]) is not None]
    total = sum(images for _, _, images in gathered)
    return InferenceResult(
        detections=[everything[index][0] for index in range(count)],
        proposals=proposed if len(proposed) == count else None,
        seconds_per_image=sum(spent for _, spent, _ in gathered) / max(total, 1),
    )


def per_image(
    found: DetectionBatch, proposals: Proposals | None, batch: Batch
) -> Iterator[tuple[Detections, NDArray[np.float32] | None]]:
    """The detections and proposals (if there are any) of each image of a batch, back in pixels of the stored images."""
    scales = batch.scales.view(-1, 1, 1)
    boxes, scores, labels, valid = (
        (found.boxes / scales).cpu().numpy(),
        found.scores.float().cpu().numpy(),
        found.labels.cpu().numpy(),
        found.valid.cpu().numpy(),
    )
    if proposals is None:
        proposed = [None] * len(boxes)
    else:
        kept = zip((proposals.boxes / scales).cpu().numpy(), proposals.valid.cpu().numpy(), strict=True)
        proposed = [candidates[present] for candidates, present in kept]
    masks = None if found.masks is None else as_bytes(found.masks).cpu().numpy()
    for image, keep in enumerate(valid):
        detections = Detections(
            boxes=boxes[image][keep],
            scores=scores[image][keep],
            labels=labels[image][keep],
            masks=None if masks is None else masks[image][keep],
        )
        yield detections, proposed[image]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Scored(Protocol):
    """The sections of a configuration that scoring depends on."""

    @property
    def data(self) -> DataConfig: ...

    @property
    def evaluation(self) -> EvaluationConfig | RCNNEvaluation: ...


class Scorer:
    """Called, it runs the detector over the test split and returns the metrics; it keeps what it found for `draw`."""

    def __init__(
        self, config: Scored, dataset: DetectionSet, model: Detector, run: Run, make: BatchMaker | None = None
    ) -> None:
        """`make`: what makes the batches of `dataset`, where they carry more than images."""
        self.config = config
        self.dataset = dataset
        self.model = model
        self.run = run
        self.make = make or BatchMaker(
            dataset,
            datasets.store(config.data, dataset, run.device),
            flip=0.0,
            seed=run.seed,
            multiple=model.multiple,
            square=model.square,
            training=False,
        )
        self.found: InferenceResult | None = None
        self.evaluation: Evaluation | None = None

    def __call__(self) -> dict[str, float]:
        """The metrics of `evaluation.metrics.measure`, the same on every rank."""
        self.found = detect_all(
            self.model,
            self.make,
            len(self.dataset),
            batch_size=self.config.evaluation.batch_size,
            run=self.run,
            progress=lambda done, total: self.run.reporter.progress("evaluate", done, total, {}),
        )
        proposals = self.found.proposals if self.config.evaluation.proposals else None
        found = self.found
        resamples, engine = self.config.evaluation.bootstrap, self.config.evaluation.engine
        self.evaluation = self.run.ranks.on_main(
            lambda: measure(self.dataset, found.detections, proposals, resamples=resamples, engine=engine)
        )
        return self.evaluation.metrics

    @property
    def seconds_per_image(self) -> float:
        """Of the last evaluation: the detector alone, on one process."""
        assert self.found is not None
        return self.found.seconds_per_image

    def write(self, folder: Path) -> None:
        """Write the detections as `paperbench eval detections` and the official tools read them.

        COCO's results JSON for data with COCO's category ids, a text file an image for the YOLO layout, else one
        `comp4_det_<split>_<class>.txt` a class.
        """
        assert self.found is not None
        if self.dataset.name == "yolo":
            write_yolo(folder, self.dataset, self.found.detections)
            return
        images = [record.image_id for record in self.dataset.records]
        if self.dataset.category_ids:
            sizes = [(record.height, record.width) for record in self.dataset.records]
            write_coco(folder / "results.json", images, self.dataset.category_ids, self.found.detections, sizes)
        else:
            names = [str(image) for image in images]
            write_voc(folder, self.dataset.split, names, self.found.detections, self.dataset.classes)

    def draw(self, folder: Path) -> None:
        """Write precision-recall curves, the recall of the proposals, and a sheet of test images into `folder`."""
        assert self.found is not None
        assert self.evaluation is not None
        precision_recall_curves(self.evaluation.voc, folder / "precision_recall.png")
        if self.evaluation.recall is not None:
            recall_curves(self.evaluation.recall, folder / "proposal_recall.png")
        page = sheet(self.dataset, self.found.detections, images=self.config.evaluation.sheet_images)
        if page is not None:
            save_image(page, folder / "detections.png")
