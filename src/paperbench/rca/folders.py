"""A user's files: images, masks and references matched by file name, or by a CSV manifest.

File names are checked before a run begins, all mistakes together; no image is opened. A fault in the files of one case, such as a
mask on another grid than its image, is a failure of that case, and the run continues.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paperbench.config.paths import expanded
from paperbench.data.volumes import ENDINGS, PICTURES, on_grid_of, read_image, read_labels, stem
from paperbench.errors import ConfigError, DataError
from paperbench.rca.cases import RECORDED, Case, CaseSet, CaseSource, Image, reason
from paperbench.rca.config import RcaEstimate
from paperbench.rca.labels import check_labels, find_labels

COLUMNS = ("role", "case", "image", "segmenter", "mask", "truth")
ROLES = ("case", "reference", "calibration")


@dataclass(kw_only=True)
class Entry:
    """The files of one image."""

    name: str
    image: Path
    masks: dict[str, Path] = field(default_factory=dict)
    truth: Path | None = None


@dataclass(kw_only=True)
class Files:
    """The files of all images, by role."""

    cases: list[Entry]
    references: list[Entry]
    calibration: list[Entry]
    segmenters: tuple[str, ...]
    where: str
    remarks: list[str] = field(default_factory=list)


def find(config: RcaEstimate) -> CaseSource:
    """Match file names; no image is read.

    Raises ConfigError for missing keys and labels that do not fit, DataError for files that do not fit together.
    """
    labels = config.labels
    check_labels(labels.kind, labels.values, labels.names)
    files = _from_manifest(config) if config.manifest else _from_folders(config)
    flat = {entry.image.name.lower().endswith(PICTURES) for entry in files.references}
    return CaseSource(
        read=lambda: load(config, files),
        references=len(files.references),
        dims=2 if flat == {True} else None,
        labels=tuple(labels.names) or tuple(map(str, labels.values)),
        segmenters=files.segmenters,
        description=describe(files),
        remarks=tuple(files.remarks),
    )


def load(config: RcaEstimate, files: Files) -> CaseSet:
    """Read the references; cases are read one by one later. Raises DataError."""
    references = []
    for entry in files.references:
        assert entry.truth is not None
        references.append(read(entry, resample=config.resample, strict=True))
    if len({image.intensities.ndim for image in references}) > 1:
        raise DataError("the references have two and three dimensions; all must have the same number")
    maps = [image.truth for image in references if image.truth is not None]
    labels = find_labels(config.labels.kind, config.labels.values, config.labels.names, maps)

    def case(entry: Entry) -> Case:
        return Case(name=entry.name, load=lambda: read(entry, resample=config.resample))

    return CaseSet(
        labels=labels,
        references=tuple(sorted(references, key=lambda image: image.name)),
        cases=tuple(map(case, files.cases)),
        calibration=tuple(map(case, files.calibration)),
        segmenters=files.segmenters,
        description=describe(files),
        remarks=tuple(files.remarks),
    )


def describe(files: Files) -> str:
    """Describe the data in a few words."""
    truth = sum(entry.truth is not None for entry in files.cases)
    known = f", truth of {truth}" if truth else ""
    return f"{len(files.cases)} images{known}, {len(files.references)} references, from {files.where}"


def read(entry: Entry, *, resample: bool, strict: bool = False) -> Image:
    """Read an image with its masks on its grid.

    A mask that cannot be used is a problem of its segmenter. Raises DataError for an image or a truth that cannot be used and,
    with `strict`, for any mask.
    """
    image = read_image(entry.image)
    masks: dict[str, NDArray[np.int64]] = {}
    problems: dict[str, str] = {}
    for name, path in entry.masks.items():
        try:
            masks[name] = on_grid_of(image, read_labels(path), resample=resample)
        except RECORDED as error:
            if strict:
                raise
            problems[name] = reason(error)
    truth = None if entry.truth is None else on_grid_of(image, read_labels(entry.truth), resample=resample)
    return Image(
        name=entry.name,
        intensities=image.array,
        spacing=image.spacing,
        physical=image.affine is not None,
        masks=masks,
        truth=truth,
        problems=problems,
    )


# --- by folder --------------------------------------------------------------------------------------------------------


def _from_folders(config: RcaEstimate) -> Files:
    needed = {
        "images": config.images,
        "masks": config.masks,
        "reference.images": config.reference.images,
        "reference.masks": config.reference.masks,
    }
    missing = [f"{key} is empty: {key}=DIR is needed beside the others" for key, value in needed.items() if not value]
    calibration = config.calibration
    if calibration.kind == "labelled":
        given = {"images": calibration.images, "masks": calibration.masks, "truth": calibration.truth}
        missing += [
            f"calibration.{key} is empty: calibration.kind=labelled needs it" for key, v in given.items() if not v
        ]
    if missing:
        raise ConfigError(*missing)
    names = segmenter_names(config.masks)
    cases, left_out = _matched("images", config.images, dict(zip(names, config.masks, strict=True)), config.truth)
    references, unlabelled = _matched(
        "reference.images", config.reference.images, {}, config.reference.masks, key="reference.masks"
    )
    remarks = []
    if left_out:
        remarks.append(f"{left_out} images of {config.images} have no mask and are left out")
    if unlabelled:
        remarks.append(f"{unlabelled} images of {config.reference.images} have no mask and are no references")
    calibrating: list[Entry] = []
    if calibration.kind == "labelled":
        own = dict(zip(segmenter_names(calibration.masks), calibration.masks, strict=True))
        calibrating, _ = _matched(
            "calibration.images", calibration.images, own, calibration.truth, key="calibration.truth"
        )
        calibrating = [entry for entry in calibrating if entry.truth is not None]
        if not calibrating:
            raise DataError(f"calibration.truth={calibration.truth}: holds the truth of no image with a mask")
    return Files(
        cases=cases,
        references=references,
        calibration=calibrating,
        segmenters=names,
        where=config.images,
        remarks=remarks,
    )


def segmenter_names(folders: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the folders, with as many of their parents as make them different."""
    paths = [expanded(folder).absolute() for folder in folders]
    if len(set(paths)) != len(paths):
        raise ConfigError("masks: the same folder is given twice")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return tuple("/".join(path.parts[-depth:]).strip("/") for path in paths)


def _matched(
    key_of_images: str, images: str, masks: Mapping[str, str], truth: str, *, key: str = "truth"
) -> tuple[list[Entry], int]:
    """Return the images that have a mask (or, without `masks`, a truth), sorted by name, and the number of those without.

    Raises DataError for a mask without an image. `NAME_0000.nii.gz` is an image of `NAME`.
    """
    found = _files(key_of_images, images)
    entries = {
        name.removesuffix("_0000"): Entry(name=name.removesuffix("_0000"), image=path) for name, path in found.items()
    }
    if len(entries) < len(found):
        raise DataError(f"{key_of_images}={images}: holds NAME and NAME_0000 of the same NAME; take one of them away")
    for segmenter, folder in masks.items():
        for name, path in _belonging(folder, "masks", entries, images).items():
            entries[name].masks[segmenter] = path
    if truth:
        for name, path in _belonging(truth, key, entries, images, all_must=not masks).items():
            entries[name].truth = path
    complete = [e for e in entries.values() if (e.masks if masks else e.truth is not None)]
    if not complete:
        other = ", ".join(masks.values()) if masks else truth
        raise DataError(
            f"no file name of {images} is found in {other}: an image and its mask have the same name, whatever their extension "
            f"(here {next(iter(found))}); else give manifest=FILE.csv"
        )
    return sorted(complete, key=lambda e: e.name), len(entries) - len(complete)


def _belonging(
    folder: str, key: str, entries: Mapping[str, Entry], images: str, *, all_must: bool = True
) -> dict[str, Path]:
    found = _files(key, folder)
    strangers = sorted(set(found) - set(entries))
    if strangers and all_must and len(strangers) < len(found):
        raise DataError(
            f"{key}={folder}: {len(strangers)} masks belong to no image in {images}: {', '.join(strangers[:5])}"
            f"{' and more' if len(strangers) > 5 else ''}; rename them, or take them away"
        )
    return {name: path for name, path in found.items() if name in entries}


def _files(key: str, folder: str) -> dict[str, Path]:
    place = expanded(folder)
    if not place.is_dir():
        raise DataError(f"{key}={folder}: {'is a file, not a folder' if place.exists() else 'no such folder'}")
    found: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        name = stem(path) if path.is_file() else None
        if name is None:
            continue
        if name in found:
            raise DataError(
                f"{key}={folder}: {found[name].name} and {path.name} have the same name; take one of them away"
            )
        found[name] = path
    if not found:
        raise DataError(f"{key}={folder}: holds no image; looked for {', '.join(ENDINGS)}")
    return found


# --- by manifest ------------------------------------------------------------------------------------------------------


def _from_manifest(config: RcaEstimate) -> Files:
    given = [key for key in ("images", "masks", "truth") if getattr(config, key)]
    given += [f"reference.{key}" for key in ("images", "masks") if getattr(config.reference, key)]
    if given:
        raise ConfigError(f"manifest={config.manifest} names all files; leave out {', '.join(given)}")
    path = expanded(config.manifest)
    entries: dict[tuple[str, str], Entry] = {}
    segmenters: dict[str, None] = {}
    mistakes: list[str] = []
    for line, row in read_rows(path, needed=("role", "case", "image"), known=COLUMNS):
        try:
            _take(row, path.parent, entries, segmenters)
        except DataError as error:
            mistakes.append(f"{path}:{line}: {error}")
    for (role, name), entry in entries.items():
        if role in ("reference", "calibration") and entry.truth is None:
            mistakes.append(f"{path}: {role} {name} has no truth")
        if role != "reference" and not entry.masks:
            mistakes.append(f"{path}: {role} {name} has no mask")
    by_role = {role: [e for (r, _), e in sorted(entries.items()) if r == role] for role in ROLES}
    mistakes += [f"{path}: has no row of role {role}" for role in ("case", "reference") if not by_role[role]]
    if config.calibration.kind == "labelled" and not by_role["calibration"]:
        mistakes.append(f"{path}: calibration.kind=labelled needs rows of role calibration")
    if mistakes:
        more = [f"and {len(mistakes) - 20} more"] if len(mistakes) > 20 else []
        raise DataError("\n".join([*mistakes[:20], *more]))
    return Files(
        cases=by_role["case"],
        references=by_role["reference"],
        calibration=by_role["calibration"] if config.calibration.kind == "labelled" else [],
        segmenters=tuple(segmenters),
        where=config.manifest,
    )


def _take(
    row: Mapping[str, str], base: Path, entries: dict[tuple[str, str], Entry], segmenters: dict[str, None]
) -> None:
    """Add one row of the manifest; a case has one for each of its segmenters."""
    role, name = row["role"], row["case"]
    if role not in ROLES:
        raise DataError(f"role {role!r}; it is one of {', '.join(ROLES)}")
    paths = {key: base / expanded(row[key]) for key in ("image", "mask", "truth") if row.get(key)}
    for key in ("image", *paths):
        if key not in paths or not paths[key].is_file():
            raise DataError(f"{key} {row.get(key) or 'is empty'}: no such file")
    entry = entries.setdefault((role, name), Entry(name=name, image=paths["image"]))
    if entry.image != paths["image"]:
        raise DataError(f"case {name} has two images, {entry.image} and {paths['image']}")
    truth = paths.get("truth") or (paths.get("mask") if role == "reference" else None)
    entry.truth = entry.truth or truth
    if role != "reference" and "mask" in paths:
        segmenter = row.get("segmenter") or "masks"
        if segmenter in entry.masks:
            raise DataError(f"case {name} has two masks of {segmenter}")
        entry.masks[segmenter] = paths["mask"]
        if role == "case":
            segmenters.setdefault(segmenter)


def read_rows(path: Path, *, needed: Sequence[str], known: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return line numbers and rows of a CSV file with a header. Raises DataError for a missing file or column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or ()]
            missing = [name for name in needed if name not in columns]
            if missing:
                raise DataError(
                    f"{path}: has no column {', '.join(missing)}; its columns are {', '.join(columns) or 'none'}, "
                    f"known ones {', '.join(known)}"
                )
            reader.fieldnames = columns
            rows = []
            for row in reader:
                values = {k: v.strip() for k, v in row.items() if isinstance(k, str) and isinstance(v, str)}
                if len(values) < len(columns) or None in row:
                    raise DataError(
                        f"{path}:{reader.line_num}: has another number of fields than the header, {len(columns)}"
                    )
                rows.append((reader.line_num, values))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path}: holds no row")
    return rows
