"""Task `segment-train`: train a segmenter and write its masks at several stages, for reverse classification accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from paperbench.engine.run import Run
from paperbench.errors import ConfigError
from paperbench.rca.segmenters import factory
from paperbench.rca.segmenters.config import SegmentTrain, UnetModel
from paperbench.rca.segmenters.evaluation import dice_metrics, draw_quality, measure_quality, write_quality
from paperbench.rca.segmenters.export import command, export_cases
from paperbench.rca.segmenters.splits import PREDICTIONS, MaskFolder, open_splits
from paperbench.rca.segmenters.unet import load_unet


def plan(config: SegmentTrain) -> Mapping[str, str]:
    """Describe the training; no image is opened.

    Raises ConfigError and DataError for what cannot be done, before anything is written.
    """
    splits = open_splits(config.data)
    factory.check(config.model, splits)
    return {
        "data": splits.describe(),
        "model": factory.describe(config.model),
        "labels": ", ".join(splits.source.labels.names),
    }


def run(config: SegmentTrain, run: Run) -> dict[str, float]:
    """Train and segment at every stage; see `engine.task.Task`."""
    splits = open_splits(config.data)
    segmenter = factory.create_segmenter(config.model, transforms=Path(config.output.root) / "transforms")
    masks = MaskFolder(run.directory.path / PREDICTIONS, splits)
    metrics = segmenter.segment(splits, masks, run)
    run.ranks.any(False)  # every rank's files are written before rank 0 reads them

    def finish() -> dict[str, float]:
        folder = run.directory.path
        quality = measure_quality(splits, masks, segmenter.stages)
        write_quality(quality, folder / "quality.csv")
        run.draw(draw_quality, quality, segmenter.stages, run.directory.figures / "quality.png")
        export_cases(splits, masks, segmenter.stages, folder)
        run.reporter.message(f"to estimate the quality of the masks: {command(splits, folder)}")
        return {**metrics, **dice_metrics(quality)}

    return run.ranks.on_main(finish)


def load_model(config: SegmentTrain, run_dir: Path) -> nn.Module:
    """Return the U-Net of the last stage of a run; see `engine.task.LoadsModel`.

    Raises ConfigError for a forest and for atlases, which are no nets.
    """
    if not isinstance(config.model, UnetModel):
        raise ConfigError(f"{run_dir}: segments with {config.model.name}, which is no net; a run of model=unet has one")
    return load_unet(config.model, run_dir)
