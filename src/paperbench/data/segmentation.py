"""Public sets of images with true masks: JSRT's radiographs and the hippocampus volumes of the Medical Segmentation Decathlon.

JSRT (Shiraishi et al. 2000; masks of van Ginneken et al. 2006) is expected as pictures: `JSRT/images` and `JSRT/masks`, one PNG a
radiograph under the same name, masks as the bit field of `JSRT_ORGANS`. Task04 is expected as it is distributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from paperbench.data import layout
from paperbench.data.volumes import stem
from paperbench.errors import DataError

JSRT_ORGANS: Final = {"right lung": 1, "left lung": 2, "heart": 4, "right clavicle": 8, "left clavicle": 16}
HIPPOCAMPUS_PARTS: Final = {"anterior": 1, "posterior": 2}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its true mask."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True, kw_only=True)
class _Set:
    folder: str
    images: str
    masks: str


_SETS: Final = {
    "jsrt": _Set(folder="JSRT", images="images", masks="masks"),
    "hippocampus": _Set(folder="Task04_Hippocampus", images="imagesTr", masks="labelsTr"),
}


def find(name: Literal["jsrt", "hippocampus"], root: str | None) -> list[Pair]:
    """Images with their masks, by name. Raises DataError where folders are missing or a file has no counterpart."""
    place = _SETS[name]
    base = layout.data_root(root)
    folder = base / place.folder
    for part in (place.images, place.masks):
        if not (folder / part).is_dir():
            raise layout.missing(name, base, f"no folder {place.folder}/{part}")
    images, masks = (_files(folder / part) for part in (place.images, place.masks))
    if not images:
        raise layout.missing(name, base, f"no image in {place.folder}/{place.images}")
    alone = sorted(set(images) ^ set(masks))
    if alone:
        raise DataError(
            f"{folder}: {len(alone)} files have no counterpart in the other of {place.images} and {place.masks}: "
            f"{', '.join(alone[:5])}{' and more' if len(alone) > 5 else ''}; complete the set or take them away"
        )
    return [Pair(name=key, image=images[key], mask=masks[key]) for key in sorted(images)]


def _files(folder: Path) -> dict[str, Path]:
    return {name: path for path in sorted(folder.iterdir()) if path.is_file() and (name := stem(path))}
