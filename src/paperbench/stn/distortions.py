"""The distortions of the digit experiments (appendix A.4), each made for a whole batch on the device in one operation.

A distortion turns uint8 images (N, S, S), of which a batch takes those at `indices`, into float32 inputs (B, 1, canvas, canvas)
in 0..1 with background 0. It draws no random numbers of its own: `uniform` (B, draws) in [0, 1) comes from `engine.counter_rng`, so
an input is a function of seed, epoch and index.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from paperbench.engine.counter_rng import normal
from paperbench.stn.grids import Affine, GridGenerator, Projective, adjugate
from paperbench.stn.sampling import sample
from paperbench.stn.tps import ThinPlateSpline

SIDE = 28


class Distortion(ABC):
    """`canvas`: side of the result in pixels. `draws`: random numbers that one image takes."""

    canvas: int
    draws: int

    @abstractmethod
    def __call__(self, images: Tensor, indices: Tensor, uniform: Tensor) -> Tensor:
        """(B, 1, canvas, canvas) float32; see the module."""

    def to(self, device: torch.device) -> Distortion:
        """The same distortion, its constants on `device`."""
        return self


class Undistorted(Distortion):
    """The images as they are."""

    canvas = SIDE
    draws = 0

    def __call__(self, images: Tensor, indices: Tensor, uniform: Tensor) -> Tensor:
        return _taken(images, indices)


class Warp(Distortion):
    """A distortion that is one resampling. Subclasses give the parameters of its grid, which runs from output to input."""

    def __init__(self, grid: GridGenerator, canvas: int) -> None:
        self.grid = grid
        self.canvas = canvas

    def to(self, device: torch.device) -> Distortion:
        self.grid.to(device)
        return self

    @abstractmethod
    def parameters(self, uniform: Tensor) -> Tensor:
        """(B, P) parameters of the grid."""

    def __call__(self, images: Tensor, indices: Tensor, uniform: Tensor) -> Tensor:
        return sample(_taken(images, indices), self.grid(self.parameters(uniform)))


class Rotated(Warp):
    """R: turned by an angle from -90 to 90 degrees."""

    draws = 1

    def __init__(self) -> None:
        super().__init__(Affine((SIDE, SIDE)), SIDE)

    def parameters(self, uniform: Tensor) -> Tensor:
        angle = math.pi * (uniform[:, 0] - 0.5)
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        return torch.stack([cosine, sine, zero, -sine, cosine, zero], dim=1)


class RotatedScaledTranslated(Warp):
    """RTS: turned by -45 to 45 degrees, scaled by 0.7 to 1.2, somewhere on 42x42.

    The place is uniform over those at which the scaled digit's square, before it is turned, lies on the canvas.
    """

    draws = 4

    def __init__(self, canvas: int = 42) -> None:
        super().__init__(Affine((canvas, canvas)), canvas)

    def parameters(self, uniform: Tensor) -> Tensor:
        angle, scale = 0.5 * math.pi * (uniform[:, 0] - 0.5), _between(uniform[:, 1], 0.7, 1.2)
        # In halves of the canvas: how far the digit's centre may leave the middle.
        room = 1 - scale * SIDE / self.canvas
        x, y = (room * (2 * uniform[:, axis] - 1) for axis in (2, 3))
        shrink = self.canvas / SIDE / scale
        cosine, sine = shrink * angle.cos(), shrink * angle.sin()
        return torch.stack(
            [cosine, sine, -(cosine * x + sine * y), -sine, cosine, sine * x - cosine * y],
            dim=1,
        )


class Perspective(Warp):
    """P: scaled by 0.75 to 1, then each corner moved by a normal number of pixels with deviation 5: a homography.

    Corners moved that far may fold the square over or squash it flat, and nothing of the digit is left. The paper's own errors, 0.8
    percent on this set, leave no room for that: where the triangle at a corner is less than `LEAST` of what it was, all four are
    drawn again (9 in 100 images), up to `ATTEMPTS` times, and then left where they are.
    """

    deviation = 5.0
    LEAST = 0.25
    ATTEMPTS = 4
    draws = 1 + 8 * ATTEMPTS

    def __init__(self) -> None:
        super().__init__(Projective((SIDE, SIDE)), SIDE)
        self._corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])

    def to(self, device: torch.device) -> Distortion:
        self._corners = self._corners.to(device)
        return super().to(device)

    def parameters(self, uniform: Tensor) -> Tensor:
        return quadrilateral_to_square(self.moved_corners(uniform))

    def moved_corners(self, uniform: Tensor) -> Tensor:
        """(B, 4, 2) normalised, from the upper left one clockwise."""
        still = _between(uniform[:, :1, None], 0.75, 1.0) * self._corners
        drawn = normal(uniform[:, 1:].view(-1, self.ATTEMPTS, 8)).unflatten(2, (4, 2)) * (2 * self.deviation / SIDE)
        tried = torch.cat([still[:, None] + drawn, still[:, None]], dim=1)
        sound = (_turns(tried) > self.LEAST * _turns(still)[:, None]).all(2)
        sound[:, -1] = True
        first = sound.to(torch.uint8).argmax(1)
        return tried.take_along_dim(first[:, None, None, None], dim=1)[:, 0]


class Elastic(Warp):
    """E: scaled by 0.75 to 1, then 4x4 control points of a thin plate spline moved by a normal 1.5 pixels each."""

    draws = 33
    deviation = 1.5

    def __init__(self) -> None:
        super().__init__(ThinPlateSpline((SIDE, SIDE)), SIDE)
        self._rest = self.grid.identity()

    def to(self, device: torch.device) -> Distortion:
        self._rest = self._rest.to(device)
        return super().to(device)

    def parameters(self, uniform: Tensor) -> Tensor:
        scale = _between(uniform[:, :1], 0.75, 1.0)
        moved = normal(uniform[:, 1:]) * (2 * self.deviation / SIDE)
        return (self._rest + moved) / scale


class Cluttered(Distortion):
    """TC: the digit somewhere on black, and square patches of other images added around it, clamped at white.

    60x60 with six 6x6 patches for classification; 84x84 with 16, or none (T), for co-localisation (A.2). Places are whole
    pixels; a patch may come from anywhere in any image.
    """

    def __init__(self, canvas: int = 60, *, patches: int = 6, patch: int = 6) -> None:
        self.canvas = canvas
        self.patches = patches
        self.patch = patch
        self.draws = 2 + 5 * patches

    def __call__(self, images: Tensor, indices: Tensor, uniform: Tensor) -> Tensor:
        canvas = torch.zeros(len(indices), self.canvas * self.canvas, dtype=torch.int32, device=images.device)
        digits = images.index_select(0, indices).flatten(1).to(torch.int32)
        left, top = self.corners(uniform).unbind(1)
        canvas.scatter_add_(1, self._places(left, top, SIDE), digits)
        if self.patches:
            target, values = self._clutter(images, uniform[:, 2:].view(-1, self.patches, 5))
            canvas.scatter_add_(1, target.flatten(1), values.flatten(1))
        # Sums of whole numbers: the same in whatever order a GPU adds them.
        return canvas.clamp_(max=255).view(-1, 1, self.canvas, self.canvas).float().div_(255)

    def corners(self, uniform: Tensor) -> Tensor:
        """(B, 2) int64 x and y of the digit's upper left corner, in pixels."""
        return _whole(uniform[:, :2], self.canvas - SIDE + 1)

    def boxes(self, uniform: Tensor) -> Tensor:
        """(B, 4) normalised x1, y1, x2, y2 of the digit's square."""
        low = self.corners(uniform).float()
        return torch.cat([low, low + SIDE], dim=1) * (2 / self.canvas) - 1

    def _clutter(self, images: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Places on the canvas and values of the patches, (B, patches, patch * patch) each."""
        source = _whole(uniform[..., 0], len(images))
        from_x, from_y = (_whole(uniform[..., k], SIDE - self.patch + 1) for k in (1, 2))
        to_x, to_y = (_whole(uniform[..., k], self.canvas - self.patch + 1) for k in (3, 4))
        inside = _square(self.patch, SIDE, images.device)
        values = images.view(-1)[(source * SIDE * SIDE + from_y * SIDE + from_x)[..., None] + inside]
        return self._places(to_x, to_y, self.patch), values.to(torch.int32)

    def _places(self, left: Tensor, top: Tensor, side: int) -> Tensor:
        """Positions in the flat canvas of squares with these upper left corners, (..., side * side)."""
        return (top * self.canvas + left)[..., None] + _square(side, self.canvas, left.device)


def make(name: str) -> Distortion:
    """The distortion called `none`, `r`, `rts`, `p`, `e` or `tc`."""
    return {
        "none": Undistorted,
        "r": Rotated,
        "rts": RotatedScaledTranslated,
        "p": Perspective,
        "e": Elastic,
        "tc": Cluttered,
    }[name]()


def _taken(images: Tensor, indices: Tensor) -> Tensor:
    """(B, 1, S, S) float32 in 0..1."""
    # Whole images are copied; indexing would go pixel by pixel.
    return images.index_select(0, indices).unsqueeze(1).float().div_(255)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def _whole(uniform: Tensor, count: int) -> Tensor:
    """Integers in 0..count-1; the minimum guards against rounding of u * count to count."""
    return (uniform * count).long().clamp_(max=count - 1)


def _square(side: int, width: int, device: torch.device) -> Tensor:
    """(side * side,) offsets of a square's pixels in rows of `width`."""
    line = torch.arange(side, device=device)
    return (line[:, None] * width + line).flatten()


def quadrilateral_to_square(corners: Tensor) -> Tensor:
    """(B, 8) parameters of the homographies that take the quadrilaterals (B, 4, 2) to the square from -1 to 1.

    Corners run from the upper left one clockwise. In closed form (Heckbert 1989, section 2.2.3): the map from the unit square to
    the quadrilateral, its adjugate, and from the unit square to ours.
    """
    a, b, c, d = corners.unbind(1)
    right, lower, twist = b - c, d - c, a - b + c - d
    whole, g, h = (part[:, None] for part in (_cross(right, lower), _cross(twist, lower), _cross(right, twist)))
    from_unit = torch.stack(
        [
            torch.cat([whole * (b - a) + g * b, g], dim=1),
            torch.cat([whole * (d - a) + h * d, h], dim=1),
            torch.cat([whole * a, whole], dim=1),
        ],
        dim=2,
    )
    to_unit = adjugate(from_unit)
    return Projective.parameters_of(torch.cat([2 * to_unit[:, :2] - to_unit[:, 2:], to_unit[:, 2:]], dim=1))


def _turns(corners: Tensor) -> Tensor:
    """(..., 4) twice the signed area of the triangle at each corner of (..., 4, 2); all positive if convex and clockwise."""
    before, after = corners - corners.roll(1, -2), corners.roll(-1, -2) - corners
    return before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
