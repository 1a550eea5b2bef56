"""The script that a user would write without this program: a DataLoader with torchvision's transforms, and stock modules.

The nets are those of `paperbench.stn` layer by layer, in the order in which they are usually written (ReLU, then pooling), with
`F.affine_grid` and float32 by default. `benchmarks.stn` starts this module as a process of its own, so that it gains nothing from
the settings of the program:

    python -m benchmarks.stn_baseline DISTORTION --workers N --seconds S [--net st-cnn --width 32 --precision float32] [--data DIR]

prints images a second: of the loader alone, or of a training step with `--net`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, functional, v2

from paperbench.data import digits, mnist
from paperbench.data.image_sets import ImageSet

BATCH = 256
TF: Any = functional
"""Its annotations say tensors only; it takes PIL images as well."""
BILINEAR = InterpolationMode.BILINEAR


def rotate(image: Image.Image) -> Tensor:
    """Return R: rotated by -90 to 90 degrees."""
    return TF.to_tensor(TF.rotate(image, float(np.random.uniform(-90, 90)), BILINEAR))


def rotate_scale_translate(image: Image.Image) -> Tensor:
    """Return RTS on 42x42."""
    scale = float(np.random.uniform(0.7, 1.2))
    room = (42 - 28 * scale) / 2
    shift = [round(float(np.random.uniform(-room, room))) for _ in range(2)]
    page = TF.pad(image, [7])
    return TF.to_tensor(TF.affine(page, float(np.random.uniform(-45, 45)), shift, scale, [0.0], BILINEAR))


def warp_perspective(image: Image.Image) -> Tensor:
    """Return P: corners moved by a normal 5 pixels, again where little is left of the square."""
    half = 14 * float(np.random.uniform(0.75, 1))
    start = [[0, 0], [27, 0], [27, 27], [0, 27]]
    corners = [[-half, -half], [half, -half], [half, half], [-half, half]]
    while True:
        end = [[round(14 + x + np.random.normal(0, 5)), round(14 + y + np.random.normal(0, 5))] for x, y in corners]
        if all(_signed_area(end[i - 2], end[i - 1], end[i]) > half * half for i in range(4)):
            return TF.to_tensor(TF.perspective(image, start, end, BILINEAR))


def _signed_area(a: list[int], b: list[int], c: list[int]) -> int:
    """Return twice the signed area of a triangle."""
    return (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0])


_elastic = v2.ElasticTransform(alpha=30.0, sigma=4.0)


def warp_elastic(image: Image.Image) -> Tensor:
    """Return E by torchvision: a smoothed random field instead of a spline."""
    return TF.to_tensor(_elastic(image))


TRANSFORMS: dict[str, Callable[[Image.Image], Tensor]] = {
    "r": rotate,
    "rts": rotate_scale_translate,
    "p": warp_perspective,
    "e": warp_elastic,
}


class Digits(Dataset[tuple[Tensor, int]]):
    """MNIST in memory as torchvision reads it: one PIL image at a time through a transform."""

    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = images.images.numpy()
        self.labels = images.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def batches(images: ImageSet, distortion: str, *, batch: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches without end; the workers live as long as the iterator."""
    loader = DataLoader(
        Digits(images, TRANSFORMS[distortion]),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


class StockTransformer(nn.Module):
    """Localisation net, `F.affine_grid`, `F.grid_sample`."""

    def __init__(self, localisation: nn.Module, features: int, size: int) -> None:
        super().__init__()
        self.localisation = localisation
        self.regression = nn.Linear(features, 6)
        nn.init.zeros_(self.regression.weight)
        with torch.no_grad():
            self.regression.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 1, size, size)."""
        theta = self.regression(self.localisation(images)).view(-1, 2, 3)
        grid = F.affine_grid(theta, [len(images), 1, self.size, self.size], align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)


def _localisation_side(canvas: int) -> int:
    return ((canvas // 2 - 4) // 2) - 4


def st_cnn(canvas: int, filters: int) -> nn.Module:
    """Build ST-CNN with the affine transformer, sampled to 28x28."""
    left = _localisation_side(canvas)
    look = nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 20, 5), nn.ReLU(), nn.Flatten(),
        nn.Linear(20 * left * left, 20), nn.ReLU(),
    )  # fmt: skip
    return nn.Sequential(
        StockTransformer(look, 20, 28),
        nn.Conv2d(1, filters, 9), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(filters, filters, 7), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4 * filters, 10),
    )  # fmt: skip


def st_fcn(canvas: int, units: int) -> nn.Module:
    """Build ST-FCN with the affine transformer, sampled to 28x28."""
    look = nn.Sequential(
        nn.Flatten(),
        nn.Linear(canvas * canvas, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
    )
    return nn.Sequential(
        StockTransformer(look, 32, 28),
        nn.Flatten(), nn.Linear(784, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 10),
    )  # fmt: skip


NETS: dict[str, Callable[[int, int], nn.Module]] = {"st-cnn": st_cnn, "st-fcn": st_fcn}


def weights(module: nn.Module) -> int:
    """Return the number of trainable weights."""
    return sum(math.prod(parameter.shape) for parameter in module.parameters())


def load(data: str | None) -> ImageSet:
    """Load MNIST's training images below `data`, or the embedded digits."""
    return mnist.load(data, "train") if data else digits.load("train")


def rate(work: Callable[[], object], *, seconds: float) -> float:
    """Measure images a second of `work`, one batch a call: once to warm up, then until `seconds` are over."""
    work()
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        work()
        done += BATCH
    return done / passed


def main() -> None:
    """Print one rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("distortion", choices=tuple(TRANSFORMS))
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--net", choices=tuple(NETS))
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--data")
    options = parser.parse_args()
    loader = batches(load(options.data), options.distortion, batch=BATCH, workers=options.workers)
    if options.net is None:
        print(rate(lambda: next(loader), seconds=options.seconds))
        return
    torch.manual_seed(0)
    net = NETS[options.net](42 if options.distortion == "rts" else 28, options.width)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def step() -> None:
        images, labels = next(loader)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    print(rate(step, seconds=options.seconds))


if __name__ == "__main__":
    main()
