"""Task `segment-train`: a segmenter learns from one share of the images and leaves masks of others, for reverse classification
accuracy to judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from paperbench.engine.run import Run
from paperbench.rca.segmenters import making
from paperbench.rca.segmenters.config import SegmentTrain
from paperbench.rca.segmenters.handing_over import PREDICTIONS, command, draw_quality, hand_over, write_quality
from paperbench.rca.segmenters.masks import MaskFolder
from paperbench.rca.segmenters.shares import shares


def plan(config: SegmentTrain) -> Mapping[str, str]:
    """What would learn from what. Raises ConfigError and DataError for what could not be, before anything is written."""
    share = shares(config.data)
    making.check(config.model, share)
    return {
        "data": share.describe(),
        "model": making.describe(config.model),
        "labels": ", ".join(share.source.labels.names),
    }


def run(config: SegmentTrain, run: Run) -> dict[str, float]:
    """Learns and segments at every stage; see `engine.task.Task`."""
    share = shares(config.data)
    made = making.segmenter(config.model, transforms=Path(config.output.root) / "transforms")
    masks = MaskFolder(run.directory.path / PREDICTIONS, share)
    learnt = made.segment(share, masks, run)
    run.ranks.any(False)  # every rank's files are written before rank 0 reads them

    def conclude() -> dict[str, float]:
        folder = run.directory.path
        found = making.quality(share, masks, made.stages)
        write_quality(found, folder / "quality.csv")
        draw_quality(found, made.stages, run.directory.figures / "quality.png")
        hand_over(share, masks, made.stages, folder)
        run.reporter.message(f"to have the masks judged: {command(share, folder)}")
        return {**learnt, **making.metrics(found)}

    return run.ranks.on_main(conclude)
