"""The program's own material: a labelled set split into references, cases and more, and masks of every quality to judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paperbench.data import phantoms, segmentation
from paperbench.data.volumes import on_grid_of, read_image, read_labels
from paperbench.engine.seeding import hashed
from paperbench.errors import ConfigError
from paperbench.rca.cases import Case, Material, Picture
from paperbench.rca.config import DataConfig, HippocampusData, JsrtData, PhantomData, RcaEstimate
from paperbench.rca.labels import Labels

DEFORM = 120
SHARES = ("references", "cases", "calibration", "training")
"""What an image can be, in the order in which the shuffled images are given out."""


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """Images with true masks, read one at a time. `read(k)` gives a picture with its truth."""

    labels: Labels
    size: int
    read: Callable[[int], Picture]
    name_of: Callable[[int], str]
    name: str


def open_set(config: DataConfig) -> LabelledSet:
    """The set that `config` names. Raises DataError when it is not there."""
    return _phantoms(config) if isinstance(config, PhantomData) else _real(config)


def _real(config: JsrtData | HippocampusData) -> LabelledSet:
    """A set on disk. Raises ConfigError when it is smaller than what is asked of it."""
    pairs = segmentation.find(config.name, config.root)
    if (wanted := asked_for(config)) > len(pairs):
        raise ConfigError(
            f"data: {', '.join(SHARES)} are {wanted} images together, {config.name} has {len(pairs)}; take fewer of one"
        )
    known = segmentation.JSRT_ORGANS if isinstance(config, JsrtData) else segmentation.HIPPOCAMPUS_PARTS

    def read(number: int) -> Picture:
        pair = pairs[number]
        image = read_image(pair.image)
        return Picture(
            name=pair.name,
            image=image.array,
            spacing=image.spacing,
            physical=image.affine is not None,
            truth=on_grid_of(image, read_labels(pair.mask)),
        )

    return LabelledSet(
        labels=Labels("bits" if isinstance(config, JsrtData) else "values", tuple(known.values()), tuple(known)),
        size=len(pairs),
        read=read,
        name_of=lambda number: pairs[number].name,
        name=config.name,
    )


def _phantoms(config: PhantomData) -> LabelledSet:
    shape, seed = tuple(config.shape), config.data_seed

    def name_of(number: int) -> str:
        return f"phantom-{number:04d}"

    def read(number: int) -> Picture:
        image, truth = phantoms.phantom(number, shape=shape, data_seed=seed)
        return Picture(name=name_of(number), image=image, spacing=(1.0,) * len(shape), physical=False, truth=truth)

    values = tuple(range(1, len(phantoms.NAMES) + 1))
    return LabelledSet(
        labels=Labels("values", values, phantoms.NAMES),
        size=asked_for(config),
        read=read,
        name_of=name_of,
        name=f"phantoms of {' x '.join(map(str, shape))}",
    )


def asked_for(config: DataConfig) -> int:
    """Images of all shares together; no image is in two of them."""
    return sum(getattr(config, part) for part in SHARES)


def parts(config: DataConfig, size: int) -> dict[str, list[int]]:
    """Which images are references, are judged, calibrate, and teach segmenters: a fixed shuffle of 0 to `size` - 1."""
    order = np.random.default_rng(hashed(config.split_seed, DEFORM)).permutation(size).tolist()
    out: dict[str, list[int]] = {}
    for part in SHARES:
        count = getattr(config, part)
        out[part], order = sorted(order[:count]), order[count:]
    return out


def load(config: RcaEstimate) -> Material:
    """References at once; each case is read and its masks are made when its turn comes."""
    source = open_set(config.data)
    split = parts(config.data, source.size)

    def later(number: int) -> Case:
        def make() -> Picture:
            return with_masks(config, source, number)

        return Case(name=source.name_of(number), load=make)

    return Material(
        labels=source.labels,
        references=tuple(source.read(number) for number in split["references"]),
        cases=tuple(map(later, split["cases"])),
        calibration=tuple(map(later, split["calibration"])) if config.calibration.kind == "labelled" else (),
        segmenters=deformed_names(config.segmenters.masks),
        description=f"{source.name}: {len(split['cases'])} images, {len(split['references'])} references",
    )


def deformed_names(masks: int) -> tuple[str, ...]:
    """One name a mask of an image."""
    return ("deformed",) if masks == 1 else tuple(f"deformed-{k + 1}" for k in range(masks))


def with_masks(config: RcaEstimate, source: LabelledSet, number: int) -> Picture:
    """Image `number` with the masks that are to be judged."""
    picture = source.read(number)
    assert picture.truth is not None
    made: dict[str, NDArray[np.int64]] = {}
    for k, name in enumerate(deformed_names(config.segmenters.masks)):
        rng = np.random.default_rng(hashed(config.seed, DEFORM, number, k))
        severity = rng.uniform()
        made[name] = degraded_map(picture.truth, source.labels, severity, rng)
    return Picture(
        name=picture.name,
        image=picture.image,
        spacing=picture.spacing,
        physical=picture.physical,
        masks=made,
        truth=picture.truth,
    )


def degraded_map(
    truth: NDArray[np.int64], labels: Labels, severity: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """A true label map made worse by `severity` from 0 to 1; labels that are not judged are left out."""
    import torch

    planes = labels.planes(torch.from_numpy(truth)).numpy()
    return labels.map_of(phantoms.degraded(planes, severity, rng))


def check(config: DataConfig) -> dict[str, object]:
    """Reads every image of the set and counts its labels, for `paperbench data check`. Raises DataError."""
    import torch

    source = open_set(config)
    voxels = dict.fromkeys(source.labels.names, 0)
    shapes: dict[str, int] = {}
    for number in range(source.size):
        picture = source.read(number)
        assert picture.truth is not None
        shape = " x ".join(map(str, picture.image.shape))
        shapes[shape] = shapes.get(shape, 0) + 1
        planes = source.labels.planes(torch.from_numpy(picture.truth))
        for name, count in zip(source.labels.names, planes.flatten(1).any(1).tolist(), strict=True):
            voxels[name] += count
    return {"images": source.size, "images by size": shapes, "images with label": voxels}
