"""The distortions of the digit experiments (appendix A.4), each for a whole batch on the device in one operation.

A distortion maps uint8 images (N, S, S), of which a batch has those at `indices`, to float32 inputs (B, 1, canvas, canvas)
in 0..1 with background 0. It draws no random numbers of its own: `uniform` (B, draws) in [0, 1) comes from `engine.counter_rng`, so
an input is a function of seed, epoch and index.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from paperbench.engine.counter_rng import normal
from paperbench.stn.grids import Affine, GridGenerator, Projective, ThinPlateSpline, adjugate
from paperbench.stn.sampling import sample

SIDE = 28


class Distortion(ABC):
    """`canvas`: side of the result in pixels. `draws`: random numbers for one image.

    It has two halves. `prepare` makes what is a few numbers an image of the random numbers, on any device: for a GPU on the host,
    where it costs no launches. `apply` makes the images with it.
    """

    canvas: int
    draws: int

    def __call__(self, images: Tensor, indices: Tensor, uniform: Tensor) -> Tensor:
        """Return (B, 1, canvas, canvas) float32; see the module."""
        return self.apply(images, indices, self.prepare(uniform))

    def prepare(self, uniform: Tensor) -> Tensor:
        """Return what `apply` takes, (B, ...), of `uniform` (B, draws) and on its device; here `uniform` itself."""
        return uniform

    @abstractmethod
    def apply(self, images: Tensor, indices: Tensor, prepared: Tensor) -> Tensor:
        """Return (B, 1, canvas, canvas) float32 of images (N, S, S), indices (B,) and what `prepare` gave, on one device."""

    def to(self, device: torch.device) -> Distortion:
        """Return the same distortion, its constants on `device`."""
        return self


class Identity(Distortion):
    """No distortion."""

    canvas = SIDE
    draws = 0

    def apply(self, images: Tensor, indices: Tensor, prepared: Tensor) -> Tensor:
        return _select(images, indices)


class Warp(Distortion):
    """A distortion that is one resampling. Subclasses give the parameters of its grid, which maps output to input positions."""

    def __init__(self, grid: GridGenerator, canvas: int) -> None:
        self.grid = grid
        self.canvas = canvas

    def to(self, device: torch.device) -> Distortion:
        self.grid.to(device)
        return self

    @abstractmethod
    def parameters(self, uniform: Tensor) -> Tensor:
        """Return parameters (B, P) of the grid."""

    def prepare(self, uniform: Tensor) -> Tensor:
        return self.parameters(uniform)

    def apply(self, images: Tensor, indices: Tensor, prepared: Tensor) -> Tensor:
        return sample(_select(images, indices), self.grid(prepared))


class Rotation(Warp):
    """R: rotated by -90 to 90 degrees."""

    draws = 1

    def __init__(self) -> None:
        super().__init__(Affine((SIDE, SIDE)), SIDE)

    def parameters(self, uniform: Tensor) -> Tensor:
        angle = math.pi * (uniform[:, 0] - 0.5)
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        return torch.stack([cosine, sine, zero, -sine, cosine, zero], dim=1)


class RotationScaleTranslation(Warp):
    """RTS: rotated by -45 to 45 degrees, scaled by 0.7 to 1.2, anywhere on 42x42.

    The position is uniform over those at which the scaled digit's square, before rotation, lies on the canvas.
    """

    draws = 4

    def __init__(self, canvas: int = 42) -> None:
        super().__init__(Affine((canvas, canvas)), canvas)

    def parameters(self, uniform: Tensor) -> Tensor:
        angle, scale = 0.5 * math.pi * (uniform[:, 0] - 0.5), _uniform_between(uniform[:, 1], 0.7, 1.2)
        # Largest distance of the digit's centre from the middle, in halves of the canvas.
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

    Corners moved that far fold the square over, flatten it, or push the digit off the canvas, of which the paper says nothing.
    Here a digit stays whole: all four corners are drawn again where the triangle at one has less than `MIN_AREA` of its area, or
    the box around the digit's ink would leave the canvas. After `ATTEMPTS` draws the one that reaches out the least is taken, and
    if all are too flat, the corners are not moved.
    """

    deviation = 5.0
    MIN_AREA = 0.5
    ATTEMPTS: int = 8
    draws = 1 + 8 * ATTEMPTS

    def __init__(self) -> None:
        super().__init__(Projective((SIDE, SIDE)), SIDE)
        self._corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])

    def to(self, device: torch.device) -> Distortion:
        self._corners = self._corners.to(device)
        return super().to(device)

    def parameters(self, uniform: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Return parameters (B, 8) of the grid, for digits whose ink is within `boxes` (B, 4), by default anywhere."""
        anywhere = uniform.new_tensor([-1.0, -1.0, 1.0, 1.0]).expand(len(uniform), 4)
        return quadrilateral_to_square(self.corners(uniform, anywhere if boxes is None else boxes))

    def prepare(self, uniform: Tensor) -> Tensor:
        return uniform  # the corners depend on the ink of the images

    def apply(self, images: Tensor, indices: Tensor, prepared: Tensor) -> Tensor:
        chosen = _select(images, indices)
        return sample(chosen, self.grid(self.parameters(prepared, ink_boxes(chosen))))

    def corners(self, uniform: Tensor, boxes: Tensor) -> Tensor:
        """Return the moved corners (B, 4, 2), normalised, from the upper left one clockwise, for ink within `boxes` (B, 4)."""
        scaled = _uniform_between(uniform[:, :1, None], 0.75, 1.0) * self._corners
        shifts = normal(uniform[:, 1:].view(-1, self.ATTEMPTS, 8)).unflatten(2, (4, 2)) * (2 * self.deviation / SIDE)
        attempts = scaled[:, None] + shifts
        flat = (_corner_areas(attempts) <= self.MIN_AREA * _corner_areas(scaled)[:, None]).any(2)
        outside = self._reach(attempts, boxes).sub_(1).clamp_(min=0).masked_fill_(flat, math.inf)
        whole, least = outside == 0, outside.argmin(1, keepdim=True)
        taken = torch.where(whole.any(1, keepdim=True), whole.to(torch.uint8).argmax(1, keepdim=True), least)
        moved = attempts.take_along_dim(taken[..., None, None], dim=1)[:, 0]
        return torch.where(flat.all(1)[:, None, None], scaled, moved)

    @staticmethod
    def _reach(attempts: Tensor, boxes: Tensor) -> Tensor:
        """Return the largest coordinate, in absolute value, of the boxes in each of the quadrilaterals `attempts`, (B, A).

        It means nothing for a quadrilateral that is not convex.
        """
        x1, y1, x2, y2 = ((boxes + 1) / 2)[:, None].unbind(2)
        matrices = unit_square_to_quadrilateral(attempts.flatten(0, 1)).unflatten(0, attempts.shape[:2])
        points = torch.stack([torch.stack([x, y, torch.ones_like(x)], 2) for x in (x1, x2) for y in (y1, y2)], dim=3)
        mapped = matrices @ points
        return (mapped[:, :, :2] / mapped[:, :, 2:]).abs().amax((2, 3))


class Elastic(Warp):
    """E: scaled by 0.75 to 1, then 4x4 control points of a thin plate spline moved by a normal 1.5 pixels each."""

    draws = 33
    deviation = 1.5

    def __init__(self) -> None:
        super().__init__(ThinPlateSpline((SIDE, SIDE)), SIDE)
        self._control = self.grid.identity()
        """On the host, where the parameters of inputs for a GPU are made too."""

    def parameters(self, uniform: Tensor) -> Tensor:
        scale = _uniform_between(uniform[:, :1], 0.75, 1.0)
        shifts = normal(uniform[:, 1:]) * (2 * self.deviation / SIDE)
        return (self._control.to(uniform.device) + shifts) / scale


class TranslationClutter(Distortion):
    """TC: the digit anywhere on black, and square patches of other images added around it, clamped at white.

    60x60 with six 6x6 patches for classification; 84x84 with 16, or none (T), for co-localisation (A.2). Positions are whole
    pixels; a patch may come from anywhere in any image.
    """

    def __init__(self, canvas: int = 60, *, patches: int = 6, patch: int = 6) -> None:
        self.canvas = canvas
        self.patches = patches
        self.patch = patch
        self.draws = 2 + 5 * patches

    def apply(self, images: Tensor, indices: Tensor, prepared: Tensor) -> Tensor:
        uniform = prepared
        canvas = torch.zeros(len(indices), self.canvas * self.canvas, dtype=torch.int32, device=images.device)
        digits = images.index_select(0, indices).flatten(1).to(torch.int32)
        left, top = self.corners(uniform).unbind(1)
        canvas.scatter_add_(1, self._positions(left, top, SIDE), digits)
        if self.patches:
            target, values = self._clutter(images, uniform[:, 2:].view(-1, self.patches, 5))
            canvas.scatter_add_(1, target.flatten(1), values.flatten(1))
        # Integers: the sum does not depend on the order in which a GPU adds them.
        return canvas.clamp_(max=255).view(-1, 1, self.canvas, self.canvas).float().div_(255)

    def corners(self, uniform: Tensor) -> Tensor:
        """Return x and y of the digit's upper left corner in pixels, (B, 2) int64."""
        return _random_integers(uniform[:, :2], self.canvas - SIDE + 1)

    def boxes(self, uniform: Tensor) -> Tensor:
        """Return normalised x1, y1, x2, y2 of the digit's square, (B, 4)."""
        low = self.corners(uniform).float()
        return torch.cat([low, low + SIDE], dim=1) * (2 / self.canvas) - 1

    def _clutter(self, images: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions on the canvas and values of the patches, (B, patches, patch * patch) each."""
        source = _random_integers(uniform[..., 0], len(images))
        from_x, from_y = (_random_integers(uniform[..., k], SIDE - self.patch + 1) for k in (1, 2))
        to_x, to_y = (_random_integers(uniform[..., k], self.canvas - self.patch + 1) for k in (3, 4))
        inside = _square_offsets(self.patch, SIDE, images.device)
        values = images.view(-1)[(source * SIDE * SIDE + from_y * SIDE + from_x)[..., None] + inside]
        return self._positions(to_x, to_y, self.patch), values.to(torch.int32)

    def _positions(self, left: Tensor, top: Tensor, side: int) -> Tensor:
        """Return positions in the flat canvas of squares with these upper left corners, (..., side * side)."""
        return (top * self.canvas + left)[..., None] + _square_offsets(side, self.canvas, left.device)


def make_distortion(name: str) -> Distortion:
    """Build the distortion called `none`, `r`, `rts`, `p`, `e` or `tc`."""
    return {
        "none": Identity,
        "r": Rotation,
        "rts": RotationScaleTranslation,
        "p": Perspective,
        "e": Elastic,
        "tc": TranslationClutter,
    }[name]()


def _select(images: Tensor, indices: Tensor) -> Tensor:
    """Return the images at `indices`, (B, 1, S, S) float32 in 0..1."""
    # index_select copies whole images; indexing would copy pixel by pixel.
    return images.index_select(0, indices).unsqueeze(1).float().div_(255)


def _uniform_between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def _random_integers(uniform: Tensor, count: int) -> Tensor:
    """Return integers in 0..count-1; the clamp guards against rounding of u * count to count."""
    return (uniform * count).long().clamp_(max=count - 1)


def _square_offsets(side: int, width: int, device: torch.device) -> Tensor:
    """Return offsets (side * side,) of a square's pixels in rows of `width`."""
    line = torch.arange(side, device=device)
    return (line[:, None] * width + line).flatten()


def ink_boxes(images: Tensor) -> Tensor:
    """Return x1, y1, x2, y2 of the smallest box around the ink of each image (B, 1, S, S), normalised, (B, 4).

    That of an image without ink is the whole image.
    """
    ink = images[:, 0] > 0
    sides = []
    for along in (ink.any(1), ink.any(2)):
        marked = along.to(torch.uint8)
        sides.append((marked.argmax(1), images.shape[-1] - marked.flip(1).argmax(1)))
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], dim=1) * (2 / images.shape[-1]) - 1


def unit_square_to_quadrilateral(corners: Tensor) -> Tensor:
    """Return matrices (B, 3, 3) of the homographies that map the square from 0 to 1 to the quadrilaterals (B, 4, 2).

    Corners run from the upper left one clockwise. In closed form (Heckbert 1989, section 2.2.3).
    """
    a, b, c, d = corners.unbind(1)
    right, lower, twist = b - c, d - c, a - b + c - d
    whole, g, h = (part[:, None] for part in (_cross(right, lower), _cross(twist, lower), _cross(right, twist)))
    return torch.stack(
        [
            torch.cat([whole * (b - a) + g * b, g], dim=1),
            torch.cat([whole * (d - a) + h * d, h], dim=1),
            torch.cat([whole * a, whole], dim=1),
        ],
        dim=2,
    )


def quadrilateral_to_square(corners: Tensor) -> Tensor:
    """Return parameters (B, 8) of the homographies that map the quadrilaterals (B, 4, 2) to the square from -1 to 1.

    Corners run from the upper left one clockwise.
    """
    to_unit = adjugate(unit_square_to_quadrilateral(corners))
    return Projective.from_matrices(torch.cat([2 * to_unit[:, :2] - to_unit[:, 2:], to_unit[:, 2:]], dim=1))


def _corner_areas(corners: Tensor) -> Tensor:
    """Return (..., 4), twice the signed area of the triangle at each corner (..., 4, 2); positive if convex and clockwise."""
    before, after = corners - corners.roll(1, -2), corners.roll(-1, -2) - corners
    return before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
