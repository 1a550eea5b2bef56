"""Where the time of one image goes, in the parts of figure 2 of Fast R-CNN; for R-CNN, `pool` holds its convolutions."""

from __future__ import annotations

from statistics import median

import torch

from paperbench.detection.batches import Batch, RegionBatchMaker
from paperbench.detection.regions.net import RCNN, RegionNet
from paperbench.detection.timing import Stopwatch, times
from paperbench.engine.run import Run

PARTS = ("conv", "pool", "fc6", "fc7", "other")


@torch.no_grad()
def detect_timed(model: RegionNet, batch: Batch, watch: Stopwatch) -> None:
    """`model.detect` of a batch of one image, the time of its parts added to those of `watch`."""
    assert batch.proposals is not None
    with watch.part("conv"):
        maps = model.maps(batch)
    boxes = batch.proposals.boxes[:, : int(batch.proposals.valid.sum())]
    first, second = model.head_parts()
    scores, deltas = [], []
    for part in boxes.split(model.crops if isinstance(model, RCNN) else max(1, boxes.shape[1]), dim=1):
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


def measure(model: RegionNet, make: RegionBatchMaker, *, images: int, run: Run) -> dict[str, float]:
    """`seconds/conv`, `seconds/pool`, `seconds/fc6`, `seconds/fc7`, `seconds/other`, `seconds/total`: medians an image.

    At most `images` images of `make`, by rank 0 alone while the others wait. The total is the median of the sums; `other` is the
    outputs, suppression, and SVMs or ridges where there are any. `share/<part>` are percentages of the sum of the parts.
    """

    def medians() -> dict[str, float]:
        rows = times(model, detect_timed, make, images=images, run=run)
        parts = {part: median(row.get(part, 0.0) for row in rows) for part in PARTS}
        whole = sum(parts.values())
        return {
            **{f"seconds/{part}": seconds for part, seconds in parts.items()},
            "seconds/total": median(sum(row.values()) for row in rows),
            **{f"share/{part}": 100 * seconds / whole for part, seconds in parts.items()},
        }

    return run.ranks.on_main(medians)
