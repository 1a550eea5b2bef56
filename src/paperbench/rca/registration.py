"""One image registered to all references at once: affine, then cubic B-splines, in two or three dimensions.

Shapes: B references, d dimensions, `...` the image axes in the order of the arrays. Coordinates run from -1 to 1 over the box of
an image (borders, not voxel centres), the last array axis first, as `torch.nn.functional.grid_sample` has them. A transform
takes places in a reference to places in the image, so that labels of the image are drawn, by nearest neighbour, on the
reference's voxels.

Every pair is optimised for itself: nothing in the loss, the optimizer or the pyramid mixes references, and doubles keep what
the processor's order of sums may differ by far below the distance that would move a voxel. So neither order nor batching of the
references shows in the result. Nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from paperbench.rca.similarity import LocalTarget, Target

AFFINE_RATE: Final = 0.03
BSPLINE_RATE: Final = 0.025
START: Final = 4
"""Reduction at which it is decided where the affine part begins."""
MIN_SIDE: Final = 8
"""No level is reduced below this many voxels along an axis."""


@dataclass(frozen=True)
class Schedule:
    """Levels of the pyramid: affine (reduction, steps), B-spline (reduction, control points along each axis, steps)."""

    affine: tuple[tuple[int, int], ...]
    bspline: tuple[tuple[int, int, int], ...]
    stiffness: float
    contrast: float = 0.0
    """Window of `local_contrast`, as a share of the image's side; 0 registers intensities."""
    stride: int = 1
    """A step of a B-spline level looks at every so-manieth voxel along each axis, and the next step at others."""
    focus: float = 0.0
    """How far from a reference's organs voxels weigh more, as a share of the image's side; 0 weighs all alike."""
    window: float = 0.0
    """Standard deviation, in voxels of the level, of the window in which B-spline levels correlate; 0 correlates whole images."""
    side: int = 0
    """Voxels along a side that the levels are for: larger images are reduced to about that before anything else; 0 reduces none."""

    def reduction(self, shape: Sequence[int]) -> int:
        """By how much an image of `shape` is reduced first: its sides' geometric mean over `side`, rounded."""
        return max(1, round(math.prod(shape) ** (1 / len(shape)) / self.side)) if self.side else 1


PLANAR: Final = Schedule(
    affine=((8, 25), (4, 15)),
    bspline=((4, 7, 30), (2, 16, 40)),
    stiffness=0.03,
    contrast=0.13,
    stride=2,
    focus=0.05,
    side=256,
)
SPATIAL: Final = Schedule(
    affine=((4, 25), (2, 15)),
    bspline=((2, 7, 30), (1, 16, 40)),
    stiffness=0.0005,
    stride=2,
    window=2.0,
    side=48,
)
"""How both were chosen stands in docs/rca.md."""


@dataclass(frozen=True)
class Transforms:
    """From each of B references to the image: `theta` (B, d, d + 1), then `fields` of control points (B, d, c, ..., c)."""

    theta: Tensor
    fields: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.theta)

    def grid(self, index: int, shape: Sequence[int]) -> Tensor:
        """Places in the image of the voxels of reference `index`, whose array has `shape`: (*shape, d)."""
        theta = self.theta[index : index + 1]
        grid = F.affine_grid(theta, [1, 1, *shape], align_corners=False)
        for field in self.fields:
            grid = grid + displacement(field[index : index + 1], bases(field, shape)).movedim(1, -1)
        return grid[0]


def register(
    references: Tensor, weights: Tensor, image: Tensor, schedule: Schedule, *, scale: Tensor, shift: Tensor
) -> Transforms:
    """Transforms from `references` (B, 1, ...) to `image` (1, 1, ...), intensities or contrasts on the same grid of voxels;
    `weights` (B, 1, ...) >= 0 say how much each voxel of a reference counts.

    The affine part begins with `scale` (B, d), how much larger a reference's box is than the image's, 1 where no physical size is
    known, and with `shift` (B, d) where that correlates better than none; both have the last array axis first.
    """
    batch = references.shape[0]
    factors = {level[0] for level in (*schedule.affine, *schedule.bspline)} | {START}
    pyramid = {
        factor: Level(
            reduced(references, factor),
            reduced(weights, factor),
            reduced(image, factor).expand(batch, *[-1] * (image.dim() - 1)),
        )
        for factor in factors
    }
    theta = _start(pyramid[START], scale, shift)
    for factor, steps in schedule.affine:
        theta = _fit_affine(pyramid[factor], theta, steps)
    fields: list[Tensor] = []
    for factor, controls, steps in schedule.bspline:
        fields.append(_fit_bspline(pyramid[factor], theta, fields, controls, steps, schedule))
    return Transforms(theta, tuple(fields))


@dataclass(frozen=True)
class Level:
    """References, their weights and the image, repeated, on one level of the pyramid: (B, 1, ...) each."""

    fixed: Tensor
    weights: Tensor
    moving: Tensor

    def at(self, theta: Tensor) -> Tensor:
        """Dissimilarity (B,) under affine maps (B, d, d + 1)."""
        return Target(self.fixed, self.weights)(warped(self.moving, theta, self.fixed))


def _start(level: Level, scale: Tensor, shift: Tensor) -> Tensor:
    batch, dims = scale.shape
    plain = torch.zeros(batch, dims, dims + 1, dtype=scale.dtype, device=scale.device)
    plain[:, range(dims), range(dims)] = scale
    moved = plain.clone()
    moved[:, :, dims] = shift
    better = level.at(moved) < level.at(plain) - 1e-6
    return torch.where(better.view(-1, 1, 1), moved, plain)


def _fit_affine(level: Level, theta: Tensor, steps: int) -> Tensor:
    theta = theta.clone().requires_grad_(True)
    target = Target(level.fixed, level.weights)
    optimizer = torch.optim.Adam([theta], lr=AFFINE_RATE)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        target(warped(level.moving, theta, level.fixed)).sum().backward()
        optimizer.step()
    return theta.detach()


def _fit_bspline(
    level: Level, theta: Tensor, before: Sequence[Tensor], controls: int, steps: int, schedule: Schedule
) -> Tensor:
    """Control points (B, d, controls, ...) that are added to what the coarser levels did."""
    fixed = level.fixed
    batch, dims, shape = fixed.shape[0], fixed.dim() - 2, fixed.shape[2:]
    base = F.affine_grid(theta, list(fixed.shape), align_corners=False)
    for field in before:
        base = base + displacement(field, bases(field, shape)).movedim(1, -1)
    points = torch.zeros(batch, dims, *[controls] * dims, dtype=fixed.dtype, device=fixed.device, requires_grad=True)
    views = list(thinned(base, bases(points, shape), level, schedule))
    optimizer = torch.optim.Adam([points], lr=BSPLINE_RATE)
    for step in range(steps):
        start, matrices, target = views[step % len(views)]
        optimizer.zero_grad(set_to_none=True)
        grid = start + displacement(points, matrices).movedim(1, -1)
        loss = target(sample(level.moving, grid)) + schedule.stiffness * roughness(points)
        loss.sum().backward()
        optimizer.step()
    return points.detach()


View = tuple[Tensor, list[Tensor], Target | LocalTarget]


def thinned(base: Tensor, matrices: Sequence[Tensor], level: Level, schedule: Schedule) -> Iterator[View]:
    """Grid, bases and what to compare with at every `stride`-th voxel along each axis, for each choice of the first one. A step
    then costs a fraction, and loses little: neighbours say much the same."""
    for places in lattices(len(matrices), schedule.stride):
        rows = [matrix[place] for matrix, place in zip(matrices, places, strict=True)]
        shown = level.fixed[:, :, *places], level.weights[:, :, *places]
        local = schedule.window > 0
        target = LocalTarget(*shown, window=schedule.window / schedule.stride) if local else Target(*shown)
        yield base[:, *places].contiguous(), rows, target


def lattices(dims: int, stride: int) -> Iterator[tuple[slice, ...]]:
    """Every `stride`-th voxel along each of `dims` axes, in all ways to begin: together every voxel once."""
    for first in product(range(stride), repeat=dims):
        yield tuple(slice(start, None, stride) for start in first)


# --- parts ------------------------------------------------------------------------------------------------------------


def roughness(points: Tensor) -> Tensor:
    """Sum of the squared differences of neighbouring control points, (B, d, c, ...) -> (B,)."""
    parts = [(points.diff(dim=axis) ** 2).flatten(1).sum(1) for axis in range(2, points.dim())]
    return torch.stack(parts).sum(0)


def reduced(x: Tensor, factor: int) -> Tensor:
    """Means over about `factor` voxels along each axis, (B, 1, ...)."""
    shape = [min(length, max(MIN_SIDE, -(-length // factor))) for length in x.shape[2:]]
    if shape == list(x.shape[2:]):
        return x
    if all(length == small * factor for length, small in zip(x.shape[2:], shape, strict=True)):
        return (F.avg_pool2d if x.dim() == 4 else F.avg_pool3d)(x, factor)
    if x.dim() == 4:
        return F.adaptive_avg_pool2d(x, (shape[0], shape[1]))
    return F.adaptive_avg_pool3d(x, (shape[0], shape[1], shape[2]))


def sample(image: Tensor, grid: Tensor) -> Tensor:
    """Linear interpolation, 0 outside."""
    return F.grid_sample(image, grid, align_corners=False)


def warped(image: Tensor, theta: Tensor, like: Tensor) -> Tensor:
    """The image (B, 1, ...) drawn on the voxels of `like` by affine maps (B, d, d + 1)."""
    return sample(image, F.affine_grid(theta, list(like.shape), align_corners=False))


def centre_of_mass(x: Tensor) -> Tensor:
    """(B, 1, ...) of values >= 0 -> (B, d), the last array axis first."""
    dims = x.dim() - 2
    mass = x[:, 0]
    total = mass.flatten(1).sum(1).clamp(min=1e-9)
    found = []
    for axis in range(dims):
        length = x.shape[2 + axis]
        places = (torch.arange(length, dtype=x.dtype, device=x.device) * 2 + 1) / length - 1
        profile = mass.sum([1 + other for other in range(dims) if other != axis])
        found.append((profile * places).sum(1) / total)
    return torch.stack(found[::-1], dim=1)


def bspline_matrix(controls: int, size: int, *, like: Tensor) -> Tensor:
    """Uniform cubic B-splines over an axis, at the centres of `size` voxels: (size, controls), rows sum to 1."""
    spans = controls - 3
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size * spans
    first = place.floor().clamp(max=spans - 1).long()
    t = place - first
    weights = torch.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], dim=1
    ) / 6  # fmt: skip
    matrix = torch.zeros(size, controls, dtype=torch.float64)
    matrix.scatter_(1, first[:, None] + torch.arange(4), weights)
    return matrix.to(like)


def bases(points: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """The matrix of each axis that takes control points (B, d, c, ...) to an array of `shape`."""
    return [bspline_matrix(points.shape[2 + axis], length, like=points.detach()) for axis, length in enumerate(shape)]


def displacement(points: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Control points (B, d, c, ...) -> displacement (B, d, ...): one matrix product an axis, the smallest products first."""
    field = points
    for axis in reversed(range(len(matrices))):
        field = (field.movedim(2 + axis, -1) @ matrices[axis].T).movedim(-1, 2 + axis)
    return field
