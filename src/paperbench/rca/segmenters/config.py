"""Schemas of the tasks `segment-train` and `rca-segmenters`."""

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
"""Stages of a segmenter, by epochs, trees or atlases: each value gives a folder of masks."""


@dataclass(kw_only=True)
class UnetModel(Schema):
    """A small U-Net; stages are numbers of passes over the training images."""

    name: Literal["unet"] = "unet"
    epochs: Stages = (1, 3, 10, 30)
    width: Annotated[int, Field(ge=4, multiple_of=4, description="a multiple of 4")] = 12
    """Channels at full size; each of the two reductions doubles them."""
    side: Annotated[int, Field(ge=16)] = 128
    """Largest length of an axis, to which images are reduced; labels are predicted at full size."""
    batch_size: PositiveInt = 4
    lr: PositiveFloat = 2e-3


@dataclass(kw_only=True)
class ForestModel(Schema):
    """A random forest on offset box features; stages are numbers of trees."""

    name: Literal["forest"] = "forest"
    trees: Stages = (1, 20)
    voxels: PositiveInt = 2000
    """Training voxels of each training image."""


@dataclass(kw_only=True)
class MultiAtlasModel(Schema):
    """Majority vote of training images registered to the image; stages are numbers of atlases."""

    name: Literal["multi-atlas"] = "multi-atlas"
    atlases: Stages = (1, 7)
    """Numbers of the training images most similar to the image."""


SegmenterModel = Annotated[UnetModel | ForestModel | MultiAtlasModel, Field(discriminator="name")]


@dataclass(kw_only=True)
class SegmentTrain(RunConfig):
    """Task `segment-train`."""

    data: DataConfig = field(default_factory=PhantomData)
    model: SegmenterModel = field(default_factory=UnetModel)


@dataclass(kw_only=True)
class TrainedSegmenters(Schema):
    """Segmenters whose masks are scored. Each is trained once and shared by all runs with the same settings."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("unet", "forest", "multi-atlas")
    unet: UnetModel = field(default_factory=UnetModel)
    forest: ForestModel = field(default_factory=ForestModel)
    multi_atlas: MultiAtlasModel = field(default_factory=MultiAtlasModel)
    folder: Annotated[FolderPath, CIRCUMSTANTIAL] | None = None
    """Folder of their masks, shared by all runs; null is `<output.root>/segmenters`."""


@dataclass(kw_only=True)
class RcaSegmenters(RcaEstimate):
    """Task `rca-segmenters`: `rca-estimate` with the masks of segmenters that are trained first."""

    # Another section of the same name; configurations are not written to after validation.
    segmenters: TrainedSegmenters = field(default_factory=TrainedSegmenters)  # pyright: ignore[reportIncompatibleVariableOverride]
