"""Figures of a distillation: hard and soft targets, learning curves, errors by bias, and confusion and gain of specialists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from paperbench.distill.batches import Images
from paperbench.distill.evaluation import best_bias
from paperbench.distill.losses import Average, soft_targets
from paperbench.engine import metriclog
from paperbench.engine.figures import COLOURS, new_figure, save, smooth, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CLASSES = 20
"""Bars with room for their names."""

_DECADE = 10
"""Within this factor a linear axis is easier to read than a logarithmic one."""


def targets(
    images: Images,
    teachers: Tensor,
    *,
    temperature: float,
    average: Average,
    count: int,
    output: Path,
) -> None:
    """Draw examples with their hard target and the teacher's soft targets at T = 1 and at `temperature`, as in the talk on the
    paper.

    teachers: (M, N, K) logits of the images. The examples are the correctly classified images with the highest entropy at
    `temperature`, first one of each class.
    """
    warm = soft_targets(teachers, temperature=temperature, average=average).cpu()
    plain = soft_targets(teachers, temperature=1.0, average=average).cpu()
    labels = images.labels.cpu()
    chosen = _informative(warm, plain, labels, count)
    if not chosen:
        return
    figure = new_figure(9.5, 1.15 * len(chosen) + 0.4)
    grid = figure.add_gridspec(len(chosen), 4, width_ratios=(1, 2.4, 2.4, 2.4))
    for row, number in enumerate(chosen):
        example = figure.add_subplot(grid[row, 0])
        example.imshow(_displayed(images.pixels[number]), cmap="gray", vmin=0, vmax=255)
        example.set_axis_off()
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


def draw_answer(
    pixels: Tensor, probabilities: Tensor, classes: Sequence[str], output: Path, *, software: str = "paperbench"
) -> None:
    """Draw an image (C, H, W) uint8 beside the classes that its probabilities (K,) name as the most likely ones."""
    values, chosen = probabilities.topk(min(_MOST_CLASSES, len(classes)))
    figure = new_figure(6.4, 2.6)
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.6))
    example = figure.add_subplot(grid[0, 0])
    example.imshow(_displayed(pixels), cmap="gray", vmin=0, vmax=255)
    example.set_axis_off()
    axes = figure.add_subplot(grid[0, 1])
    tidy(axes, title=f"{classes[int(chosen[0])]} {float(values[0]):.3f}", x="probability")
    places = np.arange(len(values))[::-1]
    axes.barh(places, values.numpy(), color=COLOURS[0])
    axes.set_yticks(places, [classes[int(number)][:24] for number in chosen], fontsize=7)
    axes.set_xlim(0, 1)
    save(figure, output, software=software)


def _informative(warm: Tensor, plain: Tensor, labels: Tensor, count: int) -> list[int]:
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


def learning_curves(metrics: Path, stages: Mapping[str, str], output: Path) -> None:
    """Draw loss and test errors of the stages over their steps, from a run's `metrics.jsonl`.

    stages: name -> label; stages with the same label have one colour.
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
    """Draw test errors against the bias on the logits of `classes`, and the biases `chosen`, by their label."""
    z, y = logits.cpu().double(), labels.cpu()
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


# --- specialists ------------------------------------------------------------------------------------------------------


_MOST_NAMES = 50


def confusion(matrix: Tensor, sets: Sequence[Sequence[int]], classes: Sequence[str], output: Path) -> None:
    """Draw the covariance of the generalist's predictions as correlations, the classes in the order of their specialists, and the
    classes of each specialist below it.

    matrix: (K, K), of `model.covariance`. A class of several specialists stands with the first of them.
    """
    order = _ordered(sets, len(classes))
    spread = matrix.diagonal().clamp_min(1e-300).sqrt()
    shown = (matrix / spread[:, None] / spread[None, :]).fill_diagonal_(0.0)[order][:, order].cpu().numpy()
    reach = max(1e-6, float(np.quantile(np.abs(shown), 0.995)))
    known = np.zeros((len(sets), len(classes)))
    for number, members in enumerate(sets):
        known[number, list(members)] = 1
    figure = new_figure(7.2, 8.4)
    top, bottom = figure.subplots(2, 1, gridspec_kw={"height_ratios": (7, max(1.0, 0.16 * len(sets)))}, sharex=True)
    tidy(top, title="how the generalist's predictions vary together (correlation)")
    picture = top.imshow(shown, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
    figure.colorbar(picture, ax=top, fraction=0.035)
    tidy(bottom, title="classes of each specialist")
    bottom.imshow(known[:, order], cmap="Greys", vmin=0, vmax=1.4, aspect="auto", interpolation="nearest")
    bottom.set_yticks(range(len(sets)))
    _name(top, bottom, [classes[number] for number in order])
    save(figure, output)


def _ordered(sets: Sequence[Sequence[int]], count: int) -> list[int]:
    placed = list(dict.fromkeys(number for members in sets for number in members))
    taken = set(placed)
    return placed + [number for number in range(count) if number not in taken]


def _name(top: Axes, bottom: Axes, names: Sequence[str]) -> None:
    for axes in (top, bottom):
        axes.grid(visible=False)
        if len(names) <= _MOST_NAMES:
            axes.set_xticks(range(len(names)), names, fontsize=6, rotation=90)
    if len(names) <= _MOST_NAMES:
        top.set_yticks(range(len(names)), names, fontsize=6)


def coverage(metrics: Mapping[str, float], output: Path) -> None:
    """Draw table 4 as bars: the relative gain by the number of specialists that know a class, the number of images above each."""
    numbers = sorted(
        int(name.split("/")[1]) for name in metrics if name.startswith("coverage/") and name.endswith("/relative_gain")
    )
    if not numbers:
        return
    gains = [metrics[f"coverage/{number}/relative_gain"] for number in numbers]
    figure = new_figure(5.4, 3.4)
    axes = figure.add_subplot()
    tidy(
        axes,
        title="gain of the specialists",
        x="specialists that know the class",
        y="more images correct, % of those before",
    )
    bars = axes.bar(range(len(numbers)), gains, color=COLOURS[0])
    axes.bar_label(bars, [f"{metrics[f'coverage/{number}/examples']:.0f}" for number in numbers], fontsize=7, padding=2)
    axes.set_xticks(range(len(numbers)), [str(number) for number in numbers])
    axes.margins(y=0.15)
    save(figure, output)
