"""From a configuration to masks: which segmenter it is, and how good its masks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from paperbench.engine.run import Run
from paperbench.errors import ConfigError
from paperbench.rca.judging import real_scores
from paperbench.rca.segmenters.config import ForestModel, MultiAtlasModel, UnetModel
from paperbench.rca.segmenters.forest import ForestSegmenter
from paperbench.rca.segmenters.masks import MaskFolder
from paperbench.rca.segmenters.multi_atlas import MultiAtlasSegmenter
from paperbench.rca.segmenters.shares import Shares
from paperbench.rca.segmenters.unet import UnetSegmenter, ends_of


class Segmenter(Protocol):
    """Something that learns from the training images and segments the others."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of what it leaves: a folder of masks each, the least trained first."""
        ...

    def segment(self, shares: Shares, masks: MaskFolder, run: Run) -> dict[str, float]:
        """Writes every mask of every stage that is not there yet; metrics of the training. Called on all ranks. Raises Stopped
        when the run is told to stop; the next call goes on."""
        ...


def segmenter(model: UnetModel | ForestModel | MultiAtlasModel, *, transforms: Path | None) -> Segmenter:
    """The segmenter of a configuration. `transforms`: where registrations are kept, None keeps none."""
    match model:
        case UnetModel():
            return UnetSegmenter(model)
        case ForestModel():
            return ForestSegmenter(model)
        case MultiAtlasModel():
            return MultiAtlasSegmenter(model, transforms)


def check(model: UnetModel | ForestModel | MultiAtlasModel, shares: Shares) -> None:
    """Raises ConfigError for what these images cannot give."""
    if isinstance(model, MultiAtlasModel) and max(model.atlases) > len(shares.training):
        raise ConfigError(
            f"{model.name}: {max(model.atlases)} atlases of data.training={len(shares.training)} images; take fewer atlases "
            "or more images"
        )
    if isinstance(model, UnetModel) and len(set(ends_of(model, len(shares.training)))) < len(model.epochs):
        raise ConfigError(
            f"{model.name}: batches of {model.batch_size} are too large to tell {_listed(model.epochs)} epochs of "
            f"{len(shares.training)} images apart; take smaller batches, or epochs that lie farther apart"
        )


def describe(model: UnetModel | ForestModel | MultiAtlasModel) -> str:
    """The segmenter and its stages in a few words."""
    match model:
        case UnetModel():
            return f"U-Net of width {model.width} after {_listed(model.epochs)} epochs"
        case ForestModel():
            return f"random forest of {_listed(model.trees)} trees"
        case MultiAtlasModel():
            return f"vote of {_listed(model.atlases)} atlases"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The real Dice score of one mask and organ; nan where neither the mask nor the truth holds it."""

    case: str
    stage: str
    label: str
    dsc: float


def quality(shares: Shares, masks: MaskFolder, stages: Sequence[str]) -> list[Quality]:
    """How good every mask of every image that is judged is."""
    out = []
    for number in shares.cases:
        picture = shares.read(number)
        picture = replace(picture, masks={stage: masks.read(stage, number, picture.image.shape) for stage in stages})
        for stage in stages:
            rows = real_scores(picture, stage, shares.source.labels, ["dsc"])
            assert rows is not None
            out += [
                Quality(case=picture.name, stage=stage, label=label, dsc=row["dsc"])
                for label, row in zip(shares.source.labels.names, rows, strict=True)
            ]
    return out


def metrics(found: Sequence[Quality], prefix: str = "segment") -> dict[str, float]:
    """Mean Dice scores by stage, and by stage and organ, each with the number of masks; `missed` organs score 0 and are in it."""
    out: dict[str, float] = {}
    groups: dict[str, list[float]] = {}
    for name, item in [(f"{prefix}/{q.stage}", q) for q in found] + [
        (f"{prefix}/{q.stage}/{q.label}", q) for q in found
    ]:
        groups.setdefault(name, []).append(item.dsc)
    for name, values in groups.items():
        defined = [value for value in values if not math.isnan(value)]
        out[f"{name}/masks"] = len(defined)
        if defined:
            out[f"{name}/dsc"] = float(np.mean(defined))
            out[f"{name}/missed"] = sum(value == 0 for value in defined)
    return out
