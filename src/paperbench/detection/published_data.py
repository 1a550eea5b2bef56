"""Splits of VOC and COCO on disk held against the published ones, by their numbers of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from paperbench.data import coco, voc_layout
from paperbench.data.layout import count_departure
from paperbench.errors import DataError

_VOC: Final = {
    "2007": {"train": 2501, "val": 2510, "trainval": 5011, "test": 4952},
    "2012": {"train": 5717, "val": 5823, "trainval": 11540, "test": 10991},
}
_COCO: Final = {"train2017": 118_287, "val2017": 5_000}
_CHUNK: Final = 1 << 24
_IMAGE_KEY: Final = b'"file_name"'
"""A key that every image of an annotation file has, and nothing else in it."""


def departures(data: Mapping[str, Any]) -> list[str]:
    """Return which of the splits of a `data` section have another number of images than the published ones; see
    `DatasetSpec.departures`. Splits of other names have none. Raises DataError."""
    return list(_of_voc(data) if data["name"] == "voc" else _of_coco(data))


def _of_voc(data: Mapping[str, Any]) -> Iterator[str]:
    own = str(data.get("year"))
    splits = [(name, *name.split("/")) for name in data.get("train") or ()]
    splits = splits or [(str(data.get("train_split")), own, str(data.get("train_split")))]
    tested = [] if data.get("test_fraction") else [(str(data.get("test_split")), own, str(data.get("test_split")))]
    for name, year, split in (*splits, *tested):
        published = _VOC.get(year, {}).get(split)
        yield from _departure(name, published and _in_voc(data, year, split), published)


def _of_coco(data: Mapping[str, Any]) -> Iterator[str]:
    tested = [] if data.get("test_fraction") else [data.get("test_split")]
    for split in (*(data.get("train") or (data.get("train_split"),)), *tested):
        published = _COCO.get(str(split))
        yield from _departure(str(split), published and _in_coco(data, str(split)), published)


def _departure(split: str, found: int | None, published: int | None) -> Iterator[str]:
    if found is not None and published is not None:
        yield from count_departure(split, found, published)


def _in_voc(data: Mapping[str, Any], year: str, split: str) -> int | None:
    """Return the images of a split; None where it is not there: an evaluation needs no training split."""
    layout = voc_layout.find(data.get("root"), year)
    if layout.lists is None:
        return None
    path = layout.lists / f"{split}.txt"
    return sum(bool(line.strip()) for line in path.read_bytes().splitlines()) if path.is_file() else None


def _in_coco(data: Mapping[str, Any], split: str) -> int | None:
    try:
        path, _ = coco.find(data.get("root"), split)
    except DataError:
        return None
    found, rest = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            text = rest + chunk
            found += text.count(_IMAGE_KEY)
            rest = text[-(len(_IMAGE_KEY) - 1) :]
    return found
