"""Masks of segmenters that several runs share: trained once, by whichever run needs them first.

Everything that decides them is their recipe: the segmenter's settings, the data with their shares, the seed, and the machine's
settings. They lie in `<folder>/<hash of the recipe>/`, made under a lock. Another run that needs them meanwhile waits; if the
first one is stopped or killed, the next goes on from where it was.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from paperbench.engine.files import write_json
from paperbench.engine.run import Run
from paperbench.engine.stages import stage
from paperbench.engine.store import StoreEntry, content_key, recorded_folder
from paperbench.rca import transforms as transforms_of
from paperbench.rca.config import DataConfig
from paperbench.rca.segmenters import making
from paperbench.rca.segmenters.config import MultiAtlasModel, SegmenterModel
from paperbench.rca.segmenters.handing_over import PREDICTIONS
from paperbench.rca.segmenters.masks import MaskFolder
from paperbench.rca.segmenters.multi_atlas import levels_for
from paperbench.rca.segmenters.shares import Shares

FORMAT: Final = 1
"""Counted up when the same recipe would give other masks."""
DONE: Final = "done.json"


def recipe(model: SegmenterModel, data: DataConfig, shares: Shares, run: Run) -> dict[str, Any]:
    """What decides the masks."""
    threads = torch.get_num_threads() if run.device.type == "cpu" else 0
    registers = isinstance(model, MultiAtlasModel)
    return {
        "format": FORMAT,
        "model": asdict(model),
        "data": asdict(data),
        "seed": run.seed,
        "machine": [run.device.type, run.precision, threads],
        "registration": [transforms_of.VERSION, asdict(levels_for(shares))] if registers else [],
    }


def kept(
    model: SegmenterModel, data: DataConfig, shares: Shares, run: Run, folder: Path, transforms: Path | None
) -> MaskFolder:
    """The masks of every stage, found below `folder` or made there. Called on all ranks."""
    wanted = recipe(model, data, shares, run)
    entry = StoreEntry(folder, content_key(wanted), prefix=f"{model.name}-", recipe=wanted)
    made = making.segmenter(model, transforms=transforms)
    masks = MaskFolder(entry.path / PREDICTIONS, shares)

    def complete() -> bool:
        return (entry.path / DONE).is_file() and not any(masks.missing(name) for name in made.stages)

    if run.ranks.on_main(complete):
        run.reporter.message(f"{model.name}: found in {entry.path}")
        return masks
    with entry.locked(run, model.name):
        if not run.ranks.on_main(complete):
            view = stage(run, model.name, checkpoints=entry.path / "checkpoints", identity=entry.key)
            learnt = made.segment(shares, masks, view)
            run.ranks.any(False)  # every rank's files are written before they are called done
            run.ranks.on_main(lambda: write_json(entry.path / DONE, learnt))
    return masks


def folder_of(given: str | None, output_root: str, run: Run) -> Path:
    """Return where shared masks lie; every session of a run uses the same folder."""
    folder = Path(given) if given else Path(output_root) / "segmenters"
    return recorded_folder(run, run.directory.path / "segmenters.json", folder)
