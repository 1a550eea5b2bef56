"""Linear classifiers and linear box regression on the features of regions, fitted once the net is trained.

Both are buffers of the detector, so that a checkpoint holds them.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class LinearScores(nn.Module):
    """One linear classifier a class: margins of (N, D) features; `scale` multiplies the features first."""

    weight: Tensor
    bias: Tensor
    scale: Tensor

    def __init__(self, *, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(classes, features))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("scale", torch.ones(()))

    def set(self, weight: NDArray[np.floating], bias: NDArray[np.floating], scale: float) -> None:
        """weight (C, D), bias (C)."""
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(bias))
        self.scale.fill_(scale)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> margins (N, C), float32."""
        return nn.functional.linear(features.flatten(1).float() * self.scale, self.weight, self.bias)


class LinearBoxes(nn.Module):
    """One linear regression of `(tx, ty, tw, th)` a class from pooled features (R-CNN, appendix C)."""

    weight: Tensor
    bias: Tensor
    scale: Tensor

    def __init__(self, *, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(classes, 4, features))
        self.register_buffer("bias", torch.zeros(classes, 4))
        self.register_buffer("scale", torch.ones(()))

    def set(self, weight: NDArray[np.floating], bias: NDArray[np.floating], scale: float) -> None:
        """weight (C, 4, D), bias (C, 4)."""
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(bias))
        self.scale.fill_(scale)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, D) -> (N, C + 1, 4), float32; the background's are 0."""
        rows = pooled.flatten(1).float() * self.scale
        flat = cast(Tensor, self.weight).flatten(0, 1)
        deltas = nn.functional.linear(rows, flat, self.bias.flatten()).view(len(rows), len(self.bias), 4)
        return nn.functional.pad(deltas, (0, 0, 1, 0))
