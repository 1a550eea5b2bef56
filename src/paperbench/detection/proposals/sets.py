"""Proposals of a whole data set, and the file they travel in.

A file is a NumPy archive (`.npz`) with

===========  =================  ============================================================================
`boxes`      (N, 4) float32     `x1 y1 x2 y2`, continuous, 0-based, in pixels of the image as it is stored
`scores`     (N,) float32       higher is better; the boxes of an image stand in this order, best first
`offsets`    (I + 1,) int64     boxes `offsets[i]` to `offsets[i + 1]` belong to image i
`images`     (I,) str           the data set's names of its images; the stem of the file in VOC, the id in COCO
`sizes`      (I, 2) int64       height and width of each image, so that boxes of other pixels are noticed
`about`      () str             JSON: `format` (1), `method`, `settings`, `dataset`, `split`
===========  =================  ============================================================================

and can be written by any program: `np.savez(file, boxes=..., ...)`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet
from paperbench.engine.arrays import read_arrays
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.errors import DataError

FORMAT = 1
ARRAYS = {"boxes": 2, "scores": 1, "offsets": 1, "images": 1, "sizes": 2, "about": 0}
"""Names of a file's arrays and their numbers of dimensions."""
KINDS = {"boxes": "fiu", "scores": "fiu", "offsets": "iu", "images": "U", "sizes": "iu", "about": "U"}
"""What values each may hold, as `dtype.kind` has it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ProposalSet:
    """`boxes[i]` (P, 4) float32 xyxy and `scores[i]` (P,) float32, best first, of the image called `images[i]`.

    sizes: (I, 2) int64 height and width. method, settings, dataset, split: where the boxes come from, in words.
    """

    images: tuple[str, ...]
    sizes: NDArray[np.int64]
    boxes: Sequence[NDArray[np.float32]]
    scores: Sequence[NDArray[np.float32]]
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""
    split: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def best(self, count: int) -> ProposalSet:
        """At most the best `count` boxes of each image; 0 is all of them."""
        if not count:
            return self
        return ProposalSet(
            **{**vars(self), "boxes": [b[:count] for b in self.boxes], "scores": [s[:count] for s in self.scores]}
        )

    def of(self, dataset: DetectionSet, *, source: str = "these proposals") -> ProposalSet:
        """The same for the images of `dataset`, in its order.

        Raises `DataError` for a set that names another data set or split (generated scenes are numbered alike in all of them), and
        naming images that have no entry, or an entry of another size: `source` is what it calls this set.
        """
        made_for, wanted = (self.dataset, self.split), (dataset.name, dataset.split)
        if all(made_for) and made_for != wanted:
            raise DataError(
                f"{source}: its proposals are for {' '.join(made_for)}, not for {' '.join(wanted)}; give the file of this split"
            )
        place = {name: row for row, name in enumerate(self.images)}
        names = [str(record.image_id) for record in dataset.records]
        missing = [name for name in names if name not in place]
        if missing:
            raise DataError(
                f"{source}: no proposals for {len(missing)} of the {len(names)} images of {dataset.name} {dataset.split}, "
                f"such as {missing[0]}; make them for this data set and split"
            )
        rows = [place[name] for name in names]
        for record, row in zip(dataset.records, rows, strict=True):
            if (record.height, record.width) != tuple(self.sizes[row].tolist()):
                height, width = self.sizes[row].tolist()
                raise DataError(
                    f"{source}: image {record.image_id} is {record.width} x {record.height} pixels, its proposals are for "
                    f"{width} x {height}; make them for these images"
                )
        return ProposalSet(
            images=tuple(names),
            sizes=self.sizes[rows],
            boxes=[self.boxes[row] for row in rows],
            scores=[self.scores[row] for row in rows],
            method=self.method,
            settings=self.settings,
            dataset=dataset.name,
            split=dataset.split,
        )

    def write(self, path: Path) -> None:
        """Write the file, entirely or not at all."""
        counts = [len(scores) for scores in self.scores]
        about = {
            "format": FORMAT,
            "method": self.method,
            "settings": dict(self.settings),
            "dataset": self.dataset,
            "split": self.split,
        }
        content = io.BytesIO()
        np.savez(
            content,
            boxes=np.concatenate([np.zeros((0, 4), np.float32), *self.boxes]).astype(np.float32),
            scores=np.concatenate([np.zeros(0, np.float32), *self.scores]).astype(np.float32),
            offsets=np.cumsum([0, *counts]).astype(np.int64),
            images=np.array(self.images, dtype=np.str_),
            sizes=np.asarray(self.sizes, np.int64).reshape(-1, 2),
            about=np.array(json.dumps(about)),
        )
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content.getvalue())


def read(path: Path) -> ProposalSet:
    """The proposals of a file. Raises `DataError` that names the file and the first thing in it that cannot be right."""
    try:
        arrays = read_arrays(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `paperbench proposals` writes one") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as proposals ({error}); make the file anew") from error
    if isinstance(arrays, np.ndarray):
        raise DataError(
            f"{path}: cannot be read as proposals (it is one array, not an archive of several); make the file anew"
        )
    fault = _fault(arrays)
    if fault:
        raise DataError(f"{path}: {fault}; docs/detection.md has the format")
    about = json.loads(str(arrays["about"]))
    cuts = arrays["offsets"][1:-1]
    return ProposalSet(
        images=tuple(arrays["images"].tolist()),
        sizes=arrays["sizes"].astype(np.int64),
        boxes=np.split(arrays["boxes"].astype(np.float32), cuts) if len(arrays["images"]) else [],
        scores=np.split(arrays["scores"].astype(np.float32), cuts) if len(arrays["images"]) else [],
        method=str(about.get("method", "")),
        settings=about.get("settings", {}),
        dataset=str(about.get("dataset", "")),
        split=str(about.get("split", "")),
    )


def _fault(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Describe the first fault in the content of a file; empty for none."""
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        return f"has no array {missing[0]!r}"
    for name, dimensions in ARRAYS.items():
        if arrays[name].ndim != dimensions:
            return f"{name!r} has {arrays[name].ndim} dimensions instead of {dimensions}"
        if arrays[name].dtype.kind not in KINDS[name]:
            return f"{name!r} holds values of type {arrays[name].dtype}"
    try:
        about = json.loads(str(arrays["about"]))
    except ValueError:
        return "'about' is no JSON"
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        return f"'about' names no format {FORMAT}"
    return _wrong_shapes(arrays) or _wrong_boxes(arrays)


def _wrong_shapes(arrays: Mapping[str, NDArray[Any]]) -> str:
    boxes, offsets, images = arrays["boxes"], arrays["offsets"], arrays["images"]
    if boxes.shape != (len(arrays["scores"]), 4):
        return f"'boxes' has the shape {boxes.shape} beside {len(arrays['scores'])} scores"
    if len(offsets) != len(images) + 1 or arrays["sizes"].shape != (len(images), 2):
        return f"{len(images)} images beside {len(offsets)} offsets and sizes of the shape {arrays['sizes'].shape}"
    if offsets[0] != 0 or offsets[-1] != len(boxes) or (np.diff(offsets) < 0).any():
        return f"'offsets' do not cut {len(boxes)} boxes into parts"
    names, counts = np.unique(images, return_counts=True)
    return f"image {names[counts.argmax()]} stands in it twice" if (counts > 1).any() else ""


def _wrong_boxes(arrays: Mapping[str, NDArray[Any]]) -> str:
    boxes, scores = arrays["boxes"], arrays["scores"]
    image = np.repeat(np.arange(len(arrays["images"])), np.diff(arrays["offsets"]))
    limits = arrays["sizes"][image][:, [1, 0]] + 1e-3
    wrong = ~(np.isfinite(boxes).all(1) & np.isfinite(scores))
    wrong |= (boxes[:, 2:] <= boxes[:, :2]).any(1) | (boxes[:, :2] < 0).any(1) | (boxes[:, 2:] > limits).any(1)
    if wrong.any():
        row = int(wrong.argmax())
        return f"box {boxes[row].tolist()} of image {arrays['images'][image[row]]} is not inside the image, or empty"
    falling = (np.diff(scores) <= 0) | (np.diff(image) > 0)
    if not falling.all():
        return f"the scores of image {arrays['images'][image[int((~falling).argmax())]]} do not fall"
    return ""
