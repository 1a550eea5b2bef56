"""Deformable convolution (Dai et al., Deformable Convolutional Networks, ICCV 2017, section 2.1).

torchvision has the operator. On a CPU its backward pass is serial and takes most of a training step, so there the same samples
are taken by `grid_sample` and multiplied with the weights as one matrix product, several times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from paperbench.errors import ConfigError

Pair = tuple[int, int]


def sampled_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Deformable convolution, with the values of `torchvision.ops.deform_conv2d` up to rounding.

    x (B, C, H, W), offset (B, 2 K, h, w) as (dy, dx) for each of the K taps, weight (O, C, kh, kw) -> (B, O, h, w). Samples outside
    the map count as 0.
    """
    batch, channels, height, width = x.shape
    taps, (rows, columns) = weight.shape[2] * weight.shape[3], offset.shape[-2:]

    def axis(length: int, step: int) -> Tensor:
        return torch.arange(length, dtype=x.dtype, device=x.device) * step

    tap_y, tap_x = torch.meshgrid(axis(weight.shape[2], dilation[0]), axis(weight.shape[3], dilation[1]), indexing="ij")
    moved = offset.view(batch, taps, 2, rows, columns)
    y = axis(rows, stride[0])[:, None] - padding[0] + tap_y.reshape(-1, 1, 1) + moved[:, :, 0]
    x_at = axis(columns, stride[1]) - padding[1] + tap_x.reshape(-1, 1, 1) + moved[:, :, 1]
    grid = torch.stack([(2 * x_at + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    # It reads each channel as a plane: with channels last it is several times slower.
    samples = F.grid_sample(
        x.contiguous(), grid.view(batch, taps * rows, columns, 2), padding_mode="zeros", align_corners=False
    )
    products = weight.flatten(1) @ samples.reshape(batch, channels * taps, rows * columns)
    products = products.view(batch, -1, rows, columns)
    return products if bias is None else products + bias.view(-1, 1, 1)


class DeformableConv(nn.Module):
    """A convolution whose samples are moved by offsets that another convolution computes from the same input.

    It takes over the weights of `conv`. The offsets begin at zero, so that it begins as `conv` itself.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.stride: Pair = (conv.stride[0], conv.stride[1])
        self.dilation: Pair = (conv.dilation[0], conv.dilation[1])
        self.padding: Pair = (int(conv.padding[0]), int(conv.padding[1]))
        kernel = (conv.kernel_size[0], conv.kernel_size[1])
        self.offset = nn.Conv2d(
            conv.in_channels,
            2 * kernel[0] * kernel[1],
            kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the shape that `conv` gives; in float32, as offsets of less than a pixel need it."""
        operator = sampled_conv2d if x.device.type == "cpu" else deform_conv2d
        with torch.autocast(x.device.type, enabled=False):
            moved = operator(
                x.float(),
                self.offset(x.float()),
                self.conv.weight,
                self.conv.bias,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
            )
        # Channels first as computed; what follows is fastest in the layout that all weights have.
        return moved.contiguous(memory_format=torch.channels_last)


def deform(parts: Sequence[nn.Module], count: int) -> None:
    """Make the last `count` 3x3 convolutions of `parts`, in their order, deformable, in place.

    Raise `ConfigError` when there are fewer of them that can be: of one group, and trained.
    """
    places = [
        (parent, name, child)
        for part in parts
        for parent in part.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3) and child.groups == 1
    ]
    trained = [place for place in places if place[2].weight.requires_grad]
    if count > len(trained):
        raise ConfigError(
            f"model.deformable={count}: the backbone has {len(trained)} 3x3 convolutions that are trained; "
            f"give a number from 0 to {len(trained)}"
        )
    for parent, name, conv in trained[len(trained) - count :]:
        setattr(parent, name, DeformableConv(conv))
