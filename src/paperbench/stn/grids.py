"""Grid generators: from the parameters of a transformation to the position that each output pixel is sampled from.

Section 3.2. Each is a small module with its output size and its constants; `forward` maps parameters (B, P) to a grid
(B, H, W, 2), x before y. Parameters of `identity` return the input as it is. Where a transformation has an inverse of its own
kind, `inverse` gives its parameters; the spline in `tps.py` has none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from paperbench.stn.geometry import pixel_points


class GridGenerator(nn.Module, ABC):
    """A family of transformations with `parameters` numbers each, on an output of `size` = (H, W)."""

    name: str
    count: int
    """Parameters of one transformation, P."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    @abstractmethod
    def identity(self) -> Tensor:
        """(P,) parameters that leave the input as it is."""

    @abstractmethod
    def map_points(self, theta: Tensor, points: Tensor) -> Tensor:
        """(B, N, 2) where the transformations `theta` (B, P) send the output positions `points` (N, 2)."""

    @abstractmethod
    def forward(self, theta: Tensor) -> Tensor:
        """(B, H, W, 2) sampling grid of `theta` (B, P)."""

    def _constant(self, name: str, values: Tensor) -> None:
        """A constant that moves with the module and is no part of its state."""
        self.register_buffer(name, values.to(torch.get_default_dtype()), persistent=False)


class LinearGrid(GridGenerator):
    """Transformations whose positions are linear in some coefficients: one matrix product makes the grids of a batch.

    Subclasses give `basis` (N, 2) -> (K, N) and `coefficients` (B, P) -> (B, 2, K); positions are their product.
    """

    constant: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self._constant("constant", self.basis(pixel_points(*size)))

    @abstractmethod
    def coefficients(self, theta: Tensor) -> Tensor:
        """(B, 2, K) of `theta` (B, P): a row for x and one for y."""

    def basis(self, points: Tensor) -> Tensor:
        """(K, N) functions at `points` (N, 2); here x, y and 1."""
        return torch.cat([points, torch.ones_like(points[:, :1])], dim=1).t()

    def map_points(self, theta: Tensor, points: Tensor) -> Tensor:
        return (self.coefficients(theta) @ self.basis(points).to(theta)).transpose(1, 2)

    def forward(self, theta: Tensor) -> Tensor:
        rows = self.coefficients(theta).flatten(0, 1)
        # One product for the whole batch, far ahead of B small ones; the sampler reads planes of x and y as they are.
        planes = (rows @ self.constant.to(rows.dtype)).view(-1, 2, *self.size)
        return planes.permute(0, 2, 3, 1)


class Affine(LinearGrid):
    """Six parameters, the rows of a 2x3 matrix (equation 1)."""

    name = "affine"
    count = 6

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])

    def coefficients(self, theta: Tensor) -> Tensor:
        return theta.view(-1, 2, 3)

    def inverse(self, theta: Tensor) -> Tensor:
        """Parameters of the inverse; not finite where there is none."""
        a, b, x, c, d, y = theta.unbind(1)
        determinant = a * d - b * c
        rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
        return torch.stack(rows, dim=1) / determinant[:, None]


class Similarity(LinearGrid):
    """Four parameters a, b, x, y: the matrix [[a, -b], [b, a]] turns and scales, then x, y shifts."""

    name = "similarity"
    count = 4

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0])

    def coefficients(self, theta: Tensor) -> Tensor:
        a, b, x, y = theta.unbind(1)
        return torch.stack([a, -b, x, b, a, y], dim=1).view(-1, 2, 3)

    def inverse(self, theta: Tensor) -> Tensor:
        """Parameters of the inverse; not finite where there is none."""
        a, b, x, y = theta.unbind(1)
        squared = a * a + b * b
        return torch.stack([a, -b, -(a * x + b * y), b * x - a * y], dim=1) / squared[:, None]


class Attention(LinearGrid):
    """Three parameters s, x, y: a window of the input's shape, s times its size, centred at x, y (equation 2)."""

    name = "attention"
    count = 3

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0])

    def coefficients(self, theta: Tensor) -> Tensor:
        s, x, y = theta.unbind(1)
        zero = torch.zeros_like(s)
        return torch.stack([s, zero, x, zero, s, y], dim=1).view(-1, 2, 3)

    def inverse(self, theta: Tensor) -> Tensor:
        """Parameters of the inverse; not finite where there is none."""
        s, x, y = theta.unbind(1)
        return torch.stack([torch.ones_like(s), -x, -y], dim=1) / s[:, None]


class Window(LinearGrid):
    """Two parameters x, y: attention with a fixed scale, as for the birds (appendix A.6: half the side)."""

    name = "window"
    count = 2

    def __init__(self, size: tuple[int, int], *, scale: float = 0.5) -> None:
        super().__init__(size)
        self.scale = scale

    def identity(self) -> Tensor:
        """The window in the middle: with a fixed scale below 1 no parameters leave the input as it is."""
        return torch.zeros(2)

    def coefficients(self, theta: Tensor) -> Tensor:
        x, y = theta.unbind(1)
        zero, s = torch.zeros_like(x), torch.full_like(x, self.scale)
        return torch.stack([s, zero, x, zero, s, y], dim=1).view(-1, 2, 3)


class Projective(GridGenerator):
    """Eight parameters, a homography row by row with its last entry 1.

    Positions at or behind the horizon, where the third coordinate is below `NEAREST`, are sent far outside the image.
    """

    name = "projective"
    count = 8
    NEAREST = 1e-3
    homogeneous: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self._constant("homogeneous", self._lifted(pixel_points(*size)))

    @staticmethod
    def _lifted(points: Tensor) -> Tensor:
        return torch.cat([points, torch.ones_like(points[:, :1])], dim=1).t()

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])

    @staticmethod
    def matrices(theta: Tensor) -> Tensor:
        """(B, 3, 3) homographies of `theta` (B, 8)."""
        return torch.cat([theta, torch.ones_like(theta[:, :1])], dim=1).view(-1, 3, 3)

    @staticmethod
    def parameters_of(matrices: Tensor) -> Tensor:
        """(B, 8) of homographies (B, 3, 3) that do not send the centre to infinity."""
        flat = matrices.flatten(1)
        return flat[:, :8] / flat[:, 8:]

    def map_points(self, theta: Tensor, points: Tensor) -> Tensor:
        return self._planes(theta, self._lifted(points).to(theta)).transpose(1, 2)

    def forward(self, theta: Tensor) -> Tensor:
        planes = self._planes(theta, self.homogeneous.to(theta.dtype))
        return planes.view(-1, 2, *self.size).permute(0, 2, 3, 1)

    def _planes(self, theta: Tensor, homogeneous: Tensor) -> Tensor:
        """(B, 2, N) positions of (3, N) points."""
        rows = self.matrices(theta).flatten(0, 1) @ homogeneous
        position = rows.view(-1, 3, homogeneous.shape[1])
        return position[:, :2] / position[:, 2:].clamp_min(self.NEAREST)

    def inverse(self, theta: Tensor) -> Tensor:
        """Parameters of the inverse, from the adjugate; not finite where there is none."""
        return self.parameters_of(adjugate(self.matrices(theta)))


def adjugate(matrices: Tensor) -> Tensor:
    """(B, 3, 3): the inverse of each matrix times its determinant."""
    a, b, c = matrices.unbind(1)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=2)
