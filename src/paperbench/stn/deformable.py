"""A deformable convolution where ST-CNN has its transformer: dense local offsets against one global transformation.

Dai et al., Deformable Convolutional Networks, ICCV 2017. No published comparison of the two on the same data was found; here both
nets have the same classifier and the same number of parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from paperbench.engine.precision import full_precision
from paperbench.stn.layers import ChannelsLast
from paperbench.stn.sampling import ALIGN_CORNERS

KERNEL = 3


def deform_conv(images: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return `torchvision.ops.deform_conv2d` with the padding that keeps the size, computed by `grid_sample` and one product.

    images: (B, C, H, W); offsets: (B, 2 * k * k, H, W), rows before columns for each tap; weight: (O, C, k, k). The same values
    and gradients; on a CPU torchvision's backward pass takes many times as long where C is small.
    """
    batch, channels, height, width = images.shape
    size = weight.shape[-1]
    taps = torch.arange(size, device=images.device) - size // 2
    shifts = offsets.view(batch, size, size, 2, height, width)
    y = shifts[:, :, :, 0] + taps.view(size, 1, 1, 1) + torch.arange(height, device=images.device).view(height, 1)
    x = shifts[:, :, :, 1] + taps.view(1, size, 1, 1) + torch.arange(width, device=images.device)
    planes = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=1)
    grid = planes.view(batch, 2, size * size * height, width).permute(0, 2, 3, 1)
    samples = F.grid_sample(images, grid, padding_mode="zeros", align_corners=ALIGN_CORNERS)
    columns = samples.view(batch, channels * size * size, height * width)
    return (weight.flatten(1) @ columns + bias[:, None]).view(batch, -1, height, width)


class DeformableFront(nn.Module):
    """(B, C, H, W) -> the same shape: a 3x3 deformable convolution whose offsets a small net predicts from the input.

    The offset net is that of ST-CNN's localisation net, two 5x5 convolutions of `width` channels at half the resolution, but keeps
    the positions. It starts with offsets 0 and the deformable convolution with the identity, so that training begins with
    the input as it is.
    """

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, 2 * KERNEL * KERNEL, 3, padding=1)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.offsets = nn.Sequential(
            nn.AvgPool2d(2),
            ChannelsLast(),
            nn.Conv2d(channels, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2),
            nn.ReLU(),
            last,
        )
        self.weight = nn.Parameter(torch.zeros(channels, channels, KERNEL, KERNEL))
        nn.init.dirac_(self.weight)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, images: Tensor) -> Tensor:
        """Return the convolved images, in the weights' precision: bfloat16 resolves offsets to a quarter pixel only."""
        coarse = self.offsets(images)
        kind = self.weight.dtype
        with full_precision(images.device):
            offsets = F.interpolate(coarse.to(kind), images.shape[-2:], mode="bilinear", align_corners=ALIGN_CORNERS)
            if images.device.type == "cpu":
                return deform_conv(images.to(kind), offsets, self.weight, self.bias)
            edge = (KERNEL // 2, KERNEL // 2)
            return deform_conv2d(images.to(kind), offsets, self.weight, self.bias, padding=edge)
