"""A convolution on one channel whose input gradient does not rule the training step of a CPU.

A transformer in front of a convolution needs the gradient for the convolution's input. For one input channel torch's kernels take
most of a whole step over it: they are made for many channels. Here it is one matrix product over the output channels and 2 k
shifted additions; values and gradients are those of `nn.Conv2d`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function


class _OneChannelConvolution(Function):
    """(B, 1, H, W) * (O, 1, k, k) -> (B, O, H - k + 1, W - k + 1), all of one dtype."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, weight = ctx.saved_tensors
        (gradient,) = gradients
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, images, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, True]
        )
        return _input_gradient(gradient, weight), of_weight, of_bias


def _input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """(B, 1, H, W) from (B, O, h, w): what each tap passes back, moved to where the tap looked."""
    batch, channels, height, width = gradient.shape
    rows, columns = weight.shape[2:]
    pixels = gradient.permute(0, 2, 3, 1).reshape(-1, channels)
    taps = (weight.flatten(1).t() @ pixels.t()).view(rows, columns, batch, height, width)
    # Columns first, for all rows of taps at once: k + k large additions, not k * k small ones. Many taps add up to one value,
    # so in float32 at least.
    kind = torch.promote_types(gradient.dtype, torch.float32)
    across = gradient.new_zeros((rows, batch, height, width + columns - 1), dtype=kind)
    for column in range(columns):
        across[..., column : column + width] += taps[:, column]
    total = gradient.new_zeros((batch, height + rows - 1, width + columns - 1), dtype=kind)
    for row in range(rows):
        total[:, row : row + height] += across[row]
    return total.unsqueeze(1).to(gradient.dtype)


class OneChannelConv2d(nn.Conv2d):
    """`nn.Conv2d(1, out_channels, kernel_size)` with stride 1 and no padding; parameters and results are the same."""

    def __init__(self, out_channels: int, kernel_size: int) -> None:
        super().__init__(1, out_channels, kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and input.requires_grad and input.device.type == "cpu"):
            return super().forward(input)
        assert self.bias is not None
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        return _OneChannelConvolution.apply(input.to(kind), self.weight.to(kind), self.bias.to(kind))  # type: ignore[return-value]
