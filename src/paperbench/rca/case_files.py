"""The files of the images of a run, by role, and their content as images with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paperbench.data.grids import Volume, on_grid_of, share_outside
from paperbench.data.volumes import read_image, read_labels
from paperbench.rca.cases import RECORDED, Image, Remark, reason

MOSTLY_INSIDE = 0.01
"""Share of a resampled mask that may lie outside its image without a remark."""


@dataclass(kw_only=True)
class Entry:
    """The files of one image."""

    name: str
    image: Path
    masks: dict[str, Path] = field(default_factory=dict)
    truth: Path | None = None


@dataclass(kw_only=True)
class Files:
    """The files of all images, by role."""

    cases: list[Entry]
    references: list[Entry]
    calibration: list[Entry]
    segmenters: tuple[str, ...]
    where: str
    remarks: list[str] = field(default_factory=list)


def read(entry: Entry, *, resample: bool, segmenters: Sequence[str] = ()) -> Image:
    """Read an image with its masks on its grid.

    A mask that cannot be used, or that one of `segmenters` lacks, is a problem of its segmenter. Raises DataError for an image or
    a truth that cannot be used.
    """
    image = read_image(entry.image)
    masks: dict[str, NDArray[np.int64]] = {}
    problems: dict[str, str] = {}
    remarks = [Remark(text=f"{entry.image}: {note}") for note in image.notes]
    for name in (*segmenters, *(name for name in entry.masks if name not in segmenters)):
        path = entry.masks.get(name)
        if path is None:
            problems[name] = "has no mask of this image"
            continue
        try:
            mask = read_labels(path)
            masks[name] = on_grid_of(image, mask, resample=resample)
        except RECORDED as error:
            problems[name] = reason(error)
            continue
        remarks += [Remark(text=f"{path}: {note}", segmenter=name) for note in mask.notes]
        remarks += _outside(image, mask, name) if resample else []
    truth = None if entry.truth is None else on_grid_of(image, read_labels(entry.truth), resample=resample)
    return Image(
        name=entry.name,
        intensities=image.array,
        spacing=image.spacing,
        physical=image.affine is not None,
        masks=masks,
        truth=truth,
        problems=problems,
        remarks=tuple(remarks),
    )


def _outside(image: Volume, mask: Volume, segmenter: str) -> list[Remark]:
    share = share_outside(image, mask)
    if share <= MOSTLY_INSIDE:
        return []
    return [Remark(text=f"{mask.source}: {share:.0%} of it lies outside its image and is lost", segmenter=segmenter)]
