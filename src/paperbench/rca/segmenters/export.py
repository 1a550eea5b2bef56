"""Export of segmented images for `paperbench estimate rca`: images, truth, references, and a manifest that lists them.

Files of a set on disk are copied unchanged, so that a run's folder is complete and can be moved.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from paperbench.config.commands import command as command_line
from paperbench.config.commands import override
from paperbench.config.paths import short
from paperbench.config.quoting import hydra_text
from paperbench.data.volumes import stem
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.rca.manifest import COLUMNS
from paperbench.rca.segmenters.splits import MaskFolder, Splits, write_array

MANIFEST = "manifest.csv"


def export_cases(splits: Splits, masks: MaskFolder, stages: Sequence[str], folder: Path) -> None:
    """Write `cases/{images,truth}`, `references/{images,masks}` and the manifest below `folder`."""
    rows = []
    for numbers, place, truth in ((splits.references, "references", "masks"), (splits.segmented, "cases", "truth")):
        for number in numbers:
            image, mask = _copy(splits, number, folder / place / "images", folder / place / truth)
            row = {
                "role": _role(splits, number),
                "case": splits.name_of(number),
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


def _role(splits: Splits, number: int) -> str:
    if number in splits.references:
        return "reference"
    return "calibration" if number in splits.calibration else "case"


def _copy(splits: Splits, number: int, images: Path, truths: Path) -> tuple[Path, Path]:
    """Copy image and true mask into the two folders, both under the name of the image; return their paths."""
    name = splits.name_of(number)
    if not splits.files:
        image = splits.read(number)
        assert image.truth is not None
        places = images / f"{name}.nii.gz", truths / f"{name}.nii.gz"
        write_array(places[0], image.intensities, None)
        write_array(places[1], image.truth, None)
        return places
    pair = splits.files[number]
    places = images / f"{name}{_ending(pair.image)}", truths / f"{name}{_ending(pair.mask)}"
    for source, place in zip((pair.image, pair.mask), places, strict=True):
        with explain_os_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, source.read_bytes())
    return places


def _ending(path: Path) -> str:
    return path.name[len(stem(path) or path.stem) :]


def command(splits: Splits, folder: Path) -> str:
    """Return the command that estimates the quality of the masks."""
    labels = splits.source.labels
    words = [override("manifest", short(folder / MANIFEST))]
    if labels.kind != "values":
        words.append(f"labels.kind={labels.kind}")
    words.append(f"labels.values=[{','.join(map(str, labels.values))}]")
    words.append(f"labels.names=[{','.join(map(hydra_text, labels.names))}]")
    if splits.calibration:
        words.append("calibration.kind=labelled")
    return command_line("estimate", "rca", *words)
