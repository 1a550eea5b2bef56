"""Pictures of the specialists: the confusion that chose them, and what they gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from paperbench.engine.figures import COLOURS, new_figure, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NAMES = 50


def confusion(matrix: Tensor, sets: Sequence[Sequence[int]], classes: Sequence[str], output: Path) -> None:
    """The covariance of the generalist's predictions as correlations, the classes in the order of their specialists, and beside it
    which specialist knows which class.

    matrix: (K, K), of `clusters.covariance`. A class that several know stands with the first of them.
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
    """Table 4 as bars: the relative gain by how many specialists know a class, with the number of images above each."""
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
        title="what specialists gain",
        x="specialists that know the class",
        y="more images right, % of those before",
    )
    bars = axes.bar(range(len(numbers)), gains, color=COLOURS[0])
    axes.bar_label(bars, [f"{metrics[f'coverage/{number}/examples']:.0f}" for number in numbers], fontsize=7, padding=2)
    axes.set_xticks(range(len(numbers)), [str(number) for number in numbers])
    axes.margins(y=0.15)
    save(figure, output)
