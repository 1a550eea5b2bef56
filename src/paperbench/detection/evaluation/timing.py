"""Where the time of one image goes, in the parts that the papers print: Faster R-CNN, table 5, and Fast R-CNN, figure 2.

Images are taken one by one, from the batch on the device to the detections on the device. "Region-wise" is, as in Faster R-CNN,
suppression, pooling, fully connected layers and softmax; the suppression of the proposals is counted there too, the layers and the
ranking of the proposal network are `proposal`. For R-CNN, `pool` holds its convolutions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from paperbench.detection.batches import Batch, BatchMaker, ProposalBatchMaker
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.rcnn import RCNN
from paperbench.detection.nms import postprocess
from paperbench.detection.rpn import objectness_score, rank, suppress
from paperbench.engine.run import Run

Model = TypeVar("Model", bound=nn.Module)

PARTS = ("conv", "proposal", "region-wise")
WARM_UP = 3
"""Images before the clock counts: they build kernels and caches."""


class Stopwatch:
    """Seconds of named parts, read when the device has finished each of them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to the part."""
        self._wait()
        began = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


@torch.no_grad()
def detect_timed(model: FasterRCNN, batch: Batch, watch: Stopwatch) -> None:
    """`model.detect(batch)`, the time of its parts added to those of `watch`."""
    config = model.rpn_config
    pre_nms, post_nms = config.topk(training=False)
    with watch.part("conv"):
        features = model.extract(batch)
    with watch.part("proposal"):
        logits, deltas, anchors = model.score_anchors(features)
        ranked = rank(
            objectness_score(logits),
            deltas,
            anchors,
            batch.sizes,
            count=pre_nms,
            min_size=config.min_size * batch.scales,
        )
    with watch.part("region-wise"):
        proposals = suppress(ranked, count=post_nms, nms_iou=config.nms_iou)
        logits, deltas = model.classify(features, proposals.boxes)
        images = len(proposals.boxes)
        postprocess(
            logits.view(images, -1, logits.shape[-1]),
            deltas.view(images, -1, *deltas.shape[1:]),
            proposals.boxes,
            proposals.valid,
            batch.sizes,
            model.head_config,
        )


def measure(model: FasterRCNN, make: BatchMaker, *, images: int, run: Run) -> dict[str, float]:
    """`seconds/conv`, `seconds/proposal`, `seconds/region-wise`, `seconds/total`, and `images_per_second`: medians an image.

    At most `images` images of `make`, by rank 0 alone while the others wait. The total is the median of the sums.
    """

    def medians() -> dict[str, float]:
        rows = times(model, detect_timed, make, images=images, run=run)
        whole = median(sum(row.values()) for row in rows)
        return {
            **{f"seconds/{part}": median(row[part] for row in rows) for part in PARTS},
            "seconds/total": whole,
            "images_per_second": 1 / whole,
        }

    return run.ranks.on_main(medians)


def times(
    model: Model, detect: Callable[[Model, Batch, Stopwatch], None], make: BatchMaker, *, images: int, run: Run
) -> list[dict[str, float]]:
    """Seconds of each part of each of the first `images` images of `make`, one at a time, after some that do not count."""
    training = model.training
    model.eval()
    images = min(images, len(make.dataset))
    rows: list[dict[str, float]] = []
    for turn in range(WARM_UP + images):
        index = np.array([max(0, turn - WARM_UP)])
        batch = make(index, np.zeros_like(index))
        watch = Stopwatch(run.device)
        with run.autocast(), torch.inference_mode():
            detect(model, batch, watch)
        if turn >= WARM_UP:
            rows.append(watch.seconds)
        run.reporter.progress("time the parts", turn + 1, WARM_UP + images, {})
    model.train(training)
    return rows


RCNN_PARTS = ("conv", "pool", "fc6", "fc7", "other")


@torch.no_grad()
def detect_rcnn_timed(model: FastRCNN, batch: Batch, watch: Stopwatch) -> None:
    """`model.detect` of a batch of one image, the time of its parts added to those of `watch`."""
    assert batch.proposals is not None
    with watch.part("conv"):
        maps = model.maps(batch)
    boxes = batch.proposals.boxes[:, : int(batch.proposals.valid.sum())]
    first, second = model.head_parts()
    scores, deltas = [], []
    for part in boxes.split(model.config.crops if isinstance(model, RCNN) else max(1, boxes.shape[1]), dim=1):
        with watch.part("pool"):
            pooled = model.pool(maps, part)
        with watch.part("fc6"):
            hidden = first(pooled)
        with watch.part("fc7"):
            hidden = second(hidden)
        with watch.part("other"):
            found = model.outputs(pooled, hidden)
            scores.append(found[0])
            deltas.append(found[1])
    with watch.part("other"):
        model.finish(batch, torch.cat(scores)[None], torch.cat(deltas)[None])


def measure_rcnn(model: FastRCNN, make: ProposalBatchMaker, *, images: int, run: Run) -> dict[str, float]:
    """`seconds/conv`, `seconds/pool`, `seconds/fc6`, `seconds/fc7`, `seconds/other`, `seconds/total`: medians an image.

    At most `images` images of `make`, by rank 0 alone while the others wait. The total is the median of the sums; `other` is the
    outputs, suppression, and SVMs or ridges where there are any. `share/<part>` are percentages of the sum of the parts.
    """

    def medians() -> dict[str, float]:
        rows = times(model, detect_rcnn_timed, make, images=images, run=run)
        parts = {part: median(row.get(part, 0.0) for row in rows) for part in RCNN_PARTS}
        whole = sum(parts.values())
        return {
            **{f"seconds/{part}": seconds for part, seconds in parts.items()},
            "seconds/total": median(sum(row.values()) for row in rows),
            **{f"share/{part}": 100 * seconds / whole for part, seconds in parts.items()},
        }

    return run.ranks.on_main(medians)
