"""Images of fine-grained classes, and the configurations of their data sets. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from paperbench.config.schema import (
    DataRoot,
    NonNegativeInt,
    PositiveInt,
    Schema,
)

Side = Annotated[int, Field(ge=32)]


@dataclass(kw_only=True)
class FineGrainedConfig(Schema):
    """What every such data set has."""

    size: Side = 448
    """Side of the inputs in pixels. Images are kept an eighth larger, for random crops in training."""
    max_train_images: NonNegativeInt = 0
    """Use only some images of the training split, spread over it; 0 is all of them."""
    max_test_images: NonNegativeInt = 0


@dataclass(kw_only=True)
class CubData(FineGrainedConfig):
    """Caltech-UCSD Birds-200-2011: `CUB_200_2011` as the archive unpacks."""

    name: Literal["cub"] = "cub"
    root: DataRoot = None


@dataclass(kw_only=True)
class PartsData(FineGrainedConfig):
    """Generated images whose class is told by two small parts in different places; nothing is read from a data folder."""

    name: Literal["parts"] = "parts"
    train_images: PositiveInt = 3000
    test_images: PositiveInt = 500
    data_seed: NonNegativeInt = 0
    """Seed of the images: the data stay the same when the run's seed changes."""


BirdData = Annotated[PartsData | CubData, Field(discriminator="name")]
