"""A small U-Net trained on one image and its mask (section III-B.2, the constrained CNN).

The net sees intensities and places, and is trained for a few hundred steps on that single pair, shifted and rescaled in
intensity. The paper found this classifier the least suitable: one pair is little to learn from. Overlapping labels (`bits`) are
learnt as the numbers that occur, each a class of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from paperbench.engine.seeding import generator, hashed
from paperbench.rca.cases import RECORDED, Picture, normalised, reason
from paperbench.rca.classifier import Drawn

CNN: Final = 124
WIDTHS: Final = (12, 24, 48)
SIDE: Final = 128
"""Images are reduced to at most so many voxels along an axis; labels are drawn at full size by nearest neighbour."""
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
    """Implements `ReverseClassifier`; weights and shifts follow from the seed and the segmenter's name."""

    def __init__(self, *, seed: int, steps: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.steps = steps
        self.device = torch.device(device)

    def draw(self, picture: Picture, references: Sequence[Picture]) -> Iterator[Drawn]:
        """See `ReverseClassifier`."""
        taught = {name: self._taught(picture, mask, name) for name, mask in picture.masks.items()}
        for reference in references:
            try:
                seen = inputs(normalised(reference.image)).to(self.device)
                maps = {
                    name: _drawn(net, values, seen, reference.image.shape) for name, (net, values) in taught.items()
                }
                yield Drawn(reference=reference.name, maps=maps)
            except RECORDED as error:
                yield Drawn(reference=reference.name, maps={}, failure=reason(error))

    def _taught(self, picture: Picture, mask: NDArray[np.int64], name: str) -> tuple[UNet, Tensor]:
        """A net that learnt one mask, and the number in the maps of each of its classes."""
        values, classes = np.unique(mask, return_inverse=True)
        seen = inputs(normalised(picture.image)).to(self.device)
        target = torch.from_numpy(classes.reshape(mask.shape)).to(self.device)[None, None]
        target = F.interpolate(target.double(), seen.shape[2:], mode="nearest-exact")[:, 0].long()
        key = hashed(self.seed, CNN, *name.encode())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key)
            net = UNet(mask.ndim, seen.shape[1], len(values)).to(self.device)
        share = torch.bincount(target.flatten(), minlength=len(values)).float().clamp(min=1)
        weight = (share.sum() / share).sqrt()
        stream = generator("cpu", key)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
        for _ in range(self.steps):
            image, wanted = _varied(seen, target, stream)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(image), wanted, weight / weight.mean()).backward()
            optimizer.step()
        return net.eval(), torch.from_numpy(values).to(self.device)


def _varied(seen: Tensor, target: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shifted by up to a twentieth of each side, intensities stretched: places stay what they are."""
    shifts = [int(torch.randint(-(n // 20), n // 20 + 1, (), generator=stream)) for n in target.shape[1:]]
    axes = list(range(1, target.dim()))
    gain, offset = (torch.rand(2, generator=stream) * 0.4 - 0.2).tolist()
    image = torch.roll(seen[:, :1], shifts, [axis + 1 for axis in axes]) * (1 + gain) + offset
    return torch.cat([image, seen[:, 1:]], dim=1), torch.roll(target, shifts, axes)


def inputs(image: NDArray[np.float64]) -> Tensor:
    """Intensity and place of every voxel, (1, 1 + d, ...), at most `SIDE` along each axis."""
    tensor = torch.from_numpy(image).float()[None, None]
    shape = [min(SIDE, length) for length in image.shape]
    if shape != list(image.shape):
        tensor = F.interpolate(tensor, tuple(shape), mode="area")
    place = torch.meshgrid(*[torch.linspace(-1, 1, length) for length in shape], indexing="ij")
    return torch.cat([tensor, *(axis[None, None] for axis in place)], dim=1)


@torch.no_grad()
def _drawn(net: UNet, values: Tensor, seen: Tensor, shape: Sequence[int]) -> Tensor:
    found = values[net(seen).argmax(1)]
    return F.interpolate(found[None].double(), tuple(shape), mode="nearest-exact")[0, 0].long()
