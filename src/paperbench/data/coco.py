"""COCO's layout (Lin et al., ECCV 2014): `annotations/instances_<split>.json` and a folder of images per split.

Boxes are continuous and 0-based in the file already (x, y, width, height). Category ids, which have gaps, become labels
1..C in the order of the ids; `DetectionSet.category_ids` leads back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from paperbench.config.paths import expanded
from paperbench.data import coco_masks
from paperbench.data.coco_files import UNLIKELY_AREA, Content, Id, Objects, load, objects_of
from paperbench.data.detection import DetectionSet, Record, box_areas
from paperbench.data.faults import (
    BAD_MASK,
    BAD_VALUE,
    NO_MASK,
    OUTSIDE,
    Faults,
    OnBadBox,
    examine_boxes,
    repairs,
    show_box,
)
from paperbench.data.held_out import Part
from paperbench.data.image_files import BadImageError, Header, inspect_all
from paperbench.data.layout import data_root, missing
from paperbench.data.orientation import orientation_hint, orientation_remark, size_of
from paperbench.data.pictures import Exif, decode_rgb, read_picture
from paperbench.data.values import as_stored, is_file, name_of, shown, whole
from paperbench.errors import DataError

_FILE_AND_FOLDER: Final = re.compile(r"(?P<file>.+\.json)(?::(?P<folder>.+))?", re.IGNORECASE)

MaskUse = Literal["none", "there", "all"]
"""Masks that are read with the boxes: none, those that are there, or one of every object, whose absence is a fault."""


def find(root: str | None, split: str) -> tuple[Path, Path]:
    """The annotation file and the folder of images of a split. Raises DataError.

    split: a name, of `annotations/instances_<split>.json` and a folder `<split>` or `images/<split>`; or `FILE.json:FOLDER`, both
    below `root` or absolute, with `~` for a home folder; `FILE.json` alone has its images in its own folder, as many labelling
    programs write them.
    """
    base = data_root(root)
    if named := _FILE_AND_FOLDER.fullmatch(split):
        return _named(base, named["file"], named["folder"])
    for folder in (base / "coco", base):
        annotations = folder / "annotations" / f"instances_{split}.json"
        if annotations.is_file():
            images = next((path for path in (folder / split, folder / "images" / split) if path.is_dir()), None)
            if images is None:
                raise missing("coco", folder, f"the folder of images {split} was looked for")
            return annotations, images
    there = sorted(path.stem.removeprefix("instances_") for path in base.glob("**/annotations/instances_*.json"))
    splits = f"; there are the splits {', '.join(there)}" if there else ""
    raise missing("coco", base, f"annotations/instances_{split}.json was looked for{splits}")


def _named(base: Path, file: str, folder: str | None) -> tuple[Path, Path]:
    annotations = base / expanded(file)
    if not annotations.is_file():
        raise missing("coco", base, f"the annotation file {annotations} was looked for")
    images = base / expanded(folder) if folder else annotations.parent
    if not images.is_dir():
        raise missing("coco", base, f"the folder of images {images} was looked for")
    return annotations, images


def read(
    *,
    root: str | None = None,
    split: str,
    on_bad_box: OnBadBox = "error",
    exif: Exif = "ignore",
    masks: MaskUse = "none",
    part: Part | None = None,
    limit: int = 0,
) -> DetectionSet:
    """All images of the annotation file, in its order, also those without objects; image ids are COCO's.

    exif: whether images are turned as cameras say, and boxes are of the upright picture. masks: masks that are looked at now; a
    faulty one is then a fault like any other, else it is found when it is drawn. part: one of the parts that the file's images are
    divided into; None is all of them. limit: reads the first images only; 0 reads all.
    Raises DataError: see `data.faults` for what `on_bad_box` decides; a file that is missing, cut short or not in
    COCO's format is an error always.
    """
    annotations, folder = find(root, split)
    content = load(annotations)
    names = content.classes
    faults = Faults(f"{annotations}", on_bad_box)

    images, places = _images(content, folder, exif, faults, part, limit)
    everything = limit == 0 or limit >= len(content.images)
    objects = objects_of(content, places, faults, strays=everything)
    sizes = np.array([image.size for image in images], np.int64).reshape(-1, 2)
    x, y, width, height = objects.xywh.T
    corners = np.stack([x, y, x + width, y + height], axis=1)
    boxes, reasons, clipped = examine_boxes(corners, sizes[objects.image], first_pixel=None, clip=on_bad_box == "clip")
    for k, reason in enumerate(reasons):
        if reason:
            image = images[objects.image[k]]
            detail = f"x, y, width, height {show_box(objects.xywh[k])} in an image of {image.size[1]} x {image.size[0]}"
            hint = orientation_hint(image.header, exif) if reason == OUTSIDE else ""
            faults.add(reason, _where(content, objects, images, k), detail + hint)
    have_masks = np.array([coco_masks.is_mask(part) for part in objects.segmentation], bool)
    if masks != "none":
        _examine_masks(content, objects, images, have_masks, reasons, faults, needed=masks == "all")
    sound = np.array([reason is None for reason in reasons], bool)
    area = objects.areas(box_areas(boxes))
    maskless = int((sound & ~have_masks).sum())

    # Objects of image i stand together after a stable sort, at starts[i]:starts[i + 1].
    order = np.argsort(objects.image, kind="stable")
    order = order[sound[order]]
    starts = np.searchsorted(objects.image[order], np.arange(len(images) + 1))
    own = [order[starts[i] : starts[i + 1]] for i in range(len(images))]
    records = [
        Record(
            image_id=image.id,
            source=str(image.path),
            height=image.size[0],
            width=image.size[1],
            boxes=boxes[part],
            labels=objects.label[part],
            difficult=np.zeros(len(part), bool),
            crowd=objects.crowd[part],
            area=area[part],
        )
        for image, part in zip(images, own, strict=True)
    ]

    def drawn(index: int) -> NDArray[np.bool_]:
        seen = np.zeros((len(own[index]), *images[index].size), bool)
        for mask, k in zip(seen, own[index].tolist(), strict=True):
            try:
                mask[:] = coco_masks.draw(objects.segmentation[k], *images[index].size)
            except ValueError as error:
                raise DataError(
                    f"{content.where(objects.places[k])}: {error}; masks need one (models without masks do not)"
                ) from error
        return seen

    remarks = orientation_remark(sum(image.header.orientation != 1 for image in images), exif)
    if objects.without_area:
        remarks["objects without an area, which have their box's"] = objects.without_area
    if unlikely := int((objects.unlikely_area() & sound).sum()):
        remarks[f"objects with {UNLIKELY_AREA}"] = unlikely
    elsewhere = sum(
        coco_masks.lies_elsewhere(objects.segmentation[k], boxes[k].tolist())
        for k in np.flatnonzero(sound & have_masks & ~objects.crowd).tolist()
        if masks != "none"
    )
    if elsewhere:
        remarks["objects whose mask lies elsewhere than their box"] = elsewhere
    if masks == "there" and maskless:
        remarks["objects without a mask, which models with masks refuse or leave out"] = maskless
    return DetectionSet(
        name="coco",
        split=f"{split}-{part.name}" if part else split,
        classes=names,
        records=records,
        decode=lambda index: decode_rgb(images[index].path, exif=exif),
        picture=lambda index: read_picture(images[index].path, exif=exif),
        files=[image.path for image in images],
        # Files with boxes alone are common, with null or an empty list for a mask: such data have no masks, instead of faulty ones.
        masks=drawn if have_masks.any() else None,
        dropped=faults.finish(len(records)),
        repaired=repairs(clipped),
        remarks=remarks,
        category_ids=content.category_ids,
    )


def _where(content: Content, objects: Objects, images: Sequence[_Image], k: int) -> str:
    name = content.classes[objects.label[k] - 1]
    return f"{content.where(objects.places[k])} of {images[objects.image[k]].path.name} ({name})"


def _examine_masks(
    content: Content,
    objects: Objects,
    images: Sequence[_Image],
    have_masks: NDArray[np.bool_],
    reasons: list[str | None],
    faults: Faults,
    *,
    needed: bool,
) -> None:
    """Add a fault, and its reason, for each mask that cannot be drawn; where masks are `needed` and some object has one, also for
    each that is not there."""
    needed = needed and bool(have_masks.any())
    for k, segmentation in enumerate(objects.segmentation):
        if reasons[k] is not None:
            continue
        detail = ""
        if have_masks[k]:
            detail = coco_masks.examine(segmentation, *images[objects.image[k]].size)
            reasons[k] = BAD_MASK if detail else None
        elif needed:
            reasons[k], detail = NO_MASK, f"segmentation is {shown(segmentation)}"
        reason = reasons[k]
        if reason is not None:
            faults.add(reason, _where(content, objects, images, k), detail)


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image that can be used: its id, file and header, and the height and width of its pixels."""

    id: Id
    path: Path
    header: Header
    size: tuple[int, int]


def within_part(content: Content, part: Part) -> list[bool]:
    """Return which images of the file are of a part of it, by the names of their files."""
    names = [
        name_of(entry.get("file_name")) or str(key)
        for key, entry in zip(content.image_ids, content.images, strict=True)
    ]
    return part.of(names, str(content.path))


def _images(
    content: Content, folder: Path, exif: Exif, faults: Faults, part: Part | None, limit: int
) -> tuple[list[_Image], dict[Id, int]]:
    """The usable images, and the place of each image id; -1 for an image of another part, or with a fault of its own."""
    path = content.path
    places: dict[Id, int] = {}
    files: dict[Path, Id] = {}
    candidates: list[tuple[Id, Path, tuple[int, int]]] = []
    listed = list(zip(content.image_ids, content.images, strict=True))
    if part:
        within = within_part(content, part)
        places |= {key: -1 for (key, _), own in zip(listed, within, strict=True) if not own}
        listed = [item for item, own in zip(listed, within, strict=True) if own]
    for key, entry in listed[: limit or None]:
        where = f"{path}, image {shown(key)}"
        name, size = name_of(entry.get("file_name")), _size(entry)
        if key in places:
            faults.add("duplicate image id", where, shown(entry.get("file_name")))
            continue
        places[key] = -1
        if name is None or size is None:
            faults.add(BAD_VALUE, where, f"needs file_name, height and width: {_unusable(entry)}")
            continue
        file = _file(folder, name)
        if file in files:  # its objects would be divided among two ids, and each be scored without those of the other
            faults.add("listed twice", where, f"{name} is the file of image {shown(files[file])} too")
            continue
        files[file] = key
        candidates.append((key, file, size))
    images: list[_Image] = []
    for (key, file, size), header in zip(candidates, inspect_all([file for _, file, _ in candidates]), strict=True):
        if isinstance(header, BadImageError):
            faults.add(header.reason, str(file), header.detail)
            continue
        seen = size_of(header, exif)
        if size != seen:
            detail = f"{size[1]} x {size[0]}, the image {file} has {seen[1]} x {seen[0]}"
            detail += orientation_hint(header, exif, fits=size)
            faults.add("size contradicts the image", f"{path}, image {shown(key)}", detail)
        else:
            places[key] = len(images)
            images.append(_Image(id=key, path=file, header=header, size=seen))
    return images, places


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = whole(entry.get("height")), whole(entry.get("width"))
    return (height, width) if height is not None and width is not None and min(height, width) > 0 else None


def _unusable(entry: Mapping[str, Any]) -> str:
    """Say which of the values that an image needs is none."""
    said = []
    for key in ("file_name", "height", "width"):
        if key not in entry:
            said.append(f"no {key}")
        elif key == "file_name" and name_of(entry[key]) is None:
            said.append(f"file_name is {shown(entry[key])}, not text")
        elif key != "file_name" and (whole(entry[key]) or 0) <= 0:
            said.append(f"{key} is {shown(entry[key])}, not a whole number above 0")
    return ", ".join(said)


def _file(folder: Path, name: str) -> Path:
    """The file of an image; names that Windows wrote have backslashes between folders."""
    file = as_stored(folder / name)
    other = as_stored(folder / name.replace("\\", "/"))
    return other if "\\" in name and not is_file(file) and is_file(other) else file
