"""Grid generators: from the parameters of a transformation to the position that each output pixel is sampled from.

Section 3.2. Each is a small module with its output size and its constants; `forward` maps parameters (B, P) to a grid
(B, H, W, 2), x before y. Parameters of `identity` return the input as it is. Where a transformation has an inverse of its own
kind, `inverse` gives its parameters; the thin plate spline has none. `make_grid` builds one by name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paperbench.engine.precision import full_precision
from paperbench.stn.grid_generators import GridGenerator as GridGenerator
from paperbench.stn.grid_generators import LinearGrid as LinearGrid
from paperbench.stn.layers import FullPrecision, at_least_float32
from paperbench.stn.sampling import pixel_centres, pixel_points
from paperbench.stn.tps import ThinPlateSpline as ThinPlateSpline


class Affine(LinearGrid):
    """Six parameters, the rows of a 2x3 matrix (equation 1)."""

    name = "affine"
    count = 6

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])

    def coefficients(self, theta: Tensor) -> Tensor:
        return theta.view(-1, 2, 3)

    def inverse(self, theta: Tensor) -> Tensor:
        """Return the parameters of the inverse; not finite where there is none."""
        a, b, x, c, d, y = theta.unbind(1)
        determinant = a * d - b * c
        rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
        return torch.stack(rows, dim=1) / determinant[:, None]


class Similarity(LinearGrid):
    """Four parameters a, b, x, y: the matrix [[a, -b], [b, a]] rotates and scales, then x, y shifts."""

    name = "similarity"
    count = 4

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0])

    def coefficients(self, theta: Tensor) -> Tensor:
        a, b, x, y = theta.unbind(1)
        return torch.stack([a, -b, x, b, a, y], dim=1).view(-1, 2, 3)

    def inverse(self, theta: Tensor) -> Tensor:
        """Return the parameters of the inverse; not finite where there is none."""
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
        """Return the parameters of the inverse; not finite where there is none."""
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
        """Return the window in the middle: with a fixed scale below 1 there is no identity."""
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
        self._register_constant("homogeneous", self._homogeneous(pixel_points(*size)))

    @staticmethod
    def _homogeneous(points: Tensor) -> Tensor:
        return torch.cat([points, torch.ones_like(points[:, :1])], dim=1).t()

    def identity(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])

    @staticmethod
    def matrices(theta: Tensor) -> Tensor:
        """Return the homographies (B, 3, 3) of `theta` (B, 8)."""
        return torch.cat([theta, torch.ones_like(theta[:, :1])], dim=1).view(-1, 3, 3)

    @staticmethod
    def from_matrices(matrices: Tensor) -> Tensor:
        """Return the parameters (B, 8) of homographies (B, 3, 3) that do not send the centre to infinity."""
        flat = matrices.flatten(1)
        return flat[:, :8] / flat[:, 8:]

    def map_points(self, theta: Tensor, points: Tensor) -> Tensor:
        theta = at_least_float32(theta)
        return self._planes(theta, self._homogeneous(points).to(theta)).transpose(1, 2)

    def forward(self, theta: Tensor) -> Tensor:
        theta = at_least_float32(theta)
        planes = self._planes(theta, self.homogeneous.to(theta.dtype))
        return planes.view(-1, 2, *self.size).permute(0, 2, 3, 1)

    def _planes(self, theta: Tensor, homogeneous: Tensor) -> Tensor:
        """Return positions (B, 2, N) of points (3, N)."""
        with full_precision(theta.device):
            rows = self.matrices(theta).flatten(0, 1) @ homogeneous
        position = rows.view(-1, 3, homogeneous.shape[1])
        return position[:, :2] / position[:, 2:].clamp_min(self.NEAREST)

    def inverse(self, theta: Tensor) -> Tensor:
        """Return the parameters of the inverse, from the adjugate; not finite where there is none."""
        return self.from_matrices(adjugate(self.matrices(theta)))


def adjugate(matrices: Tensor) -> Tensor:
    """Return the inverse of each matrix (B, 3, 3) times its determinant."""
    a, b, c = matrices.unbind(1)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=2)


class Affine3d(FullPrecision):
    """The affine transformation of volumes (B, C, D, H, W), section 5 and appendix A.3; the output has `size` = (D, H, W).

    Twelve parameters, the rows of a 3x4 matrix over x, y, z and 1.
    """

    name = "affine3d"
    count = 12
    constant: Tensor

    def __init__(self, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        z, y, x = torch.meshgrid(*(pixel_centres(count) for count in size), indexing="ij")
        points = torch.stack([x.flatten(), y.flatten(), z.flatten(), torch.ones_like(x).flatten()])
        self.register_buffer("constant", points.to(torch.get_default_dtype()), persistent=False)

    def identity(self) -> Tensor:
        """Return (12,) parameters of the identity."""
        return torch.eye(3, 4).flatten()

    def forward(self, theta: Tensor) -> Tensor:
        """Return the sampling grids (B, D, H, W, 3), x before y before z, of `theta` (B, 12)."""
        theta = at_least_float32(theta)
        with full_precision(theta.device):
            planes = theta.reshape(-1, 4) @ self.constant.to(theta.dtype)
        return planes.view(-1, 3, *self.size).permute(0, 2, 3, 4, 1)

    def inverse(self, theta: Tensor) -> Tensor:
        """Return the parameters of the inverse. Raises torch's LinAlgError where there is none."""
        matrices = theta.view(-1, 3, 4)
        linear = torch.linalg.inv(matrices[:, :, :3])
        return torch.cat([linear, -linear @ matrices[:, :, 3:]], dim=2).flatten(1)


_GENERATORS = {generator.name: generator for generator in (Affine, Attention, Similarity, Projective)}


def make_grid(transform: str, size: tuple[int, int], *, control_points: int = 4) -> GridGenerator:
    """Build the grid generator called `affine`, `attention`, `similarity`, `projective` or `tps`."""
    if transform == ThinPlateSpline.name:
        return ThinPlateSpline(size, control_points=control_points)
    return _GENERATORS[transform](size)
