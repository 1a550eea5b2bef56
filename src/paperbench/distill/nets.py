"""Students and teachers: nets from flat images to logits.

B images, D = C * H * W pixels, K classes: (B, D) -> (B, K). Stacked nets (`engine.stacked_layers`) take and give an S before B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """`trunk`, then `head`: (B, D) -> (B, K).

    max_norm: largest Euclidean norm of the weights into one hidden or output unit; 0 sets none (Srivastava et al. 2014,
    section 5.1). The constraint is kept by scaling down, before they are next used, the weights that a step took beyond it.
    """

    def __init__(self, trunk: nn.Sequential, head: nn.Linear, *, max_norm: float = 0.0) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.max_norm = max_norm

    def forward(self, x: Tensor) -> Tensor:
        if self.max_norm > 0:
            self.constrain()
        return self.head(self.trunk(x))

    @torch.no_grad()
    def constrain(self) -> None:
        """Scales weights down where their norm is too large; a second call changes nothing."""
        for weight in self.parameters():
            if weight.ndim > 1:
                norms = weight.flatten(1).norm(dim=1)
                # A trace below the limit, so that rounding does not leave a unit just above it.
                factors = torch.where(norms > self.max_norm, self.max_norm * (1 - 1e-6) / norms, 1.0)
                weight.mul_(factors.view(-1, *[1] * (weight.ndim - 1)))


def mlp(
    *,
    inputs: int,
    classes: int,
    widths: Sequence[int],
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    max_norm: float = 0.0,
) -> Net:
    """Fully connected hidden layers of ReLUs (section 3)."""
    layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        inputs = width
    return _initialised(Net(nn.Sequential(*layers), nn.Linear(inputs, classes), max_norm=max_norm))


def convnet(
    *,
    size: Sequence[int],
    classes: int,
    width: int,
    blocks: int,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    max_norm: float = 0.0,
) -> Net:
    """For pictures: each block is a 3x3 convolution, batch normalisation, ReLU and 2x2 max pooling.

    size: (C, H, W) of an image, which comes in flat. Channels: `width` in the first block, twice as many in each further one.
    Raises ValueError when the image is too small for so many blocks.
    """
    channels, height, width_px = size
    layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
    layers.append(nn.Unflatten(1, (channels, height, width_px)))
    for block in range(blocks):
        out = width << block
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width_px = out, height // 2, width_px // 2
    if min(height, width_px) < 1:
        raise ValueError(f"{blocks} blocks halve an image of {size[1]}x{size[2]} pixels to nothing")
    layers += [nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])]
    return _initialised(
        Net(nn.Sequential(*layers), nn.Linear(channels * height * width_px, classes), max_norm=max_norm)
    )


def _initialised(net: Net) -> Net:
    """He et al. 2015 for what a ReLU follows, a small head, biases of 0."""
    for name, part in net.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            if name == "head":
                nn.init.xavier_uniform_(part.weight)
            else:
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return net


def parameters_in(net: nn.Module) -> int:
    """Number of weights and biases."""
    return sum(parameter.numel() for parameter in net.parameters())
