"""Figures of a trained model: figures 4 and 5, reconstructions, interpolations, and the bound over samples seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paperbench.engine import metriclog
from paperbench.engine.figures import COLOURS, new_figure, save, save_image, tidy
from paperbench.engine.seeding import generator
from paperbench.vae.data import Pixels
from paperbench.vae.objectives import AutoEncoder, Mcem, Objective, Variational

PRIOR_SAMPLES = 113
"""First key of the stream that random samples are drawn from."""

_SIDE = 20
"""Images along a side of the manifold, as in figure 4."""
_COLUMNS = 10
_ENLARGED = 2


@torch.no_grad()
def draw_figures(objective: Objective, test: Pixels, folder: Path, *, seed: int) -> list[Path]:
    """Write the figures that `objective` allows into `folder`, and return their paths."""
    figures: dict[str, Tensor] = {}
    if isinstance(objective, Variational | Mcem):
        latent = objective.model.latent
        figures["samples"] = decode(objective, sample_prior(100, latent, seed).to(test.device))
        if latent == 2:
            figures["manifold"] = decode(objective, manifold_grid(_SIDE).to(test.device))
    if not isinstance(objective, Mcem):
        images = test.eval_batch(0, 5 * _COLUMNS)
        codes = encode(objective, images)
        figures["reconstructions"] = interleave_rows(images, decode(objective, codes), columns=_COLUMNS)
        if len(codes) > 1:  # a line has two ends
            figures["interpolations"] = decode(objective, interpolate(codes[: 2 * _COLUMNS], steps=_COLUMNS))
    columns = {"manifold": _SIDE}
    return [
        save_image_grid(images, test.size, folder / f"{name}.png", columns=columns.get(name, _COLUMNS))
        for name, images in figures.items()
    ]


def encode(objective: Objective, x: Tensor) -> Tensor:
    """Return the codes (N, L) of images (N, D): the mean of q(z | x), or the code of a plain autoencoder."""
    if isinstance(objective, AutoEncoder):
        return objective.encode(x)
    assert isinstance(objective, Variational)
    return objective.encoder.posterior(x).mean


def decode(objective: Objective, z: Tensor) -> Tensor:
    """Return the expected images (N, D), in [0, 1], of latent variables (N, L)."""
    if isinstance(objective, AutoEncoder):
        return objective.mean(z)
    assert isinstance(objective, Variational | Mcem)
    return objective.model.mean(z)


# --- latent variables -------------------------------------------------------------------------------------------------


def manifold_grid(side: int) -> Tensor:
    """Return the latent variables of figure 4: equally spaced probabilities through the inverse normal CDF.

    (side * side, 2), row by row: the first dimension runs to the right, the second down.
    """
    line = torch.special.ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side).float()
    down, right = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([right, down], -1).reshape(-1, 2)


def sample_prior(count: int, latent: int, seed: int) -> Tensor:
    """Draw the latent variables of figure 5 from the prior, (count, latent)."""
    return torch.randn((count, latent), generator=generator("cpu", seed, PRIOR_SAMPLES))


def interpolate(codes: Tensor, *, steps: int) -> Tensor:
    """Return straight lines between the first and second of `codes`, the third and fourth, …: (2 N, L) -> (N * steps, L)."""
    first, second = codes[0::2][: len(codes) // 2], codes[1::2]
    share = torch.linspace(0, 1, steps, device=codes.device)[None, :, None]
    return ((1 - share) * first[:, None] + share * second[:, None]).flatten(0, 1)


def interleave_rows(originals: Tensor, reconstructions: Tensor, *, columns: int) -> Tensor:
    """Return rows of `columns` originals, each followed by the row of their reconstructions: twice (N, D) -> (2 N', D)."""
    rows = [
        part for pair in zip(originals.split(columns), reconstructions.split(columns), strict=True) for part in pair
    ]
    return torch.cat(_pad_rows(rows, columns))


def _pad_rows(rows: Sequence[Tensor], columns: int) -> list[Tensor]:
    """Pad rows to `columns` images with black ones."""
    return [torch.cat([row, row.new_zeros(columns - len(row), row.shape[1])]) for row in rows]


# --- drawing ----------------------------------------------------------------------------------------------------------


def tile_images(images: Tensor, size: tuple[int, ...], *, columns: int) -> np.ndarray:
    """Tile images (N, C * H * W) in [0, 1], `columns` in a row, into one image of bytes: (rows * H, columns * W) of grey ones,
    (rows * H, columns * W, 3) of coloured ones, whose size is (3, H, W)."""
    *channels, height, width = size
    rows = math.ceil(len(images) / columns)
    blank = images.new_zeros(rows * columns - len(images), images.shape[1])
    grid = torch.cat([images, blank]).reshape(rows, columns, *(channels or [1]), height, width).permute(0, 3, 1, 4, 2)
    values = grid.reshape(rows * height, columns * width, *channels).clamp(0, 1).mul(255).round()
    return values.to(torch.uint8).cpu().numpy()


def save_image_grid(
    images: Tensor, size: tuple[int, ...], path: Path, *, columns: int, software: str = "paperbench"
) -> Path:
    """Write `tile_images`, enlarged, as a PNG, atomically. Raises `EnvironmentError_` or `DiskFullError`."""
    picture = Image.fromarray(tile_images(images, size, columns=columns))
    picture = picture.resize((picture.width * _ENLARGED, picture.height * _ENLARGED), Image.Resampling.NEAREST)
    return save_image(picture, path, software=software)


def plot_bound(metrics: Path, output: Path, *, batch_size: int) -> Path | None:
    """Plot the bound on training and test images over the number of training samples seen, as figures 2 and 3 do.

    `metrics` is a run's `metrics.jsonl`. Returns None, and writes nothing, where there are fewer than two points.
    """
    records = metriclog.read(metrics)
    for name, title in (("bound", "lower bound"), ("marginal", "log p(x)"), ("squared_error", "squared error")):
        curves = {split: _points(records, f"{split}/{name}", batch_size) for split in ("test", "train")}
        if len(curves["test"]) < 2:
            continue
        figure = new_figure(5.0, 3.4)
        axes = figure.add_subplot()
        tidy(axes, title=f"{title} of an image", x="training samples seen", y="" if name == "squared_error" else "nats")
        for colour, (split, points) in zip(COLOURS, curves.items(), strict=False):
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, label=split)
        axes.set_xscale("log")
        axes.legend(fontsize=8, frameon=False)
        return save(figure, output)
    return None


def _points(records: Sequence[dict[str, object]], name: str, batch_size: int) -> list[tuple[int, float]]:
    return [
        (int(str(record["step"])) * batch_size, float(value))
        for record in records
        if isinstance(value := record.get(name), int | float)
    ]
