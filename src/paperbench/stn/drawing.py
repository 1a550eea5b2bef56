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
from paperbench.stn.build import Net
from paperbench.stn.geometry import to_pixels
from paperbench.stn.inputs import DistortedImages
from paperbench.stn.learner import Classification
from paperbench.stn.networks import TransformedNet

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
    for transformer in net.transformers:
        grid = transformer.grid(transformer.theta(images)).float().cpu()
        found.append(torch.stack([to_pixels(grid[..., 0], width), to_pixels(grid[..., 1], height)], dim=-1).numpy())
    return found


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
