"""Registration of one image to all references in one batch: affine, then cubic B-splines, in two or three dimensions.

Shapes: B references, d dimensions, `...` the image axes in the order of the arrays. Coordinates run from -1 to 1 over the box of an
image (borders, not voxel centres), the last array axis first, as `torch.nn.functional.grid_sample` has them. A transform maps
coordinates in a reference to coordinates in the image, so that labels of the image are propagated, by nearest neighbour, to the
reference's voxels.

Every pair is optimised independently: nothing in the loss, the optimizer or the pyramid mixes references, and in doubles the effect
of the order of sums is far below the distance that would move a voxel. So the result depends neither on the order nor on the
batching of the references. Nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from paperbench.rca.similarity import LocalTarget, Target

AFFINE_RATE: Final = 0.03
BSPLINE_RATE: Final = 0.025
START: Final = 4
"""Reduction at which the start of the affine part is chosen."""
MIN_SIDE: Final = 8
"""Fewest voxels of a level along an axis."""


@dataclass(frozen=True)
class Schedule:
    """Levels of the pyramid: affine (reduction, steps), B-spline (reduction, control points along each axis, steps)."""

    affine: tuple[tuple[int, int], ...]
    bspline: tuple[tuple[int, int, int], ...]
    stiffness: float
    contrast: float = 0.0
    """Window of `local_contrast`, as a fraction of the image's side; 0 registers intensities."""
    stride: int = 1
    """Stride of the sampling grid of B-spline levels: a step uses every n-th voxel along each axis, the next step others."""
    focus: float = 0.0
    """Distance from a reference's organs up to which voxels count more, as a fraction of the image's side; 0: all count alike."""
    window: float = 0.0
    """Standard deviation, in voxels of the level, of the window in which B-spline levels correlate; 0 correlates whole images."""
    side: int = 0
    """Voxels along a side for which the levels are: larger images are first reduced to about that; 0 reduces none."""

    def reduction(self, shape: Sequence[int]) -> int:
        """Return the reduction of an image of `shape` before the pyramid: the geometric mean of its sides over `side`, rounded."""
        return max(1, round(math.prod(shape) ** (1 / len(shape)) / self.side)) if self.side else 1

    def refined(self, resolution: float) -> Schedule:
        """Return the schedule with the reductions of all levels divided by `resolution`, none below 1."""
        return replace(
            self,
            affine=tuple((max(1, round(factor / resolution)), steps) for factor, steps in self.affine),
            bspline=tuple((max(1, round(factor / resolution)), *rest) for factor, *rest in self.bspline),
        )


PLANAR: Final = Schedule(
    affine=((8, 25), (4, 15)),
    bspline=((4, 7, 30), (2, 16, 40)),
    stiffness=0.03,
    stride=2,
    focus=0.05,
    window=2.0,
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
"""Defaults, from which `choice` starts; docs/rca.md says where they come from."""


@dataclass(frozen=True)
class Transforms:
    """From each of B references to the image: `theta` (B, d, d + 1), then `fields` of control points (B, d, c, ..., c)."""

    theta: Tensor
    fields: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.theta)

    def grid(self, index: int, shape: Sequence[int]) -> Tensor:
        """Return the coordinates in the image of the voxels of reference `index`, whose array has `shape`: (*shape, d)."""
        theta = self.theta[index : index + 1]
        grid = F.affine_grid(theta, [1, 1, *shape], align_corners=False)
        for field in self.fields:
            grid = grid + displacement(field[index : index + 1], bases(field, shape)).movedim(1, -1)
        return grid[0]


def register(
    references: Tensor, weights: Tensor, image: Tensor, schedule: Schedule, *, scale: Tensor, shift: Tensor
) -> Transforms:
    """Return transforms from `references` (B, 1, ...) to `image` (1, 1, ...), intensities or contrasts on grids of the same shape.

    weights: (B, 1, ...) >= 0, of the voxels of a reference. scale: (B, d), the ratio of the extents of reference and image, 1 where
    no physical size is known. shift: (B, d), used at the start where it correlates better than none. Both have the last array axis
    first.
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
        """Return the dissimilarity (B,) under affine maps (B, d, d + 1)."""
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
    """Return control points (B, d, controls, ...) that are added to the coarser levels."""
    fixed = level.fixed
    batch, dims, shape = fixed.shape[0], fixed.dim() - 2, fixed.shape[2:]
    base = F.affine_grid(theta, list(fixed.shape), align_corners=False)
    for field in before:
        base = base + displacement(field, bases(field, shape)).movedim(1, -1)
    points = torch.zeros(batch, dims, *[controls] * dims, dtype=fixed.dtype, device=fixed.device, requires_grad=True)
    views = list(strided_views(base, bases(points, shape), level, schedule))
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


def strided_views(base: Tensor, matrices: Sequence[Tensor], level: Level, schedule: Schedule) -> Iterator[View]:
    """Yield grid, bases and target at every `stride`-th voxel along each axis, for each choice of the first one.

    A step then costs a fraction and loses little: neighbouring voxels are alike.
    """
    for places in lattices(len(matrices), schedule.stride):
        rows = [matrix[place] for matrix, place in zip(matrices, places, strict=True)]
        fixed, weights = level.fixed[:, :, *places], level.weights[:, :, *places]
        local = schedule.window > 0
        target = (
            LocalTarget(fixed, weights, window=schedule.window / schedule.stride) if local else Target(fixed, weights)
        )
        yield base[:, *places].contiguous(), rows, target


def lattices(dims: int, stride: int) -> Iterator[tuple[slice, ...]]:
    """Yield slices of every `stride`-th voxel along each of `dims` axes, for all first voxels: together every voxel once."""
    for first in product(range(stride), repeat=dims):
        yield tuple(slice(start, None, stride) for start in first)


# --- parts ------------------------------------------------------------------------------------------------------------


def roughness(points: Tensor) -> Tensor:
    """Return the sum of the squared differences of neighbouring control points, (B, d, c, ...) -> (B,)."""
    parts = [(points.diff(dim=axis) ** 2).flatten(1).sum(1) for axis in range(2, points.dim())]
    return torch.stack(parts).sum(0)


def reduced(x: Tensor, factor: int) -> Tensor:
    """Return means over about `factor` voxels along each axis, (B, 1, ...)."""
    shape = [min(length, max(MIN_SIDE, -(-length // factor))) for length in x.shape[2:]]
    if shape == list(x.shape[2:]):
        return x
    if all(length == small * factor for length, small in zip(x.shape[2:], shape, strict=True)):
        return (F.avg_pool2d if x.dim() == 4 else F.avg_pool3d)(x, factor)
    if x.dim() == 4:
        return F.adaptive_avg_pool2d(x, (shape[0], shape[1]))
    return F.adaptive_avg_pool3d(x, (shape[0], shape[1], shape[2]))


def sample(image: Tensor, grid: Tensor) -> Tensor:
    """Sample an image by linear interpolation, 0 outside."""
    return F.grid_sample(image, grid, align_corners=False)


def warped(image: Tensor, theta: Tensor, like: Tensor) -> Tensor:
    """Resample an image (B, 1, ...) to the voxels of `like` by affine maps (B, d, d + 1)."""
    return sample(image, F.affine_grid(theta, list(like.shape), align_corners=False))


def centre_of_mass(x: Tensor) -> Tensor:
    """Return the centre of mass (B, d), the last array axis first, of values (B, 1, ...) >= 0."""
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
    """Return uniform cubic B-splines over an axis, at the centres of `size` voxels: (size, controls), rows sum to 1."""
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
    """Return the B-spline matrix of each axis, from control points (B, d, c, ...) to an array of `shape`."""
    return [bspline_matrix(points.shape[2 + axis], length, like=points.detach()) for axis, length in enumerate(shape)]


def displacement(points: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Return the displacement (B, d, ...)

    of control points (B, d, c, ...): one matrix product for each axis, the smallest first.
    """
    field = points
    for axis in reversed(range(len(matrices))):
        field = (field.movedim(2 + axis, -1) @ matrices[axis].T).movedim(-1, 2 + axis)
    return field
