"""A user's files: images, masks and references matched by file name, or listed in a CSV manifest.

File names are checked before a run begins, all mistakes together; no image is opened. A fault in the files of one case, such as a
mask on another grid than its image, is a failure of that case, and the run continues; a reference that cannot be used is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from paperbench.config.paths import expanded
from paperbench.config.words import counted
from paperbench.data.volumes import ENDINGS, PICTURES, stem
from paperbench.errors import ConfigError, DataError
from paperbench.rca import nnunet
from paperbench.rca.case_files import Entry, Files, read
from paperbench.rca.cases import RECORDED, Case, CaseSet, CaseSource, Image, Remark, reason
from paperbench.rca.config import RcaEstimate
from paperbench.rca.labels import Labels, Vocabulary, check_labels, find_labels, labels_in
from paperbench.rca.manifest import from_manifest
from paperbench.rca.nnunet import NO_NAMES, LabelNames

CHANNEL = "_0000"
"""Ending by which nnU-Net numbers the channels of an image; its masks have none."""
_SHOWN = 5


def find(config: RcaEstimate) -> CaseSource:
    """Match file names; no image is read.

    Raises ConfigError for missing keys and labels that do not fit, DataError for files that do not fit together.
    """
    config = nnunet.completed(config)
    labels = config.labels
    check_labels(labels.kind, labels.values, labels.names)
    known = (
        NO_NAMES
        if labels.names or labels.kind == "bits"
        else nnunet.label_names(config.reference.images or config.images)
    )
    files = from_manifest(config) if config.manifest else _from_folders(config)
    files.remarks += [*missing_masks(files), *known.remarks]
    flat = {entry.image.name.lower().endswith(PICTURES) for entry in files.references}
    return CaseSource(
        read=lambda: load(config, files, known),
        references=len(files.references),
        dims=2 if flat == {True} else None,
        labels=tuple(labels.names)
        or tuple(known.names.get(value, str(value)) for value in labels.values)
        or tuple(known.names.values()),
        segmenters=files.segmenters,
        description=describe(files),
        remarks=tuple(files.remarks),
    )


def load(config: RcaEstimate, files: Files, known: LabelNames = NO_NAMES) -> CaseSet:
    """Read the references; cases are read one by one later. known: names of labels for which the configuration has none.

    Raises DataError where no reference can be used.
    """
    references, remarks = _readable(files.references, resample=config.resample)
    if len({image.intensities.ndim for image in references}) > 1:
        raise DataError("the references have two and three dimensions; all must have the same number")
    maps = [image.truth for image in references if image.truth is not None]
    labels = find_labels(config.labels.kind, config.labels.values, config.labels.names, maps)
    labels = _named(labels, known, chosen=bool(config.labels.values))
    held = frozenset(labels_in(labels.kind, maps))
    vocabulary = Vocabulary(labels=labels, held=held, chosen=bool(config.labels.values))

    def case(entry: Entry, segmenters: Sequence[str]) -> Case:
        def load() -> Image:
            return in_vocabulary(read(entry, resample=config.resample, segmenters=segmenters), vocabulary)

        return Case(name=entry.name, load=load)

    return CaseSet(
        labels=labels,
        references=tuple(sorted(references, key=lambda image: image.name)),
        cases=tuple(case(entry, files.segmenters) for entry in files.cases),
        calibration=tuple(case(entry, ()) for entry in files.calibration),
        segmenters=files.segmenters,
        description=describe(files),
        remarks=(*files.remarks, *remarks),
    )


def _named(labels: Labels, known: LabelNames, *, chosen: bool) -> Labels:
    """Return the labels under their known names, without the one that is ignored unless it was `chosen`."""
    values = [value for value in labels.values if chosen or value != known.ignored]
    if not known.names or not values:
        return labels
    return Labels(labels.kind, tuple(values), tuple(known.names.get(value, str(value)) for value in values))


def _readable(entries: Sequence[Entry], *, resample: bool) -> tuple[list[Image], list[str]]:
    """Read the references; return those that can be used, and a remark for each that cannot."""
    images, faults = [], []
    for entry in entries:
        try:
            image = read(entry, resample=resample)
            if image.truth is not None and not image.truth.any():
                raise DataError(f"{entry.truth}: no label in it, background alone: nothing can be compared with it")
        except RECORDED as error:
            faults.append(f"reference {entry.name}: {reason(error)}")
            continue
        images.append(image)
        faults += [f"reference {entry.name}: {remark.text}" for remark in image.remarks]
    if not images:
        raise DataError("\n  ".join(["no reference can be used:", *faults[:_SHOWN]]))
    left_out = len(entries) - len(images)
    if left_out:
        faults.insert(
            0, f"{left_out} of {len(entries)} references cannot be used and {'is' if left_out == 1 else 'are'} left out"
        )
    return images, faults


def in_vocabulary(image: Image, vocabulary: Vocabulary) -> Image:
    """Return the image without the masks whose labels are not those of the references.

    A mask that has a label which no reference has, and lacks one that they have, fails: its labels mean something else. Of a mask
    with further labels alone, these cannot be scored, and the others are. Raises DataError for a truth with other labels.
    """
    masks, problems, remarks = dict(image.masks), dict(image.problems), list(image.remarks)
    for name, mask in image.masks.items():
        foreign, missing = vocabulary.foreign(mask)
        if foreign and missing:
            problems[name] = f"the mask {vocabulary.explain(foreign, missing)}"
            del masks[name]
            continue
        text = f"the mask {vocabulary.explain(foreign, missing)}; it is not scored"
        remarks += [Remark(segmenter=name, label=str(label), text=text) for label in foreign[:_SHOWN]]
    if image.truth is not None and all(vocabulary.foreign(image.truth)):
        raise DataError(f"the truth {vocabulary.explain(*vocabulary.foreign(image.truth))}")
    return replace(image, masks=masks, problems=problems, remarks=tuple(remarks))


def describe(files: Files) -> str:
    """Describe the data in a few words."""
    truth = sum(entry.truth is not None for entry in files.cases)
    known = f", truth of {truth}" if truth else ""
    return f"{counted(len(files.cases), 'images')}{known}, {counted(len(files.references), 'references')}, from {files.where}"


def missing_masks(files: Files) -> list[str]:
    """Return a remark for each segmenter without masks of some images."""
    remarks = []
    for segmenter in files.segmenters:
        lacking = [entry.name for entry in files.cases if segmenter not in entry.masks]
        if lacking:
            remarks.append(f"{segmenter}: no mask of {len(lacking)} of {len(files.cases)} images: {shown(lacking)}")
    return remarks


def shown(names: Sequence[str]) -> str:
    """Return the first few names."""
    return ", ".join(names[:_SHOWN]) + (" and more" if len(names) > _SHOWN else "")


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
    cases, left_out, channels = _matched(
        "images", config.images, dict(zip(names, config.masks, strict=True)), config.truth
    )
    references, unlabelled, others = _matched(
        "reference.images", config.reference.images, {}, config.reference.masks, key="reference.masks"
    )
    remarks = []
    if channels | others:
        remarks.append(f"images of several channels: {CHANNEL} is used, {', '.join(sorted(channels | others))} are not")
    if left_out:
        remarks.append(f"{left_out} images of {config.images} have no mask and are left out")
    if config.truth and (unknown := [entry.name for entry in cases if entry.truth is None]):
        remarks.append(f"{len(unknown)} of {len(cases)} images have no truth in {config.truth}: {shown(unknown)}")
    if unlabelled:
        remarks.append(f"{unlabelled} images of {config.reference.images} have no mask and are no references")
    calibrating: list[Entry] = []
    if calibration.kind == "labelled":
        own = dict(zip(segmenter_names(calibration.masks), calibration.masks, strict=True))
        calibrating, _, _ = _matched(
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
) -> tuple[list[Entry], int, set[str]]:
    """Return the images that have a mask (or, without `masks`, a truth), sorted by name, the number of those without, and the
    channels that are not used.

    Raises DataError for a mask without an image, and for a folder of which nothing belongs to an image.
    """
    found = _files(key_of_images, images)
    kept, channels = nnunet.first_channels(found)
    found = {name: found[name] for name in kept}
    short = {name: name.removesuffix(CHANNEL) for name in found}
    entries = {
        name: Entry(name=name if short[name] != name and short[name] in found else short[name], image=path)
        for name, path in found.items()
    }
    for segmenter, folder in masks.items():
        for name, path in _belonging(folder, "masks", entries, images).items():
            entries[name].masks[segmenter] = path
    if truth:
        for name, path in _belonging(truth, key, entries, images, all_must=not masks).items():
            entries[name].truth = path
    complete = [e for e in entries.values() if (e.masks if masks else e.truth is not None)]
    return sorted(complete, key=lambda e: e.name), len(entries) - len(complete), channels


def _belonging(
    folder: str, key: str, entries: Mapping[str, Entry], images: str, *, all_must: bool = True
) -> dict[str, Path]:
    """Return the files of a folder by the image to which they belong: that of their whole name first, else `NAME` and
    `NAME_0000` belong together, whichever of the two is the image. Raises DataError where none belongs to an image."""
    belonging: dict[str, Path] = {}
    strangers = []
    found = _files(key, folder)
    for name, path in found.items():
        candidates = (name, f"{name}{CHANNEL}", name.removesuffix(CHANNEL))
        image = next((candidate for candidate in candidates if candidate in entries), None)
        if image is None:
            strangers.append(name)
        elif image in belonging:
            raise DataError(
                f"{key}={folder}: {belonging[image].name} and {path.name} belong to one image, {entries[image].image.name}; take "
                "one of them away"
            )
        else:
            belonging[image] = path
    if not belonging:
        raise DataError(
            f"no file name of {images} is found in {folder}: an image and its mask have the same name, whatever their extension "
            f"(here {next(iter(entries))}, there {shown(strangers)}); rename the files of {key}, or give manifest=FILE.csv"
        )
    if strangers and all_must:
        raise DataError(
            f"{key}={folder}: {len(strangers)} masks belong to no image in {images}: {shown(strangers)}; rename them, or take "
            "them away"
        )
    return belonging


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
