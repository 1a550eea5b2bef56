"""Label propagation from an image to a reference by nearest neighbour: no label is interpolated.

Shapes: S label maps, `...` the d axes of an image or of a reference. Coordinates are those of `registration`.

Rounding to the nearest voxel moves a surface by up to half a voxel, which fragments structures of a few voxels. So a voxel of a
reference can be sampled at several points, each by nearest neighbour, and holds the label of most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from paperbench.rca.labels import Labels

CHUNK: Final = 1 << 17
"""Voxels of a reference that are sampled at once: with 27 points each some hundred megabytes."""


def propagate_labels(maps: Tensor, grid: Tensor, *, labels: Labels | None = None, samples: int = 1) -> Tensor:
    """Return label maps (S, ...) of an image at the coordinates (*shape, d) of a reference's voxels: (S, *shape), 0 outside.

    samples: points along each axis of a voxel at a label boundary; `labels.vote` decides between them. 1 samples voxel centres
    alone. Raises ValueError for several samples without `labels`.
    """
    shape = maps.shape[1:]
    out = gather_labels(maps, *nearest_index(grid, shape))
    if samples == 1:
        return out
    if labels is None:
        raise ValueError(f"samples={samples}: a vote needs the labels")
    boundaries = label_boundaries(out)
    flat = maps.flatten(1)
    # One voxel more than the image has, of background: outside.
    padded = torch.cat([flat, flat.new_zeros(len(flat), 1)], dim=1)
    for voxels in boundaries.any(0).nonzero().split(CHUNK):
        index, inside = nearest_index(subvoxel_grid(grid, voxels, samples), shape)
        index = torch.where(inside, index, flat.shape[1])
        for values, boundary, propagated in zip(padded, boundaries, out, strict=True):
            # Each map is sampled at its own boundaries alone: the other maps do not change it.
            own = boundary[voxels.unbind(1)]
            points = index[own]
            votes = values.index_select(0, points.flatten()).view(points.shape)
            propagated[voxels[own].unbind(1)] = labels.vote(votes.t()).to(propagated.dtype)
    return out


def subvoxel_grid(grid: Tensor, voxels: Tensor, samples: int) -> Tensor:
    """Return coordinates in the image of `samples` points along each axis of `voxels` (N, d) of a reference: (N, samples^d, d).

    Between voxel centres `grid` (*shape, d) is linear, with slopes by central differences, one-sided at the border and zero along
    an axis of one voxel.
    """
    dims = grid.shape[-1]
    line = (torch.arange(samples, dtype=grid.dtype, device=grid.device) + 0.5) / samples - 0.5
    offsets = torch.cartesian_prod(*[line] * dims).view(-1, dims)
    slopes = []
    for axis in range(dims):
        before, after = voxels.clone(), voxels.clone()
        before[:, axis].sub_(1).clamp_(min=0)
        after[:, axis].add_(1).clamp_(max=grid.shape[axis] - 1)
        steps = (after - before)[:, axis, None].clamp(min=1)
        slopes.append((grid[after.unbind(1)] - grid[before.unbind(1)]) / steps)
    return grid[voxels.unbind(1)][:, None] + torch.einsum("ka,and->nkd", offsets, torch.stack(slopes))


def label_boundaries(maps: Tensor) -> Tensor:
    """Return (S, ...) bool: true where the 3-voxel neighbourhood of label maps (S, ...) holds more than one label."""
    least, most = maps, maps
    for axis in range(1, maps.dim()):
        least, most = _over_neighbours(torch.minimum, least, axis), _over_neighbours(torch.maximum, most, axis)
    return least != most


def _over_neighbours(reduce: Callable[[Tensor, Tensor], Tensor], maps: Tensor, axis: int) -> Tensor:
    """Return the minimum or maximum of each voxel and its two neighbours along an axis."""
    length = maps.shape[axis]
    out = maps.clone()
    for first, second in ((slice(1, None), slice(None, length - 1)), (slice(None, length - 1), slice(1, None))):
        here, there = [slice(None)] * maps.dim(), [slice(None)] * maps.dim()
        here[axis], there[axis] = first, second
        out[tuple(here)] = reduce(out[tuple(here)], maps[tuple(there)])
    return out


def nearest_index(grid: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the voxel of an image of `shape` at each coordinate (..., d): flat indices (...), and true where it is inside."""
    index = torch.zeros(grid.shape[:-1], dtype=torch.int64, device=grid.device)
    inside = torch.ones_like(index, dtype=torch.bool)
    dims = len(shape)
    for axis, length in enumerate(shape):
        position = torch.floor((grid[..., dims - 1 - axis] + 1) * (length / 2)).long()
        inside &= (position >= 0) & (position < length)
        index = index * length + position.clamp(0, length - 1)
    return index, inside


def gather_labels(labels: Tensor, index: Tensor, inside: Tensor) -> Tensor:
    """Return label maps (S, ...) of the image at the voxels of `nearest_index`: (S, ...); 0 outside."""
    return labels.flatten(1)[:, index] * inside
