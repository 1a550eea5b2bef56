"""Faults of annotations and images: all are found before training, each named by file and object.

With `on_bad_box="error"` they end in one `DataError`; with `"drop"` the faulty box, or the image that cannot be used, is
left out and counted by reason; `"clip"` does the same, but cuts a box that reaches beyond its image instead of leaving it out.
A box that reaches at most `SLACK` pixels beyond its image is a difference of convention (0- or 1-based, rounded or not): it is
clipped and counted as repaired, never refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from paperbench.config.words import counted
from paperbench.data.detection import DetectionSet
from paperbench.data.image_files import READERS, BadImageError
from paperbench.data.pictures import Picture
from paperbench.errors import DataError

OnBadBox = Literal["error", "drop", "clip"]

SLACK: Final = 1.0
THINNEST: Final = 1e-3
"""Pixels on a side below which a box has no area: what subtracting rounded numbers leaves of one that was drawn without."""
REPAIRED: Final = "reached up to a pixel beyond the image"
CUT: Final = "reached further beyond the image"
_SHOWN: Final = 20
_LONG: Final = 60
"""Characters from which a detail is said once, and not again in each line."""
_LEVELS: Final = re.compile(r"up to \d+ ")
"""Part of a note that differs from file to file."""

NOT_FINITE: Final = "coordinates that are not finite"
INVERTED: Final = "inverted corners"
ZERO_AREA: Final = "zero area"
FRACTIONS: Final = "within the first pixel, where all boxes are: they count pixels, and are no shares of the image"
OUTSIDE: Final = "outside the image"
UNKNOWN_CLASS: Final = "unknown class"
BAD_VALUE: Final = "a value that cannot be read"
NO_MASK: Final = "no mask"
BAD_MASK: Final = "a mask that cannot be read"


class Faults:
    """Collects what is wrong with one split of a data set. `remedy` closes the message where images are left."""

    def __init__(
        self,
        title: str,
        on_bad_box: OnBadBox,
        *,
        remedy: str = "Correct the files, or leave out and count what is faulty: data.on_bad_box=drop "
        "(clip cuts boxes that leave their image)",
    ) -> None:
        if on_bad_box not in get_args(OnBadBox):
            raise ValueError(f"on_bad_box is {on_bad_box!r}; it takes 'error', 'drop' or 'clip'")
        self._title = title
        self._remedy = remedy
        self._raises = on_bad_box == "error"
        self._shown: list[str] = []
        self._details: set[tuple[str, str]] = set()
        self.counts: Counter[str] = Counter()

    def add(self, reason: str, where: str, detail: str) -> None:
        """Add a fault: `where` names file and object, `detail` the value; `reason` is the key in `DetectionSet.dropped`."""
        self.counts[reason] += 1
        if len(self._shown) < _SHOWN:
            again = len(detail) > _LONG and (reason, detail) in self._details
            text = "as above" if again else detail
            self._shown.append(f"{where}: {reason}: {text}" if text else f"{where}: {reason}")
            self._details.add((reason, detail))

    def finish(self, images_left: int) -> dict[str, int]:
        """The counts, in order of first appearance. Raises DataError for faults not to be dropped, or if no image is left."""
        if self.counts and (self._raises or images_left == 0):
            raise DataError(self._message(images_left))
        return dict(self.counts)

    def _message(self, images_left: int) -> str:
        total = self.counts.total()
        lines = [
            f"{self._title}: {total} {'fault' if total == 1 else 'faults'} in the data",
            *(f"  {s}" for s in self._shown),
        ]
        if total > len(self._shown):
            lines.append(f"  and {total - len(self._shown)} more")
        if len(self.counts) > 1:
            lines.append("In all: " + ", ".join(f"{count} x {reason}" for reason, count in self.counts.most_common()))
        lines.append(self._remedy if images_left else "No usable image is left: correct the files or data.root")
        return "\n".join(lines)


def examine_boxes(
    corners: NDArray[np.float64], sizes: NDArray[np.int64], *, first_pixel: int | None, clip: bool = False
) -> tuple[NDArray[np.float64], list[str | None], NDArray[np.float64]]:
    """Convert boxes as files hold them to continuous 0-based `xyxy`, clipped to the image, and find the faulty ones.

    corners: (N, 4) x1, y1, x2, y2 as written; sizes: (N, 2) height and width of each box's image.
    first_pixel: what the file calls the first pixel (1 for VOC), both corners included; None for corners that are
    continuous and 0-based already. A box whose corners coincide counts as zero area in every convention. Where no box reaches
    beyond 1 and some have fractions, all are shares of the image, and faulty. clip: boxes that reach
    further than `SLACK` beyond their image are sound as well, if part of them lies within.
    Returns boxes (N, 4); the reason for each faulty box, else None; and (N,) the pixels by which a sound box was clipped.
    """
    corners = np.asarray(corners, np.float64).reshape(-1, 4)
    sizes = np.asarray(sizes, np.int64).reshape(-1, 2)
    finite: NDArray[np.bool_] = np.all(np.isfinite(corners), axis=1)
    raw = np.where(finite[:, None], corners, 0.0)
    boxes = (
        raw if first_pixel is None else raw + np.array([-first_pixel, -first_pixel, 1 - first_pixel, 1 - first_pixel])
    )
    limits = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    clipped = np.clip(boxes, 0, limits)
    shift = np.abs(clipped - boxes).max(axis=1, initial=0)
    x1, y1, x2, y2 = raw.T
    left, top, right, bottom = clipped.T
    fractions = bool(finite.any()) and raw.max() <= 1 and bool((raw % 1).any())
    conditions = (
        (NOT_FINITE, ~finite),
        (INVERTED, (x2 < x1) | (y2 < y1)),
        (ZERO_AREA, (x2 - x1 < THINNEST) | (y2 - y1 < THINNEST)),
        (FRACTIONS, np.full(len(raw), fractions)),
        (OUTSIDE, ((shift > SLACK) & (not clip)) | (right - left < THINNEST) | (bottom - top < THINNEST)),
    )
    kind = np.select([fault for _, fault in conditions], range(len(conditions)), default=-1)
    reasons = [conditions[k][0] if k >= 0 else None for k in kind.tolist()]
    return clipped, reasons, np.where(kind < 0, shift, 0.0)


def repairs(clipped: NDArray[np.float64]) -> dict[str, int]:
    """Count the boxes of `examine_boxes` that were clipped, by reason; nothing where none was."""
    counts = {REPAIRED: int(((clipped > 0) & (clipped <= SLACK)).sum()), CUT: int((clipped > SLACK).sum())}
    return {reason: count for reason, count in counts.items() if count}


def show_box(corners: Iterable[float]) -> str:
    """Format the four numbers of a box."""
    return "(" + ", ".join(f"{value:g}" for value in corners) + ")"


# --- a whole data set -------------------------------------------------------------------------------------------------


def check_dataset(dataset: DetectionSet) -> dict[str, Any]:
    """Decode every image and every mask, and count what there is.

    Returns images, objects, objects by class, images without objects, difficult and crowd objects, smallest and largest
    image, what was dropped, repaired and remarked on. Raises DataError with every image that does not decode to its announced size
    and every mask that cannot be read.
    """

    def faults_of(index: int) -> tuple[list[tuple[str, str, str]], tuple[str, ...]]:
        record = dataset.records[index]
        found: list[tuple[str, str, str]] = []
        notes: tuple[str, ...] = ()
        try:
            picture = dataset.picture(index) if dataset.picture else Picture(pixels=dataset.decode(index))
            height, width = picture.pixels.shape[:2]
            notes = tuple(_LEVELS.sub("", note) for note in picture.notes if not note.startswith("EXIF"))
            if (height, width) != (record.height, record.width):
                announced = f"{width} x {height} decoded, {record.width} x {record.height} announced"
                found.append(("size contradicts the image", record.source, announced))
        except BadImageError as error:
            found.append((error.reason, str(error.path), error.detail))
        except DataError as error:
            found.append(("unreadable image", record.source, str(error)))
        try:
            if dataset.masks is not None:
                dataset.masks(index)
        except DataError as error:
            found.append((BAD_MASK, record.source, str(error)))
        return found, notes

    with ThreadPoolExecutor(READERS) as pool:
        answers = list(pool.map(faults_of, range(len(dataset))))
    remedy = "Replace these files, or take them out of the split"
    faults = Faults(f"{dataset.name} ({dataset.split})", "error", remedy=remedy)
    for found, _ in answers:
        for entry in found:
            faults.add(*entry)
    faults.finish(len(dataset))
    remarks = Counter(dataset.remarks)
    # What a note says about EXIF is among the remarks of the reader.
    remarks.update(note for _, notes in answers for note in notes)

    records = dataset.records
    labels = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)])
    by_class = np.bincount(labels, minlength=len(dataset.classes) + 1)[1:]
    counts: dict[str, Any] = {
        "images": len(records),
        "objects": len(labels),
        "images without objects": sum(len(record.labels) == 0 for record in records),
        "difficult objects": sum(int(record.difficult.sum()) for record in records),
        "crowd regions": sum(int(record.crowd.sum()) for record in records),
    }
    if records:
        small = min(records, key=lambda record: (record.width * record.height, record.width))
        large = max(records, key=lambda record: (record.width * record.height, record.width))
        counts |= {
            "smallest image": f"{small.width} x {small.height}",
            "largest image": f"{large.width} x {large.height}",
        }
    counts |= {
        f"from {source.name}": f"{counted(source.images, 'images')}, {counted(source.objects, 'objects')}"
        for source in dataset.sources
    }
    counts |= {f"left out: {reason}": count for reason, count in dataset.dropped.items()}
    counts |= {f"clipped: {reason}": count for reason, count in dataset.repaired.items()}
    counts |= remarks
    return counts | {"objects by class": dict(zip(dataset.classes, by_class.tolist(), strict=True))}
