"""A trained detector over a whole data set: batched, shared out among processes, timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.detection.base import Detector
from paperbench.detection.batches import Batch, BatchMaker
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.postprocess import DetectionBatch
from paperbench.detection.proposals import Proposals
from paperbench.engine.prefetch import Prefetcher, depth_for
from paperbench.engine.run import Run


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a detector found in every image of a data set, in its order.

    `proposals[i]` is (P, 4) float32 xyxy, best first, in pixels of the stored image; None where the net makes none.
    `seconds_per_image` is the time of the detector alone, from the batch on the device to boxes on the host, on one process,
    without the first batch.
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
) -> Found:
    """Runs `model` over images 0..count-1; every rank returns the whole answer.

    Ranks take whole batches in turn, so a batch holds the same images however many processes there are, and so do the answers.
    The model is left in the mode (training or test) it came in.
    """
    chunks = [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    own = chunks[run.ranks.rank :: run.ranks.world]
    training = model.training
    model.eval()
    answers: dict[int, tuple[Detections, NDArray[np.float32] | None]] = {}
    seconds, timed = 0.0, 0
    with Prefetcher(
        lambda k: make(own[k], np.zeros_like(own[k])), 0, len(own), depth=depth_for(run.device), device=run.device
    ) as batches:
        stream = iter(batches)
        for turn in range(-(-len(chunks) // run.ranks.world)):
            run.raise_if_stopped()  # every rank asks in every turn, also one that has no batch left in the last
            if turn >= len(own):
                continue
            batch = next(stream)
            _synchronise(run.device)
            began = time.perf_counter()
            with run.autocast(), torch.inference_mode():
                found, proposals = model.detect(batch)
            answers |= dict(zip(own[turn].tolist(), per_image(found, proposals, batch), strict=True))
            if turn or len(own) == 1:
                seconds += time.perf_counter() - began
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
    return Found(
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
    masks = None if found.masks is None else (255 * found.masks.float()).round().to(torch.uint8).cpu().numpy()
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
