"""Pictures of a distillation: hard and soft targets of examples, the course of the stages, the errors that a bias leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from paperbench.distill.bias import best_bias
from paperbench.distill.inputs import Images
from paperbench.distill.losses import Average, soft_targets
from paperbench.engine import metriclog
from paperbench.engine.figures import COLOURS, new_figure, save, smooth, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CLASSES = 20
"""Bars that still have room for their names."""

_DECADE = 10
"""Within a factor of that, an axis without logarithms is easier to read."""


def targets(
    images: Images,
    teachers: Tensor,
    *,
    temperature: float,
    average: Average,
    count: int,
    output: Path,
) -> None:
    """Examples with their hard target, and what the teacher says at T = 1 and at `temperature`, as in the talk on the paper.

    teachers: (M, N, K) logits of the images. Shown are images that the teacher gets right and tells most about: the highest entropy
    at `temperature`, at first one of each class.
    """
    warm = soft_targets(teachers, temperature=temperature, average=average).cpu()
    plain = soft_targets(teachers, temperature=1.0, average=average).cpu()
    labels = images.labels.cpu()
    chosen = _telling(warm, plain, labels, count)
    if not chosen:
        return
    figure = new_figure(9.5, 1.15 * len(chosen) + 0.4)
    grid = figure.add_gridspec(len(chosen), 4, width_ratios=(1, 2.4, 2.4, 2.4))
    for row, number in enumerate(chosen):
        picture = figure.add_subplot(grid[row, 0])
        picture.imshow(_displayed(images.pixels[number]), cmap="gray", vmin=0, vmax=255)
        picture.set_axis_off()
        hard = torch.nn.functional.one_hot(labels[number], warm.shape[1]).float()
        panels = (
            ("hard target", hard),
            ("teacher, T = 1", plain[number]),
            (f"teacher, T = {temperature:g}", warm[number]),
        )
        for column, (title, values) in enumerate(panels, start=1):
            axes = figure.add_subplot(grid[row, column])
            _bars(axes, values, images.classes, true=int(labels[number]), title=title if row == 0 else "")
    save(figure, output)


def _telling(warm: Tensor, plain: Tensor, labels: Tensor, count: int) -> list[int]:
    entropy = -torch.xlogy(warm, warm).sum(1)
    entropy[plain.argmax(1) != labels] = -1.0
    order = [number for number in entropy.argsort(descending=True).tolist() if entropy[number] >= 0]
    first: dict[int, int] = {}
    for number in order:
        first.setdefault(int(labels[number]), number)
    chosen = list(first.values())[:count]
    taken = set(chosen)
    chosen += [number for number in order[: count + len(first)] if number not in taken][: count - len(chosen)]
    return sorted(chosen, key=lambda number: int(labels[number]))


def _displayed(pixels: Tensor) -> np.ndarray[Any, Any]:
    """(C, H, W) uint8 as (H, W) or (H, W, 3)."""
    return pixels[0].cpu().numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).cpu().numpy()


def _bars(axes: Axes, values: Tensor, classes: Sequence[str], *, true: int, title: str) -> None:
    tidy(axes, title=title)
    positions = np.arange(len(values))
    colours = [COLOURS[1] if position == true else COLOURS[0] for position in positions]
    axes.bar(positions, values.numpy(), color=colours, width=0.8)
    axes.set_ylim(0, max(1e-6, float(values.max())) * 1.1)
    axes.locator_params(axis="y", nbins=2)
    if len(values) <= _MOST_CLASSES:
        axes.set_xticks(positions, classes, fontsize=7)
    else:
        axes.set_xticks([true], [classes[true]], fontsize=7)


_Line = tuple[str, list[float], list[float]]
"""Label, steps, values."""


def course(metrics: Path, stages: Mapping[str, str], output: Path) -> None:
    """Loss and test errors of the stages over their steps, from a run's `metrics.jsonl`.

    stages: name -> how to call it; stages that are called the same have one colour.
    """
    records = metriclog.read(metrics)
    quantities = (("train/loss", "loss", "nats"), ("test/error", "test error", "%"))
    panels = [(title, unit, _lines(records, key, stages)) for key, title, unit in quantities]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return
    figure = new_figure(4.6 * len(panels), 3.2)
    for column, (title, unit, lines) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), column)
        tidy(axes, title=title, x="step", y=unit)
        _draw_lines(axes, lines, smoothed=title == "loss")
    save(figure, output)


def _lines(records: Sequence[Mapping[str, Any]], key: str, stages: Mapping[str, str]) -> list[_Line]:
    lines: list[_Line] = []
    for name, label in stages.items():
        points = [(r["step"], r[f"{name}/{key}"]) for r in records if isinstance(r.get(f"{name}/{key}"), int | float)]
        if points:
            lines.append((label, [step for step, _ in points], [value for _, value in points]))
    return lines


def _draw_lines(axes: Axes, lines: Sequence[_Line], *, smoothed: bool) -> None:
    labels = list(dict.fromkeys(label for label, _, _ in lines))
    named: set[str] = set()
    for label, steps, values in lines:
        axes.plot(
            steps,
            smooth(np.array(values)) if smoothed else values,
            color=COLOURS[labels.index(label) % len(COLOURS)],
            label="" if label in named else label,
            marker="o" if len(steps) < 3 else "",
            linewidth=1 if sum(other == label for other, _, _ in lines) > 1 else None,
        )
        named.add(label)
    every = [value for _, _, values in lines for value in values]
    if min(every) > 0 and max(every) > _DECADE * min(every):
        axes.set_yscale("log")
    axes.legend(fontsize=8, frameon=False)


def bias_curve(
    logits: Tensor, labels: Tensor, classes: Sequence[int], names: str, *, chosen: Mapping[str, float], output: Path
) -> None:
    """Test errors against what is added to the logits of `classes`, with the constants that were chosen."""
    z, y = logits.double().cpu(), labels.cpu()
    best = best_bias(z, y, classes).bias
    reach = max(2.0, 2 * abs(best), *(1.2 * abs(value) for value in chosen.values()))
    places = torch.linspace(-reach if best < 0 else -0.25 * reach, reach if best > 0 else 0.25 * reach, 241).double()
    added = torch.zeros(z.shape[1], dtype=torch.float64)
    added[list(classes)] = 1.0
    counts = [int(((z + place * added).argmax(1) != y).sum()) for place in places]
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    tidy(axes, title=f"errors after a bias on {names}", x="added to the logits", y="test errors")
    axes.plot(places.numpy(), counts, color=COLOURS[0])
    for number, (label, value) in enumerate(chosen.items(), start=1):
        axes.axvline(value, color=COLOURS[number], linewidth=1, linestyle="--", label=f"{label} ({value:+.2f})")
    axes.legend(fontsize=8, frameon=False)
    save(figure, output)
