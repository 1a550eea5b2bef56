"""Labels of an image carried to a reference by nearest neighbour: no label comes out that did not go in, and none is mixed.

Shapes: S label maps, `...` the axes of an image or of a reference, d of them. Places are those of `registration`.

A structure that is a few voxels thin loses to the rounding of places alone: a surface is off by up to half a voxel, in either
direction. So a voxel of a reference can be asked at several places, each by nearest neighbour, and holds what most of them answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from paperbench.rca.labels import Labels

PORTION: Final = 1 << 17
"""Voxels of a reference that are asked at once: with 27 places each some hundred megabytes."""


def carry(maps: Tensor, grid: Tensor, *, labels: Labels | None = None, samples: int = 1) -> Tensor:
    """Label maps (S, ...) of an image at the places (*shape, d) of a reference's voxels: (S, *shape), 0 outside the image.

    samples: places along each axis at which a voxel is asked where its neighbourhood is not of one label; what most of them say
    counts as `Labels.vote` has it, which takes `labels`. 1 asks at voxel centres alone.
    """
    shape = maps.shape[1:]
    drawn = draw(maps, *nearest_index(grid, shape))
    if samples == 1:
        return drawn
    if labels is None:
        raise ValueError(f"samples={samples}: a vote needs to know the labels")
    edges = uneven(drawn)
    flat = maps.flatten(1)
    # One place more than the image has, and it is empty.
    padded = torch.cat([flat, flat.new_zeros(len(flat), 1)], dim=1)
    for voxels in edges.any(0).nonzero().split(PORTION):
        index, inside = nearest_index(within(grid, voxels, samples), shape)
        index = torch.where(inside, index, flat.shape[1])
        for values, edge, out in zip(padded, edges, drawn, strict=True):
            # Each map is asked at its own edges alone: what else is drawn with it changes nothing.
            own = edge[voxels.unbind(1)]
            asked = index[own]
            answers = values.index_select(0, asked.flatten()).view(asked.shape)
            out[voxels[own].unbind(1)] = labels.vote(answers.t()).to(out.dtype)
    return drawn


def within(grid: Tensor, voxels: Tensor, samples: int) -> Tensor:
    """Places in the image of `samples` points along each axis of `voxels` (N, d), indices, of a reference: (N, samples^d, d).

    Between the centres the places of `grid` (*shape, d) are taken to run straight, with the slopes of central differences, at the
    border of one-sided ones; along an axis of one voxel they stand still.
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


def uneven(maps: Tensor) -> Tensor:
    """Where a voxel of label maps (S, ...) or one of those around it, 3 along each axis, holds another label than the rest."""
    least, most = maps, maps
    for axis in range(1, maps.dim()):
        least, most = _over_neighbours(torch.minimum, least, axis), _over_neighbours(torch.maximum, most, axis)
    return least != most


def _over_neighbours(which: Callable[[Tensor, Tensor], Tensor], maps: Tensor, axis: int) -> Tensor:
    """The least or the most of each voxel and its two neighbours along an axis."""
    length = maps.shape[axis]
    out = maps.clone()
    for first, second in ((slice(1, None), slice(None, length - 1)), (slice(None, length - 1), slice(1, None))):
        here, there = [slice(None)] * maps.dim(), [slice(None)] * maps.dim()
        here[axis], there[axis] = first, second
        out[tuple(here)] = which(out[tuple(here)], maps[tuple(there)])
    return out


def nearest_index(grid: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which voxel of an image of `shape` each place (..., d) lies in: flat indices (...), and whether it lies inside."""
    index = torch.zeros(grid.shape[:-1], dtype=torch.int64, device=grid.device)
    inside = torch.ones_like(index, dtype=torch.bool)
    dims = len(shape)
    for axis, length in enumerate(shape):
        place = torch.floor((grid[..., dims - 1 - axis] + 1) * (length / 2)).long()
        inside &= (place >= 0) & (place < length)
        index = index * length + place.clamp(0, length - 1)
    return index, inside


def draw(labels: Tensor, index: Tensor, inside: Tensor) -> Tensor:
    """Label maps (S, ...) of the image at the voxels that `nearest_index` found: (S, ...); 0 outside."""
    return labels.flatten(1)[:, index] * inside
