"""Detections as text files, one for each image: `class x y width height confidence` a line, as YOLO programs write and read them.

Centre and sides are shares of the image's width and height. An image without a file has no detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from paperbench.data.detection import DetectionSet, Record
from paperbench.data.faults import Faults
from paperbench.data.yolo_files import looks_like_labels, read_detections
from paperbench.detection.evaluation.detections import Detections
from paperbench.errors import DataError

_FARTHEST: Final = 1000.0


def write_yolo(folder: Path, dataset: DetectionSet, detections: Sequence[Detections]) -> None:
    """Write `<image id>.txt` for each image in which something was found; `detections[i]` belongs to `dataset.records[i]`.

    Classes are the numbers of the data's own files, `dataset.category_ids`. Shares and scores have ten digits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for record, found in zip(dataset.records, detections, strict=True):
        if len(found):
            path = folder / f"{record.image_id}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(_lines(record, found, dataset.category_ids)), encoding="utf-8")


def _lines(record: Record, found: Detections, numbers: Sequence[int | str]) -> list[str]:
    boxes = found.boxes.astype(np.float64)
    sides = np.array([record.width, record.height], np.float64)
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2 / sides, (boxes[:, 2:] - boxes[:, :2]) / sides
    return [
        f"{numbers[label - 1]} {' '.join(f'{value:.10g}' for value in (*centre, *size, score))}\n"
        for label, centre, size, score in zip(
            found.labels.tolist(), centres.tolist(), sizes.tolist(), found.scores.tolist(), strict=True
        )
    ]


def read_yolo(folder: Path, dataset: DetectionSet, classes: Mapping[int, str]) -> list[Detections]:
    """The detections of each image of `dataset`. classes: names of all numbers that may stand in the files; detections of those
    that `dataset` does not use are left out.

    Raises DataError that names every fault by file and line: a line that is none, a class that the data do not have, a file for an
    image that is not in the split, and a folder without a file for any image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; dt=DIR is the folder of a text file for each image")
    faults = Faults(str(folder), "error", remedy="Nothing was scored: correct the files of detections")
    names = {str(record.image_id) for record in dataset.records}
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.txt"))}
    strays = [path for name, path in files.items() if name not in names and looks_like_labels(path)]
    if not names & files.keys():
        found = ", ".join(sorted(files)[:3]) or "no *.txt"
        raise DataError(
            f"{folder}: no file for any of the {len(names)} images of {dataset.split}, such as "
            f"{next(iter(names), 'image')}.txt; it holds {found}. Check dt= and split="
        )
    for path in strays:
        faults.add("unknown image", str(path), f"no image of that name is in {dataset.split}")
    label_of = {number: label for label, number in enumerate(dataset.category_ids, start=1)}
    detections = []
    for record in dataset.records:
        path = files.get(str(record.image_id))
        lines = [item for item in (read_detections(path, classes, faults) if path else []) if item.number in label_of]
        for item in lines:
            if item.kind == "box" and min(item.values[2:]) < 0:
                faults.add("no box", item.where, "its width or height is below 0")
        far = [item for item in lines if max(map(abs, item.values)) > _FARTHEST]
        for item in far:
            faults.add(
                "no box", item.where, f"its numbers are shares of the image, and reach {_FARTHEST:g} images beyond it"
            )
        lines = [item for item in lines if item not in far]
        boxes = np.array([item.corners(record.height, record.width) for item in lines], np.float64).reshape(-1, 4)
        detections.append(
            Detections(
                boxes=boxes,
                scores=np.array([item.confidence for item in lines], np.float64),
                labels=np.array([label_of[item.number] for item in lines], np.int64),
            )
        )
    faults.finish(1)
    return detections
