"""Multi-atlas segmentation: training images are registered to the image, and their labels are fused by majority vote.

The registration is that of the reverse classifier: one training image is registered to all images that selected it, in one batch.
A stage is the vote of a number of atlases, those most similar to the image.
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
from paperbench.rca.atlas import Atlas, TransformStore, schedule
from paperbench.rca.cases import Image, thumbnail
from paperbench.rca.config import RegistrationConfig
from paperbench.rca.labels import narrow
from paperbench.rca.registration import Schedule
from paperbench.rca.segmenters.config import MultiAtlasModel
from paperbench.rca.segmenters.splits import MaskFolder, Splits

LABELS = "truth"


class MultiAtlasSegmenter:
    """Registers and votes; see `factory.Segmenter`. transforms: folder of computed transforms, None stores none; a resumed run
    finds its earlier registrations there."""

    def __init__(self, model: MultiAtlasModel, transforms: Path | None = None) -> None:
        self.model = model
        self.transforms = transforms
        self.stages = tuple(f"multi-atlas-{atlases}" for atlases in model.atlases)

    def segment(self, splits: Splits, masks: MaskFolder, run: Run) -> dict[str, float]:
        """Write the missing masks of every stage, each rank its part. Raises DataError for an image to which no atlas could be
        registered."""
        missing = {number for stage in self.stages for number in masks.missing(stage)}
        todo = [number for number in splits.segmented if number in missing]
        pool = {splits.name_of(number): number for number in splits.training}
        # Without their truth: it must not influence the registration.
        targets = {n: replace(splits.read(n), truth=None) for n in todo[run.ranks.rank :: run.ranks.world]}
        ranking = self._ranking(splits, targets)
        votes: dict[int, dict[str, Tensor]] = defaultdict(dict)
        classifier = self._atlas(splits, run)
        for position, (name, number) in enumerate(pool.items()):
            run.raise_if_stopped()
            run.reporter.progress("registering", position, len(pool), {})
            chosen = [target for target in targets if name in ranking[target]]
            if not chosen:
                continue
            atlas = splits.read(number)
            assert atlas.truth is not None
            labelled = replace(atlas, masks={LABELS: atlas.truth}, truth=None)
            propagated = classifier.segment(labelled, [targets[target] for target in chosen])
            for target, result in zip(chosen, propagated, strict=True):
                if not result.failure:
                    votes[target][name] = torch.from_numpy(narrow(result.maps[LABELS].cpu().numpy()))
        for target in targets:
            self._vote(target, votes[target], ranking[target], splits, masks)
        return {}

    def _atlas(self, splits: Splits, run: Run) -> Atlas:
        levels = levels_for(splits)
        store = None if self.transforms is None else TransformStore(self.transforms, levels)
        return Atlas(levels, device=run.device, store=store)

    def _ranking(self, splits: Splits, targets: dict[int, Image]) -> dict[int, list[str]]:
        """Return the names of the atlases of each image, the most similar first."""
        pool = [splits.read(number) for number in splits.training]
        thumbnails = {image.name: thumbnail(image) for image in pool}
        out: dict[int, list[str]] = {}
        for target, image in targets.items():
            own = thumbnail(image)
            similarity = {name: round(float(own @ other), 12) for name, other in thumbnails.items()}
            out[target] = sorted(similarity, key=lambda name: (-similarity[name], name))[: max(self.model.atlases)]
        return out

    def _vote(
        self, target: int, votes: dict[str, Tensor], ranking: list[str], splits: Splits, masks: MaskFolder
    ) -> None:
        for stage, atlases in zip(self.stages, self.model.atlases, strict=True):
            maps = [votes[name] for name in ranking[:atlases] if name in votes]
            if not maps:
                raise DataError(
                    f"{splits.name_of(target)}: none of its atlases {', '.join(ranking[:atlases])} could be registered to it"
                )
            masks.write(stage, target, splits.source.labels.vote(torch.stack(maps)).numpy().astype(np.int64))


def levels_for(splits: Splits) -> Schedule:
    """Return the levels of the registration for the dimensions of the images; for pictures the local contrast, which suits the
    radiographs and phantoms that are segmented here."""
    flat = splits.source.dims == 2
    return schedule(RegistrationConfig(contrast=0.13, window=0.0) if flat else RegistrationConfig(), splits.source.dims)
