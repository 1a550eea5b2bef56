"""A small U-Net trained on one image and its mask (section III-B.2, the constrained CNN).

The input is intensity and position; the net is trained for a few hundred steps on that single pair, shifted and rescaled in
intensity. The paper found this classifier the least suitable: one pair is little training data. For overlapping labels (`bits`)
every value that occurs is a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from paperbench.engine.device import as_float64
from paperbench.engine.seeding import generator, hashed
from paperbench.rca.cases import RECORDED, Image, normalised, reason
from paperbench.rca.scoring import ReferenceLabels

CNN: Final = 124
WIDTHS: Final = (12, 24, 48)
SIDE: Final = 128
"""Largest length of an axis, to which images are reduced; labels are predicted at full size by nearest neighbour."""
RATE: Final = 5e-3


class UNet(nn.Module):
    """Two reductions and as many enlargements in `dims` dimensions; (B, inputs, ...) -> (B, classes, ...) of the same size."""

    def __init__(self, dims: int, inputs: int, classes: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if dims == 2 else nn.MaxPool3d(2, ceil_mode=True)
        self.down = nn.ModuleList(_block(dims, a, b) for a, b in zip((inputs, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(_block(dims, a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = _convolution(dims, widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            kept.append(x)
        for block, skipped in zip(self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, skipped.shape[2:], mode="nearest"), skipped], dim=1))
        return self.head(x)


def _convolution(dims: int, inputs: int, outputs: int, size: int) -> nn.Module:
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(inputs, outputs, size, padding=size // 2)


def _block(dims: int, inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        _convolution(dims, inputs, outputs, 3), nn.GroupNorm(4, outputs), nn.ReLU(),
        _convolution(dims, outputs, outputs, 3), nn.GroupNorm(4, outputs), nn.ReLU(),
    )  # fmt: skip


class CnnClassifier:
    """Implements `ReverseClassifier`; weights and shifts are a function of the seed and the segmenter's name."""

    def __init__(self, *, seed: int, steps: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.steps = steps
        self.device = torch.device(device)

    def segment(self, image: Image, references: Sequence[Image]) -> Iterator[ReferenceLabels]:
        """See `ReverseClassifier`."""
        nets = {name: self._fit(image, mask, name) for name, mask in image.masks.items()}
        for reference in references:
            try:
                inputs = net_inputs(normalised(reference.intensities)).to(self.device)
                maps = {
                    name: _predict(net, values, inputs, reference.intensities.shape)
                    for name, (net, values) in nets.items()
                }
                yield ReferenceLabels(reference=reference.name, maps=maps)
            except RECORDED as error:
                yield ReferenceLabels(reference=reference.name, maps={}, failure=reason(error))

    def _fit(self, image: Image, mask: NDArray[np.int64], name: str) -> tuple[UNet, Tensor]:
        """Train a net on one mask; return it with the label value of each of its classes."""
        values, classes = np.unique(mask, return_inverse=True)
        inputs = net_inputs(normalised(image.intensities)).to(self.device)
        target = torch.from_numpy(classes.reshape(mask.shape))[None, None]
        target = F.interpolate(target.double(), inputs.shape[2:], mode="nearest-exact")[:, 0].long().to(self.device)
        key = hashed(self.seed, CNN, *name.encode())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key)
            net = UNet(mask.ndim, inputs.shape[1], len(values)).to(self.device)
        share = torch.bincount(target.flatten(), minlength=len(values)).float().clamp(min=1)
        weight = (share.sum() / share).sqrt()
        stream = generator("cpu", key)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
        for _ in range(self.steps):
            augmented, labels = _augmented(inputs, target, stream)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(augmented), labels, weight / weight.mean()).backward()
            optimizer.step()
        return net.eval(), torch.from_numpy(values).to(self.device)


def _augmented(inputs: Tensor, target: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shift by up to a twentieth of each side and scale intensities; positions stay."""
    shifts = [int(torch.randint(-(n // 20), n // 20 + 1, (), generator=stream)) for n in target.shape[1:]]
    axes = list(range(1, target.dim()))
    gain, offset = (torch.rand(2, generator=stream) * 0.4 - 0.2).tolist()
    image = torch.roll(inputs[:, :1], shifts, [axis + 1 for axis in axes]) * (1 + gain) + offset
    return torch.cat([image, inputs[:, 1:]], dim=1), torch.roll(target, shifts, axes)


def net_inputs(image: NDArray[np.float64]) -> Tensor:
    """Return intensity and position of every voxel, (1, 1 + d, ...), at most `SIDE` along each axis."""
    tensor = torch.from_numpy(image).float()[None, None]
    shape = [min(SIDE, length) for length in image.shape]
    if shape != list(image.shape):
        tensor = F.interpolate(tensor, tuple(shape), mode="area")
    position = torch.meshgrid(*[torch.linspace(-1, 1, length) for length in shape], indexing="ij")
    return torch.cat([tensor, *(axis[None, None] for axis in position)], dim=1)


@torch.no_grad()
def _predict(net: UNet, values: Tensor, inputs: Tensor, shape: Sequence[int]) -> Tensor:
    labels = values[net(inputs).argmax(1)]
    resized = F.interpolate(as_float64(labels[None]), tuple(shape), mode="nearest-exact")[0, 0]
    return resized.long().to(values.device)
