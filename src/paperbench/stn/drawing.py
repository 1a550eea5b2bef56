"""Pictures of what a transformer does: inputs under their sampling grids, what the classifier sees of them, and class means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperbench.engine.figures import COLOURS, new_figure, save
from paperbench.engine.run import Run
from paperbench.stn.birds import PartsNet
from paperbench.stn.build import Net
from paperbench.stn.geometry import boxes_of, to_pixels
from paperbench.stn.house_numbers import HouseNumberNet, as_number, theta_of_input
from paperbench.stn.inputs import DistortedImages
from paperbench.stn.learner import Classification
from paperbench.stn.networks import TransformedNet
from paperbench.stn.transformer import SpatialTransformer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCH = 1.15
_LINES = 8
"""Lines of a drawn grid in each direction, the border included."""


def draw(learner: Classification, inputs: DistortedImages, run: Run, *, pictures: int, every: int) -> None:
    """Writes `samples.png` (the first test images) and `mean_warped.png` into the figures of `run`."""
    if pictures:
        chosen = torch.arange(min(pictures, len(inputs)), device=run.device)
        images, labels = inputs(chosen, torch.zeros_like(chosen))
        samples(learner.net, images, run.directory.figures / "samples.png", labels=labels.tolist())
    means = learner.means[: int(learner.evaluations)].float().cpu().numpy()
    steps = [every * (number + 1) for number in range(len(means) - 1)]
    mean_warped(means, [*map(str, steps), "end"], run.directory.figures / "mean_warped.png")


@torch.no_grad()
def samples(net: Net, images: Tensor, path: Path, *, labels: list[int] | None = None) -> Path:
    """A column an image of (B, C, H, W): each channel under its grids, what the classifier sees, and the prediction.

    `labels`: the truth, named beside a prediction that differs.
    """
    was_training = net.training
    net.eval()
    probabilities = net(images).float().softmax(1).cpu()
    seen = net.warped(images).float().cpu().numpy()
    grids = _grids(net, images)
    net.train(was_training)
    inputs = images.float().cpu().numpy()
    count, channels = inputs.shape[:2]
    rows = channels + seen.shape[1]
    figure = new_figure(_INCH * count, _INCH * rows + 0.3)
    for column in range(count):
        for row in range(rows):
            axes = figure.add_subplot(rows, count, row * count + column + 1)
            if row < channels:
                _show(axes, inputs[column, row])
                for colour, grid in zip(COLOURS, grids, strict=False):
                    _lines(axes, grid[column], colour)
            else:
                _show(axes, seen[column, row - channels])
            if row == 0:
                best, sure = int(probabilities[column].argmax()), float(probabilities[column].max())
                wrong = labels is not None and labels[column] != best
                title = f"{best} ({sure:.0%})" + (f", is {labels[column]}" if labels is not None and wrong else "")
                axes.set_title(title, fontsize=8, color=COLOURS[1] if wrong else "black")
    return save(figure, path)


def _grids(net: Net, images: Tensor) -> list[NDArray[np.float32]]:
    """For each transformer (B, H, W, 2) positions in pixels of the input, from 0 at its outer edge."""
    if not isinstance(net, TransformedNet):
        return []
    height, width = images.shape[-2:]
    found = []
    for transformer in net.each():
        grid = transformer.grid(transformer.theta(images)).float().cpu()
        found.append(torch.stack([to_pixels(grid[..., 0], width), to_pixels(grid[..., 1], height)], dim=-1).numpy())
    return found


@torch.no_grad()
def windows_found(images: Tensor, transformer: SpatialTransformer, boxes: Tensor, path: Path) -> Path | None:
    """A column an image of (N, 1, H, W): the predicted window and the true box (N, 4) on it, and what the window shows."""
    if not len(images):
        return None
    theta = transformer.theta(images)
    shown = transformer.warp(images, theta).float().cpu().numpy()
    predicted = to_pixels(boxes_of(theta).float(), images.shape[-1]).cpu().numpy()
    truth = to_pixels(boxes, images.shape[-1]).cpu().numpy()
    figure = new_figure(_INCH * len(images), 2 * _INCH + 0.2)
    for column, image in enumerate(images[:, 0].float().cpu().numpy()):
        axes = figure.add_subplot(2, len(images), column + 1)
        _show(axes, image)
        for box, colour in ((truth[column], COLOURS[2]), (predicted[column], COLOURS[1])):
            x1, y1, x2, y2 = box
            axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, linewidth=1, clip_on=True)
        axes.set_xlim(0, image.shape[1])
        axes.set_ylim(image.shape[0], 0)
        _show(figure.add_subplot(2, len(images), len(images) + column + 1), shown[column, 0])
    return save(figure, path)


def _show(axes: Axes, image: NDArray[np.float32]) -> None:
    height, width = image.shape
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    axes.set_axis_off()


def _lines(axes: Axes, grid: NDArray[np.float32], colour: str) -> None:
    """Some rows and columns of a grid (H, W, 2) as lines, cut off at the image."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    height, width = grid.shape[:2]
    rows, columns = (np.linspace(0, size - 1, _LINES).round().astype(int) for size in (height, width))
    for line in [*grid[rows], *grid.transpose(1, 0, 2)[columns]]:
        axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=0.6)
    axes.set_xlim(0, right)
    axes.set_ylim(bottom, 0)


def mean_warped(means: NDArray[np.float32], names: list[str], path: Path) -> Path:
    """Rows of the mean of each class at one moment: means (moments, classes, C, H, W), `names` of the moments."""
    moments, classes, channels = means.shape[:3]
    figure = new_figure(0.7 * classes, 0.75 * moments * channels + 0.2)
    for moment in range(moments):
        for channel in range(channels):
            row = moment * channels + channel
            for column in range(classes):
                axes = figure.add_subplot(moments * channels, classes, row * classes + column + 1)
                _show(axes, means[moment, column, channel])
                if column == 0:
                    axes.set_title(names[moment], fontsize=7, loc="left")
    return save(figure, path)


@torch.no_grad()
def numbers_read(net: HouseNumberNet, images: Tensor, labels: Tensor, path: Path) -> Path:
    """A column a photograph (B, 3, H, W), its number as read over it; below, what the transformer on the input makes of it."""
    read = net(images).float().argmax(2)
    theta = theta_of_input(net, images)
    rows = 1 if theta is None else 2
    figure = new_figure(_INCH * len(images), _INCH * rows + 0.3)
    first = net.transformers["0"] if theta is not None else None
    for column, image in enumerate(images):
        axes = figure.add_subplot(rows, len(images), column + 1)
        _photograph(axes, image)
        found, truth = as_number(read[column]), as_number(labels[column])
        axes.set_title(found or "none", fontsize=8, color="black" if found == truth else COLOURS[1])
        if theta is not None and isinstance(first, SpatialTransformer):
            grid = first.grid(theta[column : column + 1]).float().cpu()[0]
            pixels = torch.stack([to_pixels(grid[..., 0], image.shape[2]), to_pixels(grid[..., 1], image.shape[1])], -1)
            _lines(axes, pixels.numpy(), COLOURS[0])
            _photograph(
                figure.add_subplot(2, len(images), len(images) + column + 1),
                first.warp(images[column : column + 1], theta[column : column + 1])[0],
            )
    return save(figure, path)


@torch.no_grad()
def parts_seen(net: PartsNet, images: Tensor, labels: Tensor, classes: tuple[str, ...], path: Path) -> Path:
    """A column a photograph (B, 3, H, W): its windows on it, its class as found, and below what each net sees."""
    found = net(images).float().argmax(1).cpu()
    seen = net.parts(images)
    centres = net.centres(images).float().cpu() if net.placer is not None else torch.zeros(len(images), 0, 2)
    size = images.shape[-1]
    rows = 1 + len(seen)
    figure = new_figure(_INCH * len(images), _INCH * rows + 0.3)
    for column, image in enumerate(images):
        axes = figure.add_subplot(rows, len(images), column + 1)
        _photograph(axes, image)
        name = classes[int(found[column])]
        axes.set_title(
            name[:18], fontsize=7, color="black" if int(found[column]) == int(labels[column]) else COLOURS[1]
        )
        for centre, colour in zip(centres[column], COLOURS, strict=False):
            (x1, y1), (x2, y2) = (to_pixels(centre + sign * net.window.scale, size).tolist() for sign in (-1, 1))
            axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, linewidth=1)
        axes.set_xlim(0, size)
        axes.set_ylim(size, 0)
        for row, part in enumerate(seen, start=1):
            _photograph(figure.add_subplot(rows, len(images), row * len(images) + column + 1), part[column])
    return save(figure, path)


def _photograph(axes: Axes, image: Tensor) -> None:
    """(3, H, W) in 0..1."""
    height, width = image.shape[1:]
    axes.imshow(image.float().clamp(0, 1).permute(1, 2, 0).cpu().numpy(), extent=(0, width, height, 0))
    axes.set_axis_off()
