"""Labelled data sets, split into references, cases and more, and the degraded masks of their cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.data import phantoms, segmentation
from paperbench.data.grids import on_grid_of
from paperbench.data.layout import count_departure
from paperbench.data.volumes import read_image, read_labels
from paperbench.engine.seeding import hashed
from paperbench.errors import ConfigError
from paperbench.rca.cases import Case, CaseSet, CaseSource, Image, degraded_map
from paperbench.rca.config import DataConfig, HippocampusData, JsrtData, PhantomData, RcaEstimate
from paperbench.rca.labels import Labels

DEFORM = 120
_RADIOGRAPHS: Final = 247
SPLITS = ("references", "cases", "calibration", "training")
"""Splits of a set, in the order in which they take the shuffled images."""


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """Images with true masks, read one at a time. `read(k)` returns an image with its truth."""

    labels: Labels
    size: int
    dims: int
    read: Callable[[int], Image]
    name_of: Callable[[int], str]
    name: str


def open_set(config: DataConfig) -> LabelledSet:
    """Open the set that `config` names; no image is read. Raises DataError when it is missing."""
    return _phantoms(config) if isinstance(config, PhantomData) else _real(config)


def _real(config: JsrtData | HippocampusData) -> LabelledSet:
    """Open a set on disk. Raises ConfigError when it is smaller than its splits."""
    pairs = segmentation.find(config.name, config.root)
    if (total := images_of(config)) > len(pairs):
        raise ConfigError(
            f"data: {', '.join(SPLITS)} are {total} images together, {config.name} has {len(pairs)}; take fewer of one"
        )
    known = segmentation.JSRT_ORGANS if isinstance(config, JsrtData) else segmentation.HIPPOCAMPUS_PARTS

    def read(number: int) -> Image:
        pair = pairs[number]
        image = read_image(pair.image)
        return Image(
            name=pair.name,
            intensities=image.array,
            spacing=image.spacing,
            physical=image.affine is not None,
            truth=on_grid_of(image, read_labels(pair.mask)),
        )

    return LabelledSet(
        labels=Labels("bits" if isinstance(config, JsrtData) else "values", tuple(known.values()), tuple(known)),
        size=len(pairs),
        dims=2 if isinstance(config, JsrtData) else 3,
        read=read,
        name_of=lambda number: pairs[number].name,
        name=config.name,
    )


def _phantoms(config: PhantomData) -> LabelledSet:
    shape, seed = tuple(config.shape), config.data_seed

    def name_of(number: int) -> str:
        return f"phantom-{number:04d}"

    def read(number: int) -> Image:
        image, truth = phantoms.phantom(number, shape=shape, data_seed=seed)
        return Image(name=name_of(number), intensities=image, spacing=(1.0,) * len(shape), physical=False, truth=truth)

    values = tuple(range(1, len(phantoms.NAMES) + 1))
    return LabelledSet(
        labels=Labels("values", values, phantoms.NAMES),
        size=images_of(config),
        dims=len(shape),
        read=read,
        name_of=name_of,
        name=f"phantoms of {' x '.join(map(str, shape))}",
    )


def images_of(config: DataConfig) -> int:
    """Return the number of images of all splits together; no image is in two of them."""
    return sum(getattr(config, name) for name in SPLITS)


def split(config: DataConfig, size: int) -> dict[str, list[int]]:
    """Return the image numbers of each split: a shuffle of 0 to `size` - 1 by `split_seed`."""
    order = np.random.default_rng(hashed(config.split_seed, DEFORM)).permutation(size).tolist()
    out: dict[str, list[int]] = {}
    for name in SPLITS:
        count = getattr(config, name)
        out[name], order = sorted(order[:count]), order[count:]
    return out


def find(config: RcaEstimate) -> CaseSource:
    """Return references and cases of the data set; no image is read, masks are made when a case is processed."""
    source = open_set(config.data)
    numbers = split(config.data, source.size)

    def case(number: int) -> Case:
        return Case(name=source.name_of(number), load=lambda: with_masks(config, source, number))

    description = f"{source.name}: {len(numbers['cases'])} images, {len(numbers['references'])} references"

    def read() -> CaseSet:
        return CaseSet(
            labels=source.labels,
            references=tuple(source.read(number) for number in numbers["references"]),
            cases=tuple(map(case, numbers["cases"])),
            calibration=tuple(map(case, numbers["calibration"])) if config.calibration.kind == "labelled" else (),
            segmenters=deformed_names(config.segmenters.masks),
            description=description,
        )

    return CaseSource(
        read=read,
        references=len(numbers["references"]),
        dims=source.dims,
        labels=source.labels.names,
        segmenters=deformed_names(config.segmenters.masks),
        description=description,
    )


def deformed_names(masks: int) -> tuple[str, ...]:
    """Return one name for each mask of an image."""
    return ("deformed",) if masks == 1 else tuple(f"deformed-{k + 1}" for k in range(masks))


def with_masks(config: RcaEstimate, source: LabelledSet, number: int) -> Image:
    """Return image `number` with degraded masks, their severities uniform in 0..1."""
    image = source.read(number)
    assert image.truth is not None
    masks: dict[str, NDArray[np.int64]] = {}
    for k, name in enumerate(deformed_names(config.segmenters.masks)):
        rng = np.random.default_rng(hashed(config.seed, DEFORM, number, k))
        severity = rng.uniform()
        masks[name] = degraded_map(image.truth, source.labels, severity, rng)
    return replace(image, masks=masks)


def check(config: DataConfig) -> dict[str, object]:
    """Read every image of the set and count its labels, for `paperbench data check`. Raises DataError."""
    import torch

    source = open_set(config)
    voxels = dict.fromkeys(source.labels.names, 0)
    shapes: dict[str, int] = {}
    for number in range(source.size):
        image = source.read(number)
        assert image.truth is not None
        shape = " x ".join(map(str, image.intensities.shape))
        shapes[shape] = shapes.get(shape, 0) + 1
        planes = source.labels.planes(torch.from_numpy(image.truth))
        for name, count in zip(source.labels.names, planes.flatten(1).any(1).tolist(), strict=True):
            voxels[name] += count
    return {"images": source.size, "images by size": shapes, "images with label": voxels}


def departures(data: Mapping[str, Any]) -> list[str]:
    """Return that JSRT's radiographs on disk are not as many as published; see `DatasetSpec.departures`. Raises DataError."""
    return count_departure("radiographs", len(segmentation.find(data["name"], data.get("root"))), _RADIOGRAPHS)
