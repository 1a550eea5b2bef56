"""Schemas of the tasks `segment-train` and `rca-segmenters`: what segments, what it learns from, and what is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from paperbench.config.schema import (
    CIRCUMSTANTIAL,
    FolderPath,
    PositiveFloat,
    PositiveInt,
    RunConfig,
    Schema,
)
from paperbench.rca.config import DataConfig, PhantomData, RcaEstimate

Kind = Literal["unet", "forest", "multi-atlas"]


def _rising(values: tuple[int, ...]) -> tuple[int, ...]:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ValueError("expected each to be larger than the one before")
    return values


Stages = Annotated[tuple[PositiveInt, ...], AfterValidator(_rising), Field(min_length=1)]
"""A segmenter as it is with so much of something: each value gives a folder of masks."""


@dataclass(kw_only=True)
class UnetModel(Schema):
    """A small U-Net; stages are numbers of passes over the training images."""

    name: Literal["unet"] = "unet"
    epochs: Stages = (1, 3, 10, 30)
    width: Annotated[int, Field(ge=4, multiple_of=4, description="a multiple of 4")] = 12
    """Channels at full size; each of the two reductions doubles them."""
    side: Annotated[int, Field(ge=16)] = 128
    """Images are reduced to at most so many voxels along an axis; labels are decided at full size."""
    batch_size: PositiveInt = 4
    lr: PositiveFloat = 2e-3


@dataclass(kw_only=True)
class ForestModel(Schema):
    """A random forest on offset box features; stages are numbers of trees."""

    name: Literal["forest"] = "forest"
    trees: Stages = (1, 20)
    voxels: PositiveInt = 2000
    """Voxels that are learnt from of each training image."""


@dataclass(kw_only=True)
class MultiAtlasModel(Schema):
    """Training images registered to the image, their labels put to the vote; stages are numbers of atlases."""

    name: Literal["multi-atlas"] = "multi-atlas"
    atlases: Stages = (1, 7)
    """The training images that resemble the image most."""


SegmenterModel = Annotated[UnetModel | ForestModel | MultiAtlasModel, Field(discriminator="name")]


@dataclass(kw_only=True)
class SegmentTrain(RunConfig):
    """Task `segment-train`."""

    data: DataConfig = field(default_factory=PhantomData)
    model: SegmenterModel = field(default_factory=UnetModel)


@dataclass(kw_only=True)
class TrainedSegmenters(Schema):
    """What makes the masks that are judged. Each is trained once, and found again by whatever run has the same."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("unet", "forest", "multi-atlas")
    unet: UnetModel = field(default_factory=UnetModel)
    forest: ForestModel = field(default_factory=ForestModel)
    multi_atlas: MultiAtlasModel = field(default_factory=MultiAtlasModel)
    folder: Annotated[FolderPath, CIRCUMSTANTIAL] | None = None
    """Where their masks are kept, for all runs; null is `<output.root>/segmenters`."""


@dataclass(kw_only=True)
class RcaSegmenters(RcaEstimate):
    """Task `rca-segmenters`: as `rca-estimate`, of the masks of segmenters that are trained first."""

    # Another section of the same name; configurations are not written to after validation.
    segmenters: TrainedSegmenters = field(default_factory=TrainedSegmenters)  # pyright: ignore[reportIncompatibleVariableOverride]
