"""Arrays with their place in space, and the question whether two of them are one grid.

Voxel indices become millimetres by an affine (4, 4). Shapes are those of the array: `(rows, columns)` of a picture, `(x, y[, z])`
of a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from paperbench.errors import DataError

SAME_PLACE: Final = 0.01
"""Two grids are one when no corner lies farther apart than this share of a voxel: headers hold 32-bit numbers."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An array with its place in space. `affine` (4, 4) takes voxel indices to millimetres; None for a picture."""

    array: NDArray[Any]
    spacing: tuple[float, ...]
    """Millimetres along each axis of `array`; 1 for a picture, whose unit is then the pixel."""
    affine: NDArray[np.float64] | None
    header: str
    """The geometry as its file states it, for messages."""
    source: str
    slope: float = 1.0
    """Factor by which the file's header scales its stored numbers."""
    notes: tuple[str, ...] = ()
    """Choices that the file left open, one clause each."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


def on_grid_of(image: Volume, mask: Volume, *, resample: bool = False) -> NDArray[np.int64]:
    """Return the labels of `mask` on the voxels of `image`.

    Raises DataError naming both headers where the two grids differ by more than `SAME_PLACE`; with `resample` the labels are
    brought over instead, by nearest neighbour, and are 0 where the mask does not reach. A mask of which nothing lies in the image
    is refused also then.
    """
    if same_place(image, mask):
        return mask.array
    if resample and mask.array.ndim == image.array.ndim and (mask.affine is None) == (image.affine is None):
        if share_outside(image, mask) == 1:
            raise DataError(
                f"{mask.source}: nothing of it lies in its image {image.source}, also when resampled{_apart(image, mask)}\n"
                f"{_headers(image, mask)}\n  {_lost_header(image, mask) or 'correct the headers, or name the right mask'}"
            )
        return _resampled(image, mask)
    if resample:
        remedy = "a picture cannot be laid over a volume"
    else:
        remedy = _lost_header(image, mask) or "correct the files, or have the masks laid over the images: resample=true"
    raise DataError(
        f"{mask.source}: lies elsewhere than its image {image.source}{_apart(image, mask)}\n{_headers(image, mask)}\n  {remedy}"
    )


def same_place(one: Volume, other: Volume) -> bool:
    """Return True if both are the same voxels: equal shapes, and corners within `SAME_PLACE` of a voxel."""
    if one.shape != other.shape or (one.affine is None) != (other.affine is None):
        return False
    return corner_distance(one, other) <= SAME_PLACE * min(one.spacing)


def corner_distance(one: Volume, other: Volume) -> float:
    """Return the largest distance in millimetres of two corners of the same name; 0 for two pictures.

    Raises ValueError for a picture and a volume, and for volumes of other numbers of axes.
    """
    if (one.affine is None) != (other.affine is None) or one.array.ndim != other.array.ndim:
        raise ValueError("only grids of one kind have a distance")
    if one.affine is None or other.affine is None:
        return 0.0
    apart = _corners(one.shape) @ one.affine.T - _corners(other.shape) @ other.affine.T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())


def share_outside(image: Volume, mask: Volume) -> float:
    """Return the share of the labelled voxels of `mask` (of all, where none is labelled) whose centre lies outside `image`.

    Two pictures lie on each other whatever their sizes: 0. A slice is outside when its plane is more than half a voxel away.
    """
    if image.affine is None or mask.affine is None:
        return 0.0
    labelled = np.argwhere(mask.array != 0)
    voxels = labelled if len(labelled) else np.argwhere(np.ones(mask.shape, bool))
    padded = np.pad(voxels.astype(np.float64), ((0, 0), (0, 3 - mask.array.ndim)))
    whole = np.linalg.inv(image.affine) @ mask.affine
    index = padded @ whole[:3, :3].T + whole[:3, 3]
    limits = np.array([*image.shape, *[1] * (3 - image.array.ndim)])
    inside = ((index > -0.5) & (index < limits - 0.5)).all(axis=1)
    return float(1 - inside.mean())


def _corners(shape: Sequence[int]) -> NDArray[np.float64]:
    ends = [*((0, length - 1) for length in shape), *[(0,)] * (3 - len(shape))]
    return np.array([(*corner, 1.0) for corner in product(*ends)])


def _apart(image: Volume, mask: Volume) -> str:
    """Return the distance of the corners as a clause: rotations hardly show in spacings and origins."""
    if image.affine is None or mask.affine is None or image.array.ndim != mask.array.ndim:
        return ""
    return f": their corners are up to {corner_distance(image, mask):.4g} mm apart"


def _headers(image: Volume, mask: Volume) -> str:
    return f"  mask:  {mask.header}\n  image: {image.header}"


def _lost_header(image: Volume, mask: Volume) -> str:
    """Return the remedy for two volumes of equal shape, one of which has probably lost its header; empty for others."""
    if image.shape != mask.shape or image.affine is None or mask.affine is None:
        return ""
    return (
        "both have the same shape: if one of them lost its header (a conversion by way of arrays does that), write the "
        "image's affine into the mask; resample=true is right only where both headers are"
    )


def _resampled(image: Volume, mask: Volume) -> NDArray[np.int64]:
    from scipy.ndimage import affine_transform

    dims = image.array.ndim
    if image.affine is None or mask.affine is None:
        scale = np.array(mask.shape) / np.array(image.shape)
        matrix, offset = np.diag(scale), scale / 2 - 0.5
    else:
        whole = np.linalg.inv(mask.affine) @ image.affine
        matrix, offset = whole[:dims, :dims], whole[:dims, 3]
    # SciPy's stubs know a single offset only; one an axis is what it documents.
    shift = cast(Any, offset)
    out = affine_transform(mask.array, matrix, shift, output_shape=image.shape, order=0, mode="grid-constant", cval=0)
    return np.asarray(out, np.int64)


def numbers(values: Sequence[float] | NDArray[np.float64]) -> str:
    """Format a vector."""
    return "(" + ", ".join(f"{float(value):.6g}" for value in values) + ")"


def times(shape: Sequence[int]) -> str:
    """Format a shape."""
    return " x ".join(map(str, shape))
