"""True quality of the masks of segmenters: mean Dice scores, a table and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paperbench.engine.figures import COLOURS, new_figure, save, tidy
from paperbench.rca.evaluation import number as text_of
from paperbench.rca.evaluation import write_table
from paperbench.rca.scoring import true_scores
from paperbench.rca.segmenters.splits import MaskFolder, Splits


@dataclass(frozen=True, kw_only=True)
class Quality:
    """True Dice score of one mask and label; NaN where neither the mask nor the truth contains it."""

    case: str
    stage: str
    label: str
    dsc: float


def measure_quality(splits: Splits, masks: MaskFolder, stages: Sequence[str]) -> list[Quality]:
    """Return the quality of every mask of every case."""
    out = []
    for number in splits.cases:
        image = splits.read(number)
        image = replace(image, masks={stage: masks.read(stage, number, image.intensities.shape) for stage in stages})
        for stage in stages:
            rows = true_scores(image, stage, splits.source.labels, ["dsc"])
            assert rows is not None
            out += [
                Quality(case=image.name, stage=stage, label=label, dsc=row["dsc"])
                for label, row in zip(splits.source.labels.names, rows, strict=True)
            ]
    return out


def dice_metrics(quality: Sequence[Quality], prefix: str = "segment") -> dict[str, float]:
    """Return mean Dice scores by stage, and by stage and label, with the number of masks; `missed` counts scores of 0."""
    out: dict[str, float] = {}
    groups: dict[str, list[float]] = {}
    for name, item in [(f"{prefix}/{q.stage}", q) for q in quality] + [
        (f"{prefix}/{q.stage}/{q.label}", q) for q in quality
    ]:
        groups.setdefault(name, []).append(item.dsc)
    for name, values in groups.items():
        defined = [value for value in values if not math.isnan(value)]
        out[f"{name}/masks"] = len(defined)
        if defined:
            out[f"{name}/dsc"] = float(np.mean(defined))
            out[f"{name}/missed"] = sum(value == 0 for value in defined)
    return out


def write_quality(quality: Sequence[Quality], path: Path) -> None:
    """Write a line for each mask and label: its true Dice score, empty where it is undefined."""
    rows = ({"case": q.case, "segmenter": q.stage, "label": q.label, "dsc": text_of(q.dsc)} for q in quality)
    write_table(path, ("case", "segmenter", "label", "dsc"), rows)


def draw_quality(quality: Sequence[Quality], stages: Sequence[str], output: Path) -> Path:
    """Draw box plots of the Dice scores, one group for each stage, one box for each label."""
    labels = list(dict.fromkeys(item.label for item in quality))
    figure = new_figure(2 + 1.1 * len(stages) * max(1, len(labels) / 3), 3.6)
    axes = figure.add_subplot(1, 1, 1)
    tidy(axes, title="Dice score of the masks", y="DSC")
    width = 0.8 / len(labels)
    for index, label in enumerate(labels):
        columns = [
            [q.dsc for q in quality if q.stage == stage and q.label == label and q.dsc == q.dsc] for stage in stages
        ]
        places = [position + (index - (len(labels) - 1) / 2) * width for position in range(len(stages))]
        colour = COLOURS[index % len(COLOURS)]
        boxes = axes.boxplot(columns, positions=places, widths=0.8 * width, flierprops={"markersize": 2, "alpha": 0.5})
        for part in ("boxes", "whiskers", "caps", "medians", "fliers"):
            for line in boxes[part]:
                line.set_color(colour)
        axes.plot([], [], color=colour, label=label)
    axes.set_xticks(range(len(stages)), list(stages))
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return save(figure, output)
