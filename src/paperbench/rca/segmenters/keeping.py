"""Masks of segmenters that several runs share: trained once, by whichever run needs them first.

Everything that decides them is their recipe: the segmenter's settings, the data with their shares, the seed, and the machine's
settings. They lie in `<folder>/<hash of the recipe>/`, made under a lock. Another run that needs them meanwhile waits; if the
first one is stopped or killed, the next goes on from where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from paperbench.engine.files import explained, write_json
from paperbench.engine.lock import FileLock
from paperbench.engine.run import Run
from paperbench.engine.stages import stage
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
_SECONDS_BETWEEN_LOOKS: Final = 0.2


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
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True, allow_nan=False).encode()).hexdigest()
    place = folder / f"{model.name}-{digest[:16]}"
    made = making.segmenter(model, transforms=transforms)
    masks = MaskFolder(place / PREDICTIONS, shares)

    def complete() -> bool:
        return (place / DONE).is_file() and not any(masks.missing(name) for name in made.stages)

    if run.ranks.on_main(complete):
        run.reporter.message(f"{model.name}: found in {place}")
        return masks
    with _locked(place, model.name, run):
        if not run.ranks.on_main(complete):
            run.ranks.on_main(lambda: write_json(place / "recipe.json", wanted))
            view = stage(run, model.name, checkpoints=place / "checkpoints", identity=digest)
            learnt = made.segment(shares, masks, view)
            run.ranks.any(False)  # every rank's files are written before they are called done
            run.ranks.on_main(lambda: write_json(place / DONE, learnt))
    return masks


@contextmanager
def _locked(place: Path, name: str, run: Run) -> Iterator[None]:
    """The folder, for this run alone. Raises Stopped when the run is told to stop while it waits."""
    lock = FileLock(place / "lock")
    if run.ranks.is_main:
        with explained(place):
            place.mkdir(parents=True, exist_ok=True)
    waited = False
    while not run.ranks.on_main(lock.acquire):
        if not waited:
            run.reporter.message(f"{name}: waiting for {lock.holder()}, which makes the same masks")
        waited = True
        run.raise_if_stopped()
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        lock.release()


def folder_of(given: str | None, output_root: str, run: Run) -> Path:
    """Where shared masks lie. It is written down once: a resume may start in another working directory."""
    note = run.directory.path / "segmenters.json"

    def settle() -> str:
        known = _noted(note)
        if known is None:
            place = Path(given).expanduser() if given else Path(output_root).expanduser() / "segmenters"
            known = {"folder": str(place.absolute())}
            write_json(note, known)
        return str(known["folder"])

    return Path(run.ranks.on_main(settle))


def _noted(note: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return content if isinstance(content.get("folder"), str) else None
    except (OSError, ValueError, AttributeError):
        return None
