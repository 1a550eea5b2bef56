"""Several data sets as one, and images that stand in two places.

The classes of a joined set are those of its parts by name, in the order in which they first stand there. Images of two splits are
compared by what their files hold: a copy under another name is found, a picture that was written anew is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet, Record, Source
from paperbench.data.image_files import READERS

_END: Final = 4096
"""Bytes at the end of a file that tell most images of one length apart."""
_Item = TypeVar("_Item")


def join(parts: Sequence[tuple[str, DetectionSet]], *, limit: int = 0) -> DetectionSet:
    """Join data sets of one format, each with the name of its source, in their order; one alone keeps everything but its split.

    limit: keeps the first images only; 0 keeps all. Image ids stay where no two sources share one, else each is `source/id`.
    Category ids are each file's own and are left out. Masks are kept if some part has them; objects of the others have empty ones.
    What is counted in `remarks` besides the parts' own: images of a source that has no word of a class of another, where the
    class may be seen and not annotated, and images that stand in two sources.
    """
    sets = [part for _, part in parts]
    classes = tuple(dict.fromkeys(name for part in sets for name in part.classes))
    places = [(number, row) for number, part in enumerate(sets) for row in range(len(part))][: limit or None]
    ids = [str(record.image_id) for part in sets for record in part.records]
    shared_ids = len(set(ids)) < len(ids)

    def record_at(number: int, row: int) -> Record:
        name, part = parts[number]
        record = part.records[row]
        labels = np.array([0, *(classes.index(known) + 1 for known in part.classes)], np.int64)
        key = f"{name}/{record.image_id}" if shared_ids else record.image_id
        return replace(record, image_id=key, labels=labels[record.labels])

    records = [record_at(*place) for place in places]
    pictures = [part.picture for part in sets if part.picture]
    files = [sets[number].files[row] for number, row in places] if all(part.files for part in sets) else []
    return DetectionSet(
        name=sets[0].name,
        split=" + ".join(name for name, _ in parts),
        classes=classes,
        records=records,
        decode=_each([part.decode for part in sets], places),
        dropped=_summed([part.dropped for part in sets]),
        repaired=_summed([part.repaired for part in sets]),
        remarks=_summed([part.remarks for part in sets]) | _unknown(parts, classes) | _repeated(parts, files, places),
        masks=_masks(sets, places) if any(part.masks for part in sets) else None,
        picture=_each(pictures, places) if len(pictures) == len(sets) else None,
        files=files,
        sources=tuple(_source(name, _of(number, records, places)) for number, (name, _) in enumerate(parts)),
    )


def _source(name: str, records: Sequence[Record]) -> Source:
    return Source(name, len(records), sum(len(record.labels) for record in records))


def _of(number: int, items: Sequence[_Item], places: Sequence[tuple[int, int]]) -> list[_Item]:
    """Return the items of part `number`."""
    return [item for item, (own, _) in zip(items, places, strict=True) if own == number]


def _unknown(parts: Sequence[tuple[str, DetectionSet]], classes: Sequence[str]) -> dict[str, int]:
    """Count the images of each part whose annotations do not know every class."""
    remarks = {}
    for name, part in parts:
        unknown = [known for known in classes if known not in part.classes]
        if unknown:
            shown = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
            text = f"images of {name}, whose annotations know no {shown}: what is seen of it there counts as background"
            remarks[text] = len(part)
    return remarks


def _repeated(
    parts: Sequence[tuple[str, DetectionSet]], files: Sequence[Path], places: Sequence[tuple[int, int]]
) -> dict[str, int]:
    """Count the images of each part that one before it has as well."""
    remarks = {}
    before: list[Path] = []
    for number, (name, _) in enumerate(parts):
        own = _of(number, files, places) if files else []
        twice = same_images(before, own)
        if twice:
            remarks[f"images of {name} that an earlier source has as well: {_pair(twice[0])}"] = len(twice)
        before += own
    return remarks


def shared_with(test: DetectionSet, train: DetectionSet) -> DetectionSet:
    """Return `test` with a remark on its images that the training split has as well; `test` itself where there is none."""
    if not test.files or not train.files:
        return test
    both = same_images(train.files, test.files)
    if not both:
        return test
    text = f"images that are in the training split too, so that numbers are better than on new ones: {_pair(both[0])}"
    return replace(test, remarks={**test.remarks, text: len(both)})


def same_images(first: Sequence[Path], second: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pairs of files with the same content, one for each of `second` that has a twin in `first`.

    Few files are read whole: only those whose length and last bytes a file of the other list has too.
    """
    if not first or not second:
        return []
    pairs = [(0, path) for path in dict.fromkeys(first)] + [(1, path) for path in dict.fromkeys(second)]
    with ThreadPoolExecutor(READERS) as pool:
        for key in (_length, _last_bytes, _content):
            keys = list(pool.map(key, (path for _, path in pairs)))
            sides: dict[Hashable, set[int]] = {}
            for (side, _), value in zip(pairs, keys, strict=True):
                sides.setdefault(value, set()).add(side)
            kept = [row for row, value in enumerate(keys) if value is not None and len(sides[value]) == 2]
            pairs, keys = [pairs[row] for row in kept], [keys[row] for row in kept]
    twin = {value: path for (side, path), value in zip(pairs, keys, strict=True) if side == 0}
    return [(twin[value], path) for (side, path), value in zip(pairs, keys, strict=True) if side == 1]


def _length(path: Path) -> Hashable | None:
    try:
        return path.stat().st_size or None
    except OSError:
        return None


def _last_bytes(path: Path) -> Hashable | None:
    try:
        with path.open("rb") as file:
            length = file.seek(0, 2)
            file.seek(max(0, length - _END))
            return length, hashlib.sha256(file.read()).digest()
    except OSError:
        return None


def _content(path: Path) -> Hashable | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _pair(paths: tuple[Path, Path]) -> str:
    there, here = paths
    return str(here) if there == here else f"{here} is {there}"


def _each(readers: Sequence[Callable[[int], _Item]], places: Sequence[tuple[int, int]]) -> Callable[[int], _Item]:
    def read(index: int) -> _Item:
        number, row = places[index]
        return readers[number](row)

    return read


def _masks(parts: Sequence[DetectionSet], places: Sequence[tuple[int, int]]) -> Callable[[int], NDArray[np.bool_]]:
    def drawn(index: int) -> NDArray[np.bool_]:
        number, row = places[index]
        masks, record = parts[number].masks, parts[number].records[row]
        return masks(row) if masks else np.zeros((len(record.labels), record.height, record.width), bool)

    return drawn


def _summed(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for reason, count in part.items():
            total[reason] = total.get(reason, 0) + count
    return total
