"""A deformable convolution where ST-CNN has its transformer: dense local offsets against one global transformation.

Dai et al., Deformable Convolutional Networks, ICCV 2017. No published comparison of the two on the same data was found; here both
nets have the same classifier and the same number of parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

KERNEL = 3


class DeformableFront(nn.Module):
    """(B, C, side, side) -> the same shape: a 3x3 deformable convolution whose offsets a small net reads off the input.

    The offset net is built like ST-CNN's localisation net, 5x5 convolutions of `width` channels, but keeps the positions. It starts
    with offsets 0 and the deformable convolution with the identity, so that training begins with the input as it is.
    """

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        self.offsets = nn.Sequential(
            nn.Conv2d(channels, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, 2 * KERNEL * KERNEL, 3, padding=1),
        )
        last = self.offsets[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.weight = nn.Parameter(torch.zeros(channels, channels, KERNEL, KERNEL))
        nn.init.dirac_(self.weight)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, images: Tensor) -> Tensor:
        """The convolved images, in float32: offsets are positions, and bfloat16 knows those to a quarter pixel only."""
        offsets = self.offsets(images)
        kind = self.weight.dtype
        with torch.autocast(images.device.type, enabled=False):
            return deform_conv2d(
                images.to(kind), offsets.to(kind), self.weight, self.bias, padding=(KERNEL // 2, KERNEL // 2)
            )
