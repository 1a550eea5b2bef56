"""Layers that several nets of this package share, and counts of features and parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from paperbench.engine.device_errors import raise_device_error
from paperbench.engine.precision import full_precision


def channels_last(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) with C the fastest axis in memory, for C = 1 as well, where only the strides say so.

    While a graph is traced it does nothing: export formats have no strides.
    """
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return images
    _, channels, height, width = images.shape
    if channels > 1:
        return images.contiguous(memory_format=torch.channels_last)
    return images.contiguous().as_strided(images.shape, (height * width, 1, width, 1))


class ChannelsLast(nn.Module):
    """`channels_last` as a layer."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the same values."""
        return channels_last(images)


def at_least_float32(values: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32, all else as it is."""
    return values.float() if values.is_floating_point() and values.dtype.itemsize < _BYTES else values


_BYTES = torch.float32.itemsize


class FullPrecision(nn.Module):
    """A module whose own tensors stay in float32 or better when the network around it is cast to a shorter type.

    Positions need more digits than float16 and bfloat16 have: of 256 pixels, neighbours are .008 apart, a step of bfloat16.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def without_loss(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            shortened = moved.is_floating_point() and moved.dtype.itemsize < _BYTES
            return at_least_float32(tensor).to(moved.device) if shortened else moved

        return super()._apply(without_loss, recurse)


class ExactLinear(FullPrecision, nn.Linear):
    """A linear layer in the precision of its weights, under autocast too, and never in less than float32.

    For the last layers of a localisation net: positions need more than the 8 bits of bfloat16, and with some dozen units a product
    in bfloat16 takes twice as long on a CPU as one in float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        with full_precision(input.device):
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


class Resize(nn.Module):
    """Resizes images to `side` x `side`, bilinear, with a low-pass filter where they shrink."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C, side, side)."""
        if images.shape[-2:] == (self.side, self.side):
            return images
        return F.interpolate(images, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)


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
    """Return (B, 1, H, W) from (B, O, h, w): the gradient of each tap, shifted to the position that the tap read.

    First along the rows: a convolution from the O channels to one for each column of taps. Then each of those is shifted by its
    column, all of them by one product with a constant of zeros and ones.
    """
    batch, _, height, width = gradient.shape
    rows, columns = weight.shape[2:]
    down = weight[:, 0].flip(1).permute(2, 0, 1).unsqueeze(3)
    of_columns = F.conv2d(gradient, down.contiguous(memory_format=torch.channels_last), padding=(rows - 1, 0))
    lines = of_columns.permute(0, 2, 3, 1).reshape(-1, width * columns)
    return (lines @ _column_shifts(width, columns).to(lines)).view(batch, 1, height + rows - 1, width + columns - 1)


@lru_cache(maxsize=16)
def _column_shifts(width: int, columns: int) -> Tensor:
    """Return (width * columns, width + columns - 1), 1 where position and column of taps add up to the position of the input."""
    positions = torch.arange(width)[:, None] + torch.arange(columns)
    return F.one_hot(positions.flatten(), width + columns - 1).to(torch.float32)


class OneChannelConv2d(nn.Conv2d):
    """`nn.Conv2d(1, out_channels, kernel_size)` with stride 1 and no padding: the same parameters, values and gradients.

    A transformer in front of a convolution needs the gradient of the convolution's input. For one input channel torch's CPU
    kernels, which are built for many channels, spend most of a training step on it. Here it is a convolution from the output
    channels to k, for which they are built, and one matrix product.
    """

    def __init__(self, out_channels: int, kernel_size: int) -> None:
        super().__init__(1, out_channels, kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and input.requires_grad and input.device.type == "cpu"):
            return super().forward(input)
        assert self.bias is not None
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        return _OneChannelConvolution.apply(input.to(kind), self.weight.to(kind), self.bias.to(kind))  # type: ignore[return-value]


def count_features(body: nn.Module, channels: int, side: int) -> int:
    """Return the features of `body` for inputs (B, channels, side, side). Raises ValueError for inputs that are too small."""
    device = next((parameter.device for parameter in body.parameters()), torch.device("cpu"))
    with torch.no_grad():
        try:
            out: Tensor = body(torch.zeros(1, channels, side, side, device=device))
        except RuntimeError as error:
            raise_device_error(error)
            raise ValueError(f"an input of {side}x{side} pixels is too small for the net: {error}") from error
    return out[0].numel()


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters of `module`."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
