"""Figures: predicted against true quality, and the worst masks with the reference of their best score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.engine.figures import COLOURS, new_figure, save, tidy
from paperbench.rca.cases import Image, normalised
from paperbench.rca.evaluation import pearson
from paperbench.rca.labels import Labels
from paperbench.rca.prediction import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELS = len(COLOURS)


def scatter(predictions: Sequence[Prediction], output: Path, metric: str, threshold: float | None) -> Path | None:
    """Draw one point for each mask, one colour for each label; best score and calibrated value in two panels.

    None without truth.
    """
    known = [p for p in predictions if math.isfinite(p.mask.real) and math.isfinite(p.best)]
    if not known:
        return None
    panels = [("best reference", lambda p: p.best)]
    if any(math.isfinite(p.calibrated) for p in known):
        panels.append(("calibrated", lambda p: p.calibrated))
    figure = new_figure(4.4 * len(panels), 4.2)
    for column, (title, value) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), column)
        points = [(p.mask.label, p.mask.real, value(p)) for p in known if math.isfinite(value(p))]
        tidy(axes, title=f"{title}, {len(points)} masks", x=f"real {metric}", y=f"predicted {metric}")
        _points(axes, points)
        largest = max(1.0, *(max(real, predicted) for _, real, predicted in points))
        axes.plot([0, largest], [0, largest], color="#888888", linewidth=1)
        if threshold is not None:
            for line in (axes.axvline, axes.axhline):
                line(threshold, color="#bbbbbb", linewidth=0.8, linestyle="--")
        axes.legend(fontsize=7, frameon=False, loc="upper left")
    return save(figure, output)


def _points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    labels = list(dict.fromkeys(label for label, _, _ in points))
    for index, label in enumerate(labels):
        own = np.array([(real, predicted) for name, real, predicted in points if name == label])
        r = pearson(own[:, 1], own[:, 0])
        text = label if math.isnan(r) else f"{label} (r {r:.2f})"
        axes.scatter(own[:, 0], own[:, 1], s=10, alpha=0.7, color=COLOURS[index % MOST_LABELS], label=text)


def worst(
    image: Image,
    segmenter: str,
    reference: Image,
    predicted: NDArray[np.int64],
    labels: Labels,
    prediction: Prediction,
    output: Path,
) -> Path:
    """Draw the mask, and the reference with its true mask (lines) and its predicted labels (dashes)."""
    assert reference.truth is not None
    index = labels.names.index(prediction.mask.label)
    figure = new_figure(8.4, 4.4)
    real = "" if math.isnan(prediction.mask.real) else f", real {prediction.mask.real:.3f}"
    title = f"{image.name}, {segmenter}: {prediction.mask.label} {prediction.best:.3f}{real}"
    own = figure.add_subplot(1, 2, 1)
    mask = _planes(labels, image.masks[segmenter])
    place = _slice(mask[index])
    _show(own, normalised(image.intensities)[place], title)
    _outline(own, [plane[place] for plane in mask], "-")
    other = figure.add_subplot(1, 2, 2)
    truth, labelled = _planes(labels, reference.truth), _planes(labels, predicted)
    place = _slice(truth[index])
    _show(other, normalised(reference.intensities)[place], f"reference {reference.name}: truth —, predicted - -")
    _outline(other, [plane[place] for plane in truth], "-")
    _outline(other, [plane[place] for plane in labelled], "--")
    return save(figure, output)


def first_look(
    image: Image,
    segmenter: str,
    labels: Labels,
    predictions: Sequence[Prediction],
    output: Path,
    *,
    metric: str,
    threshold: float | None,
) -> Path:
    """Draw an image, its mask on it, and the predicted quality of every label with its interval.

    predictions: of the labels of one mask. The slice of a volume is that with most of the label with the worst prediction, which
    comes first.
    """
    planes = _planes(labels, image.masks[segmenter])
    place = _slice(planes[labels.names.index(predictions[0].mask.label)])
    picture = normalised(image.intensities)[place]
    figure = new_figure(10.2, max(3.2, 1.2 + 0.32 * len(predictions)))
    grid = figure.add_gridspec(1, 3, width_ratios=(1, 1, 1.15))
    _show(figure.add_subplot(grid[0, 0]), picture, image.name)
    on_it = figure.add_subplot(grid[0, 1])
    _show(on_it, picture, f"mask of {segmenter}")
    _outline(on_it, [plane[place] for plane in planes], "-")
    axes = figure.add_subplot(grid[0, 2])
    tidy(axes, title="interval (line), value (dot), real (cross)", x=metric)
    _intervals(axes, labels, predictions)
    if threshold is not None:
        axes.axvline(threshold, color="#bbbbbb", linewidth=0.8, linestyle="--")
    return save(figure, output)


def _intervals(axes: Axes, labels: Labels, predictions: Sequence[Prediction]) -> None:
    """Draw a line for each label: its interval, its value (calibrated where it can be), and the real one where it is known."""
    places = range(len(predictions) - 1, -1, -1)
    for place, prediction in zip(places, predictions, strict=True):
        colour = COLOURS[1 + labels.names.index(prediction.mask.label) % (MOST_LABELS - 1)]
        if math.isfinite(prediction.low) and math.isfinite(prediction.high):
            axes.plot([prediction.low, prediction.high], [place, place], color=colour, linewidth=2.2, alpha=0.6)
        if math.isfinite(value := value_of(prediction)):
            axes.plot([value], [place], "o", color=colour, markersize=5)
        if math.isfinite(prediction.mask.real):
            axes.plot([prediction.mask.real], [place], "x", color="black", markersize=6)
    axes.set_yticks(list(places), [prediction.mask.label[:24] for prediction in predictions], fontsize=7)
    axes.set_ylim(-0.6, len(predictions) - 0.4)
    axes.set_xlim(left=0)
    if all(not math.isfinite(p.mask.real) or p.mask.real <= 1 for p in predictions) and axes.get_xlim()[1] <= 1.1:
        axes.set_xlim(0, 1)


def value_of(prediction: Prediction) -> float:
    """Return the calibrated value, or the best score where there is no calibration."""
    return prediction.calibrated if math.isfinite(prediction.calibrated) else prediction.best


def _planes(labels: Labels, values: NDArray[np.int64]) -> NDArray[np.bool_]:
    return labels.planes(torch.from_numpy(np.ascontiguousarray(values))).numpy()


def _slice(plane: NDArray[np.bool_]) -> tuple[slice | int, ...]:
    """Return the whole of a 2-D image; of a volume the slice across the last axis with most of the mask, else the middle one."""
    if plane.ndim == 2:
        return (slice(None), slice(None))
    sizes = plane.sum((0, 1))
    return (slice(None), slice(None), int(sizes.argmax()) if sizes.any() else plane.shape[2] // 2)


def _show(axes: Axes, image: NDArray[np.float64], title: str) -> None:
    axes.imshow(image, cmap="gray", interpolation="nearest")
    axes.set_title(title, fontsize=8, loc="left")
    axes.set_axis_off()


def _outline(axes: Axes, planes: Sequence[NDArray[np.bool_]], style: str) -> None:
    for index, plane in enumerate(planes):
        if plane.any() and not plane.all():
            colour = COLOURS[1 + index % (MOST_LABELS - 1)]
            axes.contour(plane.astype(float), levels=[0.5], colors=[colour], linewidths=1.1, linestyles=[style])
