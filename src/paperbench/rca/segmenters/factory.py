"""Segmenters from their configuration, and their masks, which several runs share.

The recipe of shared masks is everything that decides them: the settings of the segmenter, the data with their splits, the seed, and
the machine's settings. They are made in `<folder>/<segmenter>-<hash of the recipe>/` (`engine.store`) by the first run that needs
them. Another run that needs them meanwhile waits; if the first one is stopped or killed, the next continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from paperbench.engine.files import write_json
from paperbench.engine.run import Run
from paperbench.engine.stages import stage
from paperbench.engine.store import StoreEntry, content_key, recorded_folder
from paperbench.errors import ConfigError
from paperbench.rca import atlas
from paperbench.rca.config import DataConfig
from paperbench.rca.segmenters.config import ForestModel, MultiAtlasModel, SegmenterModel, UnetModel
from paperbench.rca.segmenters.forest import ForestSegmenter
from paperbench.rca.segmenters.multi_atlas import MultiAtlasSegmenter, levels_for
from paperbench.rca.segmenters.splits import PREDICTIONS, MaskFolder, Splits
from paperbench.rca.segmenters.unet import UnetSegmenter, stage_steps


class Segmenter(Protocol):
    """A model that learns from the training images and segments the others."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of its stages, the least trained first; each is a folder of masks."""
        ...

    def segment(self, splits: Splits, masks: MaskFolder, run: Run) -> dict[str, float]:
        """Write the missing masks of every stage; return metrics of the training. Called on all ranks.

        Raises Stopped when the run is asked to stop; the next call continues.
        """
        ...


def create_segmenter(model: UnetModel | ForestModel | MultiAtlasModel, *, transforms: Path | None) -> Segmenter:
    """Return the segmenter of a configuration. transforms: folder of computed transforms, None stores none."""
    match model:
        case UnetModel():
            return UnetSegmenter(model)
        case ForestModel():
            return ForestSegmenter(model)
        case MultiAtlasModel():
            return MultiAtlasSegmenter(model, transforms)


def check(model: UnetModel | ForestModel | MultiAtlasModel, splits: Splits) -> None:
    """Raise ConfigError for stages that these images cannot give."""
    if isinstance(model, MultiAtlasModel) and max(model.atlases) > len(splits.training):
        raise ConfigError(
            f"{model.name}: {max(model.atlases)} atlases of data.training={len(splits.training)} images; take fewer atlases "
            "or more images"
        )
    if isinstance(model, UnetModel) and len(set(stage_steps(model, len(splits.training)))) < len(model.epochs):
        raise ConfigError(
            f"{model.name}: batches of {model.batch_size} are too large to distinguish {_listed(model.epochs)} epochs of "
            f"{len(splits.training)} images; take smaller batches, or epochs that differ more"
        )


def describe(model: UnetModel | ForestModel | MultiAtlasModel) -> str:
    """Describe the segmenter and its stages in a few words."""
    match model:
        case UnetModel():
            return f"U-Net of width {model.width} after {_listed(model.epochs)} epochs"
        case ForestModel():
            return f"random forest of {_listed(model.trees)} trees"
        case MultiAtlasModel():
            return f"majority vote of {_listed(model.atlases)} atlases"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


# --- shared masks -----------------------------------------------------------------------------------------------------


FORMAT: Final = 1
"""Increased when the same recipe gives other masks."""
DONE: Final = "done.json"


def recipe_of(model: SegmenterModel, data: DataConfig, splits: Splits, run: Run) -> dict[str, Any]:
    """Return everything that decides the masks, as JSON holds it."""
    threads = torch.get_num_threads() if run.device.type == "cpu" else 0
    registers = isinstance(model, MultiAtlasModel)
    return {
        "format": FORMAT,
        "model": asdict(model),
        "data": asdict(data),
        "seed": run.seed,
        "machine": [run.device.type, run.precision, threads],
        "registration": [atlas.VERSION, asdict(levels_for(splits))] if registers else [],
    }


def shared_masks(
    model: SegmenterModel, data: DataConfig, splits: Splits, run: Run, folder: Path, transforms: Path | None
) -> MaskFolder:
    """Return the masks of every stage, from the store in `folder` or made there. Called on all ranks."""
    recipe = recipe_of(model, data, splits, run)
    entry = StoreEntry(folder, content_key(recipe), prefix=f"{model.name}-", recipe=recipe)
    segmenter = create_segmenter(model, transforms=transforms)
    masks = MaskFolder(entry.path / PREDICTIONS, splits)

    def complete() -> bool:
        return (entry.path / DONE).is_file() and not any(masks.missing(name) for name in segmenter.stages)

    if run.ranks.on_main(complete):
        run.reporter.message(f"{model.name}: found in {entry.path}")
        return masks
    with entry.locked(run, model.name):
        if not run.ranks.on_main(complete):
            view = stage(run, model.name, checkpoints=entry.path / "checkpoints", identity=entry.key)
            metrics = segmenter.segment(splits, masks, view)
            run.ranks.any(False)  # every rank's files are written before the masks are marked as complete
            run.ranks.on_main(lambda: write_json(entry.path / DONE, metrics))
    return masks


def shared_folder(folder: str | None, output_root: str, run: Run) -> Path:
    """Return the folder of shared masks; every session of a run uses the same one."""
    chosen = Path(folder) if folder else Path(output_root) / "segmenters"
    return recorded_folder(run, run.directory.path / "segmenters.json", chosen)
