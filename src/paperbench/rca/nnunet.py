"""An nnU-Net archive as it lies on disk: `imagesTr` and `labelsTr` as references, `imagesTs` as cases, predictions as masks.

`images=DIR` names the archive, and every key that is given beside it stands. Images end in the number of their channel, `_0000`;
the first channel is used. Names of labels come from `dataset.json`, in the form of nnU-Net 1 and 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from paperbench.config import unique_keys
from paperbench.config.paths import expanded
from paperbench.data.layout import read_text
from paperbench.data.volumes import stem
from paperbench.errors import DataError
from paperbench.rca.config import RcaEstimate

TRAINING, TEST = ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")
FILE: Final = "dataset.json"
_CHANNEL: Final = re.compile(r"(.+)_(\d{4})$")
_IGNORED: Final = "ignore"


@dataclass(frozen=True, kw_only=True)
class LabelNames:
    """Names by value, of `dataset.json`. ignored: the value of voxels that nnU-Net leaves out; None where there is none."""

    names: Mapping[int, str]
    ignored: int | None = None
    remarks: tuple[str, ...] = ()


NO_NAMES: Final = LabelNames(names={})


def is_archive(folder: Path) -> bool:
    """Return True for a folder that holds `imagesTr` or `imagesTs`."""
    return any((folder / name).is_dir() for name in (TRAINING[0], TEST[0]))


def completed(config: RcaEstimate) -> RcaEstimate:
    """Return the configuration with the folders of the archive that `images` names; any other as it is.

    Raises DataError for an archive that lacks a part.
    """
    root = expanded(config.images) if config.images else None
    if root is None or not is_archive(root):
        return config
    reference = config.reference
    if not (reference.images or reference.masks):
        reference = replace(
            reference, images=str(_part(root, TRAINING[0])), masks=str(_part(root, TRAINING[1], "correct masks"))
        )
    images = _part(root, TEST[0], "the images whose masks are scored")
    masks = config.masks or tuple(map(str, predictions_in(root)))
    truth = config.truth or (str(root / TEST[1]) if _holds_images(root / TEST[1]) else "")
    return replace(config, images=str(images), masks=masks, truth=truth, reference=reference)


def _part(root: Path, name: str, meaning: str = "") -> Path:
    if not _holds_images(root / name):
        what = f", {meaning}" if meaning else ""
        raise DataError(
            f"images={root}: is an nnU-Net archive without {name}/{what}; add it, or name each folder: images=, masks=, "
            "reference.images=, reference.masks="
        )
    return root / name


def predictions_in(root: Path) -> list[Path]:
    """Return the folders whose files are named as the images of `imagesTs`, one or two levels deep. Raises DataError for none."""
    cases = {_case(name) for name in _names(root / TEST[0])}
    known = {*TRAINING, *TEST}
    tops = [path for path in _folders(root) if path.name not in known]
    found = [path for top in tops for path in (top, *_folders(top)) if cases & _names(path)]
    if not found:
        raise DataError(
            f"images={root}: no folder in it holds files named as the images of {TEST[0]}/ (such as {min(cases, default='')}); "
            "masks=DIR names the predictions"
        )
    return found


def _case(name: str) -> str:
    channel = _CHANNEL.fullmatch(name)
    return channel[1] if channel else name


def _names(folder: Path) -> set[str]:
    return {name for path in _listed(folder) if path.is_file() and (name := stem(path)) is not None}


def _folders(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if path.is_dir() and not path.name.startswith(".")]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _holds_images(folder: Path) -> bool:
    return bool(_names(folder))


def first_channels(names: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return the names without further channels of an image (`x_0001` beside `x_0000`), and the numbers of those left out."""
    every = list(names)
    held = set(every)
    kept, left = [], set()
    for name in every:
        channel = _CHANNEL.fullmatch(name)
        if channel and int(channel[2]) > 0 and f"{channel[1]}_0000" in held:
            left.add(channel[2])
        else:
            kept.append(name)
    return kept, left


# --- dataset.json -----------------------------------------------------------------------------------------------------


def label_names(images: str) -> LabelNames:
    """Return the names in the `dataset.json` beside a folder `imagesTr` or `imagesTs`; none for any other folder.

    Raises DataError for a file that cannot be read, and for labels that are none.
    """
    folder = expanded(images)
    path = folder.parent / FILE
    if folder.name not in (TRAINING[0], TEST[0]) or not path.is_file():
        return NO_NAMES
    text = read_text(path)
    try:
        content = unique_keys.load_json(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}; correct it, or take it away and give labels.names"
        ) from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict):
        raise DataError(f"{path}: has no table 'labels'; correct it, or take it away and give labels.names")
    names: dict[int, str] = {}
    ignored, regions = None, []
    for key, value in labels.items():
        number, name = _number_and_name(path, key, value)
        if number is None:
            regions.append(name)
        elif name == _IGNORED:
            ignored = number
        elif number > 0:
            if number in names or name in names.values():
                raise DataError(f"{path}: labels: {name} ({number}) is there twice")
            names[number] = name
    remarks = []
    if regions:
        remarks.append(f"{path}: {', '.join(regions)} are regions of several labels, which have no names of their own")
    return LabelNames(names=names, ignored=ignored, remarks=tuple(remarks))


def _number_and_name(path: Path, key: str, value: object) -> tuple[int | None, str]:
    """Return value and name of an entry, `"liver": 1` of version 2 or `"1": "liver"` of version 1; no value for a region."""
    if isinstance(value, list):
        return None, key
    if isinstance(value, int) and not isinstance(value, bool):
        return value, key
    if isinstance(value, str) and key.isdecimal():
        return int(key), value
    raise DataError(f'{path}: labels: {key!r}: {value!r} is neither "NAME": NUMBER nor "NUMBER": "NAME"')
