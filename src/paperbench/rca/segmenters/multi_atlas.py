"""Multi-atlas segmentation: training images are registered to the image, and their labels are put to the vote.

The registration is the reverse classifier's: one training image is laid on all the images that chose it, in one job. A stage is
the vote of so many atlases, those that resemble the image most.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paperbench.engine.run import Run
from paperbench.errors import DataError
from paperbench.rca.atlas import Atlas, schedule
from paperbench.rca.cases import Picture
from paperbench.rca.config import RegistrationConfig
from paperbench.rca.labels import narrow
from paperbench.rca.registration import Schedule
from paperbench.rca.segmenters.config import MultiAtlasModel
from paperbench.rca.segmenters.masks import MaskFolder
from paperbench.rca.segmenters.shares import Shares
from paperbench.rca.selection import thumbnail
from paperbench.rca.transforms import TransformStore

LABELS = "truth"


class MultiAtlasSegmenter:
    """Registers and votes; see `making.Segmenter`. `transforms` is the folder in which transforms are kept, None keeps none: a run
    that was stopped finds there what it had registered."""

    def __init__(self, model: MultiAtlasModel, transforms: Path | None = None) -> None:
        self.model = model
        self.transforms = transforms
        self.stages = tuple(f"multi-atlas-{atlases}" for atlases in model.atlases)

    def segment(self, shares: Shares, masks: MaskFolder, run: Run) -> dict[str, float]:
        """Writes the masks of every stage that are not there yet, each rank its share. Raises DataError for an image that no atlas
        could be laid on."""
        lacking = {number for stage in self.stages for number in masks.missing(stage)}
        todo = [number for number in shares.segmented if number in lacking]
        pool = {shares.name_of(number): number for number in shares.training}
        # Without their truth: what is to be segmented must have no part in its registration.
        targets = {n: replace(shares.read(n), truth=None) for n in todo[run.ranks.rank :: run.ranks.world]}
        ranking = self._ranking(shares, targets)
        votes: dict[int, dict[str, Tensor]] = defaultdict(dict)
        classifier = self._atlas(shares, run)
        for position, (name, number) in enumerate(pool.items()):
            run.raise_if_stopped()
            run.reporter.progress("registering", position, len(pool), {})
            chosen = [target for target in targets if name in ranking[target]]
            if not chosen:
                continue
            atlas = shares.read(number)
            assert atlas.truth is not None
            taught = replace(atlas, masks={LABELS: atlas.truth}, truth=None)
            drawings = classifier.draw(taught, [targets[target] for target in chosen])
            for target, drawn in zip(chosen, drawings, strict=True):
                if not drawn.failure:
                    votes[target][name] = torch.from_numpy(narrow(drawn.maps[LABELS].cpu().numpy()))
        for target in targets:
            self._vote(target, votes[target], ranking[target], shares, masks)
        return {}

    def _atlas(self, shares: Shares, run: Run) -> Atlas:
        levels = levels_for(shares)
        store = None if self.transforms is None else TransformStore(self.transforms, levels)
        return Atlas(levels, device=run.device, store=store)

    def _ranking(self, shares: Shares, targets: dict[int, Picture]) -> dict[int, list[str]]:
        """Names of the atlases of each image, the most alike first."""
        pool = [shares.read(number) for number in shares.training]
        pictures = {picture.name: thumbnail(picture) for picture in pool}
        out: dict[int, list[str]] = {}
        for target, picture in targets.items():
            own = thumbnail(picture)
            alike = {name: round(float(own @ other), 12) for name, other in pictures.items()}
            out[target] = sorted(alike, key=lambda name: (-alike[name], name))[: max(self.model.atlases)]
        return out

    def _vote(
        self, target: int, votes: dict[str, Tensor], ranking: list[str], shares: Shares, masks: MaskFolder
    ) -> None:
        for stage, atlases in zip(self.stages, self.model.atlases, strict=True):
            maps = [votes[name] for name in ranking[:atlases] if name in votes]
            if not maps:
                raise DataError(
                    f"{shares.name_of(target)}: none of its atlases {', '.join(ranking[:atlases])} could be laid on it"
                )
            masks.write(stage, target, shares.source.labels.vote(torch.stack(maps)).numpy().astype(np.int64))


def levels_for(shares: Shares) -> Schedule:
    """The registration's levels, those that suit the dimensions of the images."""
    return schedule(RegistrationConfig(), shares.read(shares.training[0]).image.ndim)
