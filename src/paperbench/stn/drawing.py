"""Figures of transformers: inputs under their sampling grids, the classifier's inputs, and class means."""

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
from paperbench.stn.colocalise import window_boxes
from paperbench.stn.data import DistortedDigits
from paperbench.stn.house_numbers import HouseNumberNet, input_theta, to_number
from paperbench.stn.networks import Net, SpatialTransformerNet
from paperbench.stn.sampling import to_pixels
from paperbench.stn.training import DigitClassifier
from paperbench.stn.transformer import SpatialTransformer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCH = 1.15
_LINES = 8
"""Lines of a drawn grid in each direction, the border included."""


def draw_figures(classifier: DigitClassifier, inputs: DistortedDigits, run: Run, *, images: int, every: int) -> None:
    """Write `samples.png`, of the first test `images`, and `mean_warped.png` into the figures of `run`.

    every: steps between two evaluations.
    """
    if images:
        index = torch.arange(min(images, len(inputs)), device=run.device)
        batch, labels = inputs(index, torch.zeros_like(index))
        draw_samples(classifier.net, batch, run.directory.figures / "samples.png", labels=labels.tolist())
    means = classifier.means[: int(classifier.evaluations)].float().cpu().numpy()
    steps = [every * (number + 1) for number in range(len(means) - 1)]
    draw_class_means(means, [*map(str, steps), "end"], run.directory.figures / "mean_warped.png")


@torch.no_grad()
def draw_samples(
    net: Net, images: Tensor, path: Path, *, labels: list[int] | None = None, software: str = "paperbench"
) -> Path:
    """Draw a column for each image of (B, C, H, W): its channels under their grids, the classifier's input, and the prediction.

    `labels`: the true classes, named beside a wrong prediction. `software`: the mark in the file (`engine.figures.save`).
    """
    training = net.training
    net.eval()
    probabilities = net(images).float().softmax(1).cpu()
    warped = net.classifier_input(images).float().cpu().numpy()
    grids = _grids(net, images)
    net.train(training)
    inputs = images.float().cpu().numpy()
    count, channels = inputs.shape[:2]
    rows = channels + warped.shape[1]
    figure = new_figure(_INCH * count, _INCH * rows + 0.3)
    for column in range(count):
        for row in range(rows):
            axes = figure.add_subplot(rows, count, row * count + column + 1)
            if row < channels:
                _show(axes, inputs[column, row])
                for colour, grid in zip(COLOURS, grids, strict=False):
                    _draw_grid(axes, grid[column], colour)
            else:
                _show(axes, warped[column, row - channels])
            if row == 0:
                best, probability = int(probabilities[column].argmax()), float(probabilities[column].max())
                wrong = labels is not None and labels[column] != best
                title = f"{best} ({probability:.0%})" + (
                    f", is {labels[column]}" if labels is not None and wrong else ""
                )
                axes.set_title(title, fontsize=8, color=COLOURS[1] if wrong else "black")
    return save(figure, path, software=software)


def _grids(net: Net, images: Tensor) -> list[NDArray[np.float32]]:
    """Return for each transformer the positions (B, H, W, 2) in pixels of the input, from 0 at its outer edge."""
    if not isinstance(net, SpatialTransformerNet):
        return []
    height, width = images.shape[-2:]
    grids = []
    for transformer in net.spatial_transformers():
        grid = transformer.grid(transformer.theta(images)).float().cpu()
        grids.append(torch.stack([to_pixels(grid[..., 0], width), to_pixels(grid[..., 1], height)], dim=-1).numpy())
    return grids


@torch.no_grad()
def draw_windows(images: Tensor, transformer: SpatialTransformer, boxes: Tensor, path: Path) -> Path | None:
    """Draw a column for each image of (N, 1, H, W): the predicted window and the true box (N, 4) on it, and the window below."""
    if not len(images):
        return None
    theta = transformer.theta(images)
    windows = transformer.warp(images, theta).float().cpu().numpy()
    predicted = to_pixels(window_boxes(theta).float(), images.shape[-1]).cpu().numpy()
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
        _show(figure.add_subplot(2, len(images), len(images) + column + 1), windows[column, 0])
    return save(figure, path)


def _show(axes: Axes, image: NDArray[np.float32]) -> None:
    height, width = image.shape
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    axes.set_axis_off()


def _draw_grid(axes: Axes, grid: NDArray[np.float32], colour: str) -> None:
    """Draw some rows and columns of a grid (H, W, 2) as lines, clipped at the image."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    height, width = grid.shape[:2]
    rows, columns = (np.linspace(0, size - 1, _LINES).round().astype(int) for size in (height, width))
    for line in [*grid[rows], *grid.transpose(1, 0, 2)[columns]]:
        axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=0.6)
    axes.set_xlim(0, right)
    axes.set_ylim(bottom, 0)


def draw_class_means(means: NDArray[np.float32], names: list[str], path: Path) -> Path:
    """Draw a row for each evaluation, the mean of each class in it: means (evaluations, classes, C, H, W), `names` of the rows."""
    evaluations, classes, channels = means.shape[:3]
    figure = new_figure(0.7 * classes, 0.75 * evaluations * channels + 0.2)
    for evaluation in range(evaluations):
        for channel in range(channels):
            row = evaluation * channels + channel
            for column in range(classes):
                axes = figure.add_subplot(evaluations * channels, classes, row * classes + column + 1)
                _show(axes, means[evaluation, column, channel])
                if column == 0:
                    axes.set_title(names[evaluation], fontsize=7, loc="left")
    return save(figure, path)


@torch.no_grad()
def draw_numbers(net: HouseNumberNet, images: Tensor, labels: Tensor, path: Path) -> Path:
    """Draw a column for each photograph (B, 3, H, W): the predicted number; below, the output of the first transformer."""
    predicted = net(images).float().argmax(2)
    theta = input_theta(net, images)
    rows = 1 if theta is None else 2
    figure = new_figure(_INCH * len(images), _INCH * rows + 0.3)
    first = net.transformers["0"] if theta is not None else None
    for column, image in enumerate(images):
        axes = figure.add_subplot(rows, len(images), column + 1)
        _show_photograph(axes, image)
        number, truth = to_number(predicted[column]), to_number(labels[column])
        axes.set_title(number or "none", fontsize=8, color="black" if number == truth else COLOURS[1])
        if theta is not None and isinstance(first, SpatialTransformer):
            grid = first.grid(theta[column : column + 1]).float().cpu()[0]
            pixels = torch.stack([to_pixels(grid[..., 0], image.shape[2]), to_pixels(grid[..., 1], image.shape[1])], -1)
            _draw_grid(axes, pixels.numpy(), COLOURS[0])
            _show_photograph(
                figure.add_subplot(2, len(images), len(images) + column + 1),
                first.warp(images[column : column + 1], theta[column : column + 1])[0],
            )
    return save(figure, path)


@torch.no_grad()
def draw_parts(
    net: PartsNet,
    images: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    path: Path,
    *,
    software: str = "paperbench",
) -> Path:
    """Draw a column for each photograph (B, 3, H, W): its windows on it, the predicted class, and below the input of each trunk."""
    predicted = net(images).float().argmax(1).cpu()
    parts = net.parts(images)
    centres = net.centres(images).float().cpu() if net.placer is not None else torch.zeros(len(images), 0, 2)
    size = images.shape[-1]
    rows = 1 + len(parts)
    figure = new_figure(_INCH * len(images), _INCH * rows + 0.3)
    for column, image in enumerate(images):
        axes = figure.add_subplot(rows, len(images), column + 1)
        _show_photograph(axes, image)
        name = classes[int(predicted[column])]
        axes.set_title(
            name[:18], fontsize=7, color="black" if int(predicted[column]) == int(labels[column]) else COLOURS[1]
        )
        for centre, colour in zip(centres[column], COLOURS, strict=False):
            (x1, y1), (x2, y2) = (to_pixels(centre + sign * net.window.scale, size).tolist() for sign in (-1, 1))
            axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, linewidth=1)
        axes.set_xlim(0, size)
        axes.set_ylim(size, 0)
        for row, part in enumerate(parts, start=1):
            _show_photograph(figure.add_subplot(rows, len(images), row * len(images) + column + 1), part[column])
    return save(figure, path, software=software)


def _show_photograph(axes: Axes, image: Tensor) -> None:
    """Show a photograph (3, H, W) in 0..1."""
    height, width = image.shape[1:]
    axes.imshow(image.float().clamp(0, 1).permute(1, 2, 0).cpu().numpy(), extent=(0, width, height, 0))
    axes.set_axis_off()
