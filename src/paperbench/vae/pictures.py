"""The pictures of a trained model: figures 4 and 5, reconstructions, interpolations, and its bound over samples seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paperbench.engine import metriclog
from paperbench.engine.figures import COLOURS, new_figure, save, tidy
from paperbench.engine.files import explained, temporary_name
from paperbench.engine.seeding import generator
from paperbench.vae.mcem import Mcem
from paperbench.vae.objectives import AutoEncoder, Objective, Variational
from paperbench.vae.pixels import Pixels

PICTURES = 113
"""First key of the stream that random samples are drawn from."""

_SIDE = 20
"""Images along a side of the manifold, as in figure 4."""
_COLUMNS = 10
_ENLARGED = 2


@torch.no_grad()
def draw(objective: Objective, test: Pixels, folder: Path, *, seed: int) -> list[Path]:
    """Writes the pictures that make sense for `objective` into `folder`; their paths."""
    pictures: dict[str, Tensor] = {}
    if isinstance(objective, Variational | Mcem):
        latent = objective.model.latent
        pictures["samples"] = decode(objective, random_latents(100, latent, seed).to(test.device))
        if latent == 2:
            pictures["manifold"] = decode(objective, manifold_latents(_SIDE).to(test.device))
    if not isinstance(objective, Mcem):
        shown = test.still(0, 5 * _COLUMNS)
        codes = encode(objective, shown)
        pictures["reconstructions"] = beside_each_other(shown, decode(objective, codes), columns=_COLUMNS)
        pictures["interpolations"] = decode(objective, interpolated(codes[: 2 * _COLUMNS], steps=_COLUMNS))
    columns = {"manifold": _SIDE}
    return [
        save_sheet(images, test.size, folder / f"{name}.png", columns=columns.get(name, _COLUMNS))
        for name, images in pictures.items()
    ]


def encode(objective: Objective, x: Tensor) -> Tensor:
    """Images (N, D) -> where the encoder puts them, (N, L)."""
    if isinstance(objective, AutoEncoder):
        return objective.encode(x)
    assert isinstance(objective, Variational)
    return objective.guide.posterior(x).mean


def decode(objective: Objective, z: Tensor) -> Tensor:
    """Latent variables (N, L) -> the images that are expected of them, (N, D) in [0, 1]."""
    if isinstance(objective, AutoEncoder):
        return objective.mean(z)
    assert isinstance(objective, Variational | Mcem)
    return objective.model.mean(z)


# --- which latent variables -------------------------------------------------------------------------------------------


def manifold_latents(side: int) -> Tensor:
    """Figure 4: a square of equally spaced probabilities through the inverse CDF of the normal distribution.

    (side * side, 2), row by row: the first dimension runs to the right, the second down.
    """
    line = torch.special.ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side).float()
    down, right = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([right, down], -1).reshape(-1, 2)


def random_latents(count: int, latent: int, seed: int) -> Tensor:
    """Figure 5: draws from the prior, (count, latent)."""
    return torch.randn((count, latent), generator=generator("cpu", seed, PICTURES))


def interpolated(codes: Tensor, *, steps: int) -> Tensor:
    """Straight lines between the first and second of `codes`, the third and fourth, …: (2 N, L) -> (N * steps, L)."""
    first, second = codes[0::2][: len(codes) // 2], codes[1::2]
    share = torch.linspace(0, 1, steps, device=codes.device)[None, :, None]
    return ((1 - share) * first[:, None] + share * second[:, None]).flatten(0, 1)


def beside_each_other(originals: Tensor, others: Tensor, *, columns: int) -> Tensor:
    """Rows of `columns` images, each row followed by the row of what became of them: twice (N, D) -> (2 N', D)."""
    rows = [part for pair in zip(originals.split(columns), others.split(columns), strict=True) for part in pair]
    return torch.cat(_filled(rows, columns))


def _filled(rows: Sequence[Tensor], columns: int) -> list[Tensor]:
    """Rows made equally long with black images."""
    return [torch.cat([row, row.new_zeros(columns - len(row), row.shape[1])]) for row in rows]


# --- drawing ----------------------------------------------------------------------------------------------------------


def sheet(images: Tensor, size: tuple[int, int], *, columns: int) -> np.ndarray:
    """Images (N, H * W) in [0, 1], `columns` in a row, as one grey picture (rows * H, columns * W) of bytes."""
    height, width = size
    rows = math.ceil(len(images) / columns)
    blank = images.new_zeros(rows * columns - len(images), images.shape[1])
    grid = torch.cat([images, blank]).reshape(rows, columns, height, width).permute(0, 2, 1, 3)
    values = grid.reshape(rows * height, columns * width).clamp(0, 1).mul(255).round()
    return values.to(torch.uint8).cpu().numpy()


def save_sheet(images: Tensor, size: tuple[int, int], path: Path, *, columns: int) -> Path:
    """Writes `sheet`, enlarged, as a PNG: whole or not at all. Raises `EnvironmentError_` or `DiskFullError`."""
    picture = Image.fromarray(sheet(images, size, columns=columns))
    picture = picture.resize((picture.width * _ENLARGED, picture.height * _ENLARGED), Image.Resampling.NEAREST)
    temporary = temporary_name(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            picture.save(temporary, format="PNG")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def bound_curves(metrics: Path, output: Path, *, batch_size: int) -> Path | None:
    """Draws what was measured on training and test images over the number of training samples seen, as figures 2 and 3 do.

    `metrics` is a run's `metrics.jsonl`. Returns None, and writes nothing, where there are not two points to join.
    """
    records = metriclog.read(metrics)
    for name, what in (("bound", "lower bound"), ("marginal", "log p(x)"), ("squared_error", "squared error")):
        curves = {split: _points(records, f"{split}/{name}", batch_size) for split in ("test", "train")}
        if len(curves["test"]) < 2:
            continue
        figure = new_figure(5.0, 3.4)
        axes = figure.add_subplot()
        tidy(axes, title=f"{what} of an image", x="training samples seen", y="" if name == "squared_error" else "nats")
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
