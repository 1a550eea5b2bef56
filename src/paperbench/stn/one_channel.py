"""A convolution on one channel whose input gradient does not rule the training step of a CPU.

A transformer in front of a convolution needs the gradient for the convolution's input. For one input channel torch's kernels take
most of a whole step over it: they are made for many channels. Here it is a convolution from the output channels to k, which they
are made for, and one matrix product; values and gradients are those of `nn.Conv2d`.
"""

from __future__ import annotations

from functools import lru_cache
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
    """(B, 1, H, W) from (B, O, h, w): what each tap passes back, moved to where the tap looked.

    First down the rows: a convolution from the O channels to one for each column of taps. Then each of those is moved by its
    column, all of them by one product with a constant of zeros and ones.
    """
    batch, _, height, width = gradient.shape
    rows, columns = weight.shape[2:]
    down = weight[:, 0].flip(1).permute(2, 0, 1).unsqueeze(3)
    of_columns = F.conv2d(gradient, down.contiguous(memory_format=torch.channels_last), padding=(rows - 1, 0))
    lines = of_columns.permute(0, 2, 3, 1).reshape(-1, width * columns)
    return (lines @ _moved(width, columns).to(lines)).view(batch, 1, height + rows - 1, width + columns - 1)


@lru_cache(maxsize=16)
def _moved(width: int, columns: int) -> Tensor:
    """(width * columns, width + columns - 1), 1 where place and column of taps add up to the place that the tap looked at."""
    places = torch.arange(width)[:, None] + torch.arange(columns)
    return F.one_hot(places.flatten(), width + columns - 1).to(torch.float32)


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
