"""The two base classes of grid generators: any, and those whose positions are linear in some coefficients."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from paperbench.engine.precision import full_precision
from paperbench.stn.layers import FullPrecision, at_least_float32
from paperbench.stn.sampling import pixel_points


class GridGenerator(FullPrecision, ABC):
    """A family of transformations with `count` parameters each, on an output of `size` = (H, W).

    Grids are computed in float32, or in the higher precision of their parameters.
    """

    name: str
    count: int
    """Parameters of one transformation, P."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    @abstractmethod
    def identity(self) -> Tensor:
        """Return (P,) parameters of the identity."""

    @abstractmethod
    def map_points(self, theta: Tensor, points: Tensor) -> Tensor:
        """Return (B, N, 2), where the transformations `theta` (B, P) send the output positions `points` (N, 2)."""

    @abstractmethod
    def forward(self, theta: Tensor) -> Tensor:
        """Return the sampling grids (B, H, W, 2) of `theta` (B, P)."""

    def _register_constant(self, name: str, values: Tensor) -> None:
        """Register a constant that moves with the module and is no part of its state.

        It is contiguous: NCCL sends no other tensor between ranks.
        """
        self.register_buffer(name, values.to(torch.get_default_dtype()).contiguous(), persistent=False)


class LinearGrid(GridGenerator):
    """Transformations whose positions are linear in some coefficients: one matrix product gives the grids of a batch.

    Subclasses give `basis` (N, 2) -> (K, N) and `coefficients` (B, P) -> (B, 2, K); positions are their product.
    """

    constant: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self._register_constant("constant", self.basis(pixel_points(*size)))

    @abstractmethod
    def coefficients(self, theta: Tensor) -> Tensor:
        """Return (B, 2, K) of `theta` (B, P): a row for x and one for y."""

    def basis(self, points: Tensor) -> Tensor:
        """Return (K, N) basis functions at `points` (N, 2); here x, y and 1."""
        return torch.cat([points, torch.ones_like(points[:, :1])], dim=1).t()

    def map_points(self, theta: Tensor, points: Tensor) -> Tensor:
        theta = at_least_float32(theta)
        with full_precision(theta.device):
            return (self.coefficients(theta) @ self.basis(points).to(theta)).transpose(1, 2)

    def forward(self, theta: Tensor) -> Tensor:
        rows = self.coefficients(at_least_float32(theta)).flatten(0, 1)
        # One product for the whole batch is far faster than B small ones; the sampler reads planes of x and y directly.
        with full_precision(theta.device):
            planes = (rows @ self.constant.to(rows.dtype)).view(-1, 2, *self.size)
        return planes.permute(0, 2, 3, 1)
