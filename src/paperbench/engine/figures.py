"""The loss curves of a run, drawn from its `metrics.jsonl`. matplotlib without its global state, and no torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paperbench.engine import metriclog
from paperbench.engine.files import explain_os_errors, replace_file, temporary_name
from paperbench.engine.outputs import MARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which people with any common colour blindness can tell apart; dark ones first."""

_LOSS = "train/loss"
_RATE = "train/lr"
_DPI = 120


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, apart from pyplot: there is no global state, so threads may draw at once."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Titles, a light grid, and no frame above or to the right."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write_png(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a PNG by `write(file)`, whole or not at all, and return its path. Raises `EnvironmentError_` or `DiskFullError`."""
    temporary = temporary_name(path)
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            replace_file(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def save(figure: Figure, path: Path, *, software: str = "paperbench") -> Path:
    """Write a PNG, whole or not at all, and return its path. Raises `EnvironmentError_` or `DiskFullError`.

    `software` is the text in it that says who wrote it, see `outputs.is_marked`.
    """
    return write_png(path, lambda file: figure.savefig(file, format="png", metadata={MARK: software}))


def save_image(image: Image, path: Path, *, software: str = "paperbench") -> Path:
    """`save` for an image of Pillow."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text(MARK, software)
    return write_png(path, lambda file: image.save(file, format="PNG", pnginfo=text))


def smooth(values: NDArray[np.float64], *, share: float = 0.05) -> NDArray[np.float64]:
    """Exponential mean of (N,) finite values over about `share` of them, without the pull of a starting value."""
    decay = 1 - 2 / (max(1.0, share * len(values)) + 1)
    out = np.empty(len(values))
    total, weight = 0.0, 0.0
    for index, value in enumerate(values):
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out[index] = total / weight
    return out


def loss_curves(metrics: Path, output: Path) -> Path | None:
    """Draw `train/loss`, its parts `train/loss_<name>` and the learning rate over the steps of a run.

    `metrics` is a run's `metrics.jsonl`, `output` the PNG to write. Logged values are drawn faint, with their smoothed
    course over them. Returns None, and writes nothing, when no loss was logged.
    """
    records = metriclog.read(metrics)
    parts = sorted({name for record in records for name in record if _is_part(name)})
    panels = [names for names in ([_LOSS], parts if len(parts) > 1 else [], [_RATE]) if _any_logged(records, names)]
    if not any(_LOSS in names or names is parts for names in panels):
        return None
    figure = new_figure(4.2 * len(panels), 3.2)
    for column, names in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), column)
        tidy(axes, title=_title(names), x="step")
        axes.locator_params(axis="x", integer=True)
        if names == [_RATE]:
            axes.plot(*_series(records, _RATE), color=COLOURS[0], linewidth=1.5)
        else:
            _draw_losses(axes, records, names)
    return save(figure, output)


def _draw_losses(axes: Axes, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    lowest, highest = np.inf, -np.inf
    for index, name in enumerate(names):
        steps, values = _series(records, name)
        if not len(values):
            continue
        colour = COLOURS[index % len(COLOURS)]
        course = smooth(values)
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
        axes.plot(steps, course, color=colour, linewidth=1.8, marker="o" if len(values) == 1 else "",
                  label=_part_name(name))  # fmt: skip
        lowest, highest = min(lowest, course.min()), max(highest, course.max())
    if lowest > 0 and highest > 20 * lowest:
        axes.set_yscale("log")
    if len(names) > 1:
        axes.legend(fontsize=8, frameon=False)


def _series(records: Sequence[Mapping[str, Any]], name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps and values at which `name` was logged as a finite number; null stands for one that was not finite."""
    found = [(record["step"], record[name]) for record in records if isinstance(record.get(name), int | float)]
    return np.array([step for step, _ in found], np.int64), np.array([value for _, value in found], np.float64)


def _is_part(name: str) -> bool:
    return name.startswith((f"{_LOSS}_", f"{_LOSS}/"))


def _part_name(name: str) -> str:
    """`train/loss_rpn_box` -> `rpn box`."""
    return name[len(_LOSS) + 1 :].replace("_", " ")


def _any_logged(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    return any(len(_series(records, name)[0]) for name in names)


def _title(names: Sequence[str]) -> str:
    if list(names) == [_RATE]:
        return "learning rate"
    return "loss" if list(names) == [_LOSS] else "its parts"
