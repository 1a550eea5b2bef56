"""The affine transformation in three dimensions (section 5 and appendix A.3): grids on volumes (B, C, D, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paperbench.stn.geometry import pixel_centres


class Affine3d(nn.Module):
    """Twelve parameters, the rows of a 3x4 matrix over x, y, z and 1. Output of `size` = (D, H, W)."""

    name = "affine3d"
    count = 12
    constant: Tensor

    def __init__(self, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        z, y, x = torch.meshgrid(*(pixel_centres(count) for count in size), indexing="ij")
        lifted = torch.stack([x.flatten(), y.flatten(), z.flatten(), torch.ones_like(x).flatten()])
        self.register_buffer("constant", lifted.to(torch.get_default_dtype()), persistent=False)

    def identity(self) -> Tensor:
        """(12,) parameters that leave the input as it is."""
        return torch.eye(3, 4).flatten()

    def forward(self, theta: Tensor) -> Tensor:
        """(B, D, H, W, 3) sampling grid, x before y before z, of `theta` (B, 12)."""
        planes = theta.reshape(-1, 4) @ self.constant.to(theta.dtype)
        return planes.view(-1, 3, *self.size).permute(0, 2, 3, 4, 1)

    def inverse(self, theta: Tensor) -> Tensor:
        """Parameters of the inverse. Raises torch's LinAlgError where there is none."""
        matrices = theta.view(-1, 3, 4)
        turned = torch.linalg.inv(matrices[:, :, :3])
        return torch.cat([turned, -turned @ matrices[:, :, 3:]], dim=2).flatten(1)
