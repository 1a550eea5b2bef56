"""What `paperbench estimate rca` needs beside the masks: images, truth, references, and a manifest that names them all.

Files of a set on disk are copied as they are, so that a run's folder holds everything that is to be judged and can be moved.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path

from paperbench.config.paths import short
from paperbench.data.volumes import stem
from paperbench.engine.figures import COLOURS, new_figure, save, tidy
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.rca.folders import COLUMNS
from paperbench.rca.segmenters.making import Quality
from paperbench.rca.segmenters.masks import MaskFolder, write_array
from paperbench.rca.segmenters.shares import Shares
from paperbench.rca.tables import number as text_of
from paperbench.rca.tables import write as write_table

MANIFEST = "manifest.csv"
PREDICTIONS = "predictions"


def hand_over(shares: Shares, masks: MaskFolder, stages: Sequence[str], folder: Path) -> None:
    """Writes `cases/{images,truth}`, `references/{images,masks}` and the manifest below `folder`."""
    rows = []
    for numbers, place, truth in ((shares.references, "references", "masks"), (shares.segmented, "cases", "truth")):
        for number in numbers:
            image, mask = _copied(shares, number, folder / place / "images", folder / place / truth)
            row = {
                "role": _role(shares, number),
                "case": shares.name_of(number),
                "image": image.relative_to(folder).as_posix(),
                "truth": mask.relative_to(folder).as_posix(),
            }
            if place == "references":
                rows.append(row)
                continue
            paths = {stage: masks.path(stage, number).relative_to(folder).as_posix() for stage in stages}
            rows += [{**row, "segmenter": stage, "mask": path} for stage, path in paths.items()]
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, fieldnames=list(COLUMNS), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / MANIFEST, content.getvalue())


def _role(shares: Shares, number: int) -> str:
    if number in shares.references:
        return "reference"
    return "calibration" if number in shares.calibration else "case"


def _copied(shares: Shares, number: int, images: Path, truths: Path) -> tuple[Path, Path]:
    """Image and true mask below the two folders, both under the name of the image."""
    name = shares.name_of(number)
    if not shares.files:
        picture = shares.read(number)
        assert picture.truth is not None
        places = images / f"{name}.nii.gz", truths / f"{name}.nii.gz"
        write_array(places[0], picture.image, None)
        write_array(places[1], picture.truth, None)
        return places
    pair = shares.files[number]
    places = images / f"{name}{_ending(pair.image)}", truths / f"{name}{_ending(pair.mask)}"
    for source, place in zip((pair.image, pair.mask), places, strict=True):
        with explain_os_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, source.read_bytes())
    return places


def _ending(path: Path) -> str:
    return path.name[len(stem(path) or path.stem) :]


def command(shares: Shares, folder: Path) -> str:
    """What to type to have the masks judged."""
    labels = shares.source.labels
    words = [f"manifest={shlex.quote(short(folder / MANIFEST))}"]
    if labels.kind != "values":
        words.append(f"labels.kind={labels.kind}")
    words.append(f"labels.values=[{','.join(map(str, labels.values))}]")
    words.append(shlex.quote(f"labels.names=[{','.join(labels.names)}]"))
    if shares.calibration:
        words.append("calibration.kind=labelled")
    return f"paperbench estimate rca {' '.join(words)}"


def write_quality(found: Sequence[Quality], path: Path) -> None:
    """A line a mask and organ: its real Dice score, empty where it is not defined."""
    rows = ({"case": q.case, "segmenter": q.stage, "label": q.label, "dsc": text_of(q.dsc)} for q in found)
    write_table(path, ("case", "segmenter", "label", "dsc"), rows)


def draw_quality(found: Sequence[Quality], stages: Sequence[str], output: Path) -> Path:
    """How the Dice scores of each organ lie, stage beside stage."""
    labels = list(dict.fromkeys(item.label for item in found))
    figure = new_figure(2 + 1.1 * len(stages) * max(1, len(labels) / 3), 3.6)
    axes = figure.add_subplot(1, 1, 1)
    tidy(axes, title="Dice score of the masks", y="DSC")
    width = 0.8 / len(labels)
    for index, label in enumerate(labels):
        columns = [
            [q.dsc for q in found if q.stage == stage and q.label == label and q.dsc == q.dsc] for stage in stages
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
