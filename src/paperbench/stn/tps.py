"""The thin plate spline, a grid generator with control points (section 3.2 and appendix A.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from paperbench.stn.grid_generators import LinearGrid


class ThinPlateSpline(LinearGrid):
    """2 * n^2 parameters: the targets of a regular n x n grid of control points, all x before all y.

    Section 3.2 and appendix A.4; Bookstein 1989. The spline through all targets bends least: f(p) = a0 + A p + sum_k w_k U(|p -
    c_k|) with U(r) = r^2 log r^2 and weights that are orthogonal to 1, x and y. It is linear in its targets, so that all that is
    constant becomes one matrix, computed once in double precision. The outermost control points lie on the edges of the image, at
    -1 and 1.
    """

    name = "tps"

    def __init__(self, size: tuple[int, int], *, control_points: int = 4) -> None:
        if control_points < 2:
            raise ValueError(f"control_points is {control_points}; a spline in the plane needs 2 a side at least")
        line = torch.linspace(-1, 1, control_points, dtype=torch.float64)
        y, x = torch.meshgrid(line, line, indexing="ij")
        self.control = torch.stack([x.flatten(), y.flatten()], dim=1)
        """(n^2, 2) float64 control points, row by row."""
        self.count = 2 * len(self.control)
        self._solver = _spline_solver(self.control)
        super().__init__(size)

    def identity(self) -> Tensor:
        return self.control.t().flatten().to(torch.get_default_dtype())

    def coefficients(self, theta: Tensor) -> Tensor:
        return theta.view(-1, 2, len(self.control))

    def basis(self, points: Tensor) -> Tensor:
        """Return (n^2, N): the share of each target in the position of each point."""
        points = points.to("cpu", torch.float64)
        features = torch.cat([_spline_kernel(points, self.control), torch.ones(len(points), 1).double(), points], dim=1)
        return (features @ self._solver).t()

    def spline(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the affine part (B, 3, 2), rows 1, x, y, and the kernel weights (B, n^2, 2), in float64 on the CPU."""
        targets = self.coefficients(theta).to("cpu", torch.float64).transpose(1, 2)
        solution = self._solver @ targets
        return solution[:, len(self.control) :], solution[:, : len(self.control)]


def _spline_kernel(points: Tensor, control: Tensor) -> Tensor:
    """Return U of the distances, (N, K); U(0) = 0."""
    squared = (points[:, None] - control[None]).square().sum(2)
    return torch.xlogy(squared, squared)


def _spline_solver(control: Tensor) -> Tensor:
    """Return the matrix (K + 3, K) from targets to kernel weights and affine part: left columns of the inverse of Bookstein's L."""
    count = len(control)
    affine = torch.cat([torch.ones(count, 1).double(), control], dim=1)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count, :count] = _spline_kernel(control, control)
    system[:count, count:] = affine
    system[count:, :count] = affine.t()
    return torch.linalg.inv(system)[:, :count]
