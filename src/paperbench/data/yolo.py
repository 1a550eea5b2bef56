"""The YOLO layout: `images/…` with `labels/…`, a text file for each image, and a `data.yaml` that names splits and classes.

Coordinates are shares of the image's sides: the box `0.5 0.5 1 1` covers it all. A line is a box or a polygon, which has the
polygon's extent for a box; images without a label file, or with an empty one, have no objects. Label k is the k-th class that is
used; `DetectionSet.category_ids` leads back to the numbers of the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paperbench.data import coco_masks
from paperbench.data.coco import MaskUse
from paperbench.data.detection import DetectionSet, Record
from paperbench.data.faults import (
    BAD_MASK,
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
from paperbench.data.orientation import orientation_hint, orientation_remark, size_of
from paperbench.data.pictures import Exif, decode_rgb, read_picture
from paperbench.data.yolo_files import YoloObject, area_of, read_labels
from paperbench.data.yolo_layout import Layout, Listed, find, label_file, stray_labels
from paperbench.errors import ConfigError, DataError

_ROUNDING: Final = 1e-5
"""Share of the longer side by which a box at the edge leaves its image when its numbers have six digits; not counted as clipped."""


@dataclass(frozen=True, kw_only=True)
class _Image:
    """A usable image: its id, file, label file and header, and the height and width of its pixels."""

    id: str
    path: Path
    labels: Path
    header: Header
    size: tuple[int, int]


def read(
    *,
    root: str | Path | None = None,
    split: str,
    classes: Sequence[str] = (),
    on_bad_box: OnBadBox = "error",
    exif: Exif = "apply",
    masks: MaskUse = "none",
    part: Part | None = None,
    limit: int = 0,
    remedy: str | None = None,
) -> DetectionSet:
    """The images of a split in the order of their names, or of its list; image ids are the names of the files without ending, or
    their paths below `root` where two files share a name.

    classes: those that are used, by name or number, in this order; empty for all. Where nothing names them, a list that is no
    numbers gives the names of 0, 1, and so on. exif: whether images are turned as cameras say; programs that read this layout do.
    masks: as of `coco.read`, drawn from polygons. part: one of the parts that the split is divided into; None is all of it. limit:
    reads the first images only; 0 reads all. remedy: closes the message about faults.
    Raises DataError: see `data.faults` for what `on_bad_box` decides; ConfigError for classes that the data do not have.
    """
    layout = find(root)
    numbers, label_set = chosen_classes(layout, classes)
    faults = Faults(
        f"{layout.description or layout.folder} ({split})", on_bad_box, **({"remedy": remedy} if remedy else {})
    )
    listed = layout.images(split)
    strays = [] if limit and limit < len(listed) else stray_labels([item.path for item in listed], layout.folder)
    if part:
        names = [_below(item.path, layout.folder) for item in listed]
        within = part.of(names, f"{layout.description or layout.folder} ({split})")
        listed = [item for item, own in zip(listed, within, strict=True) if own]
    images = _images(listed[: limit or None], layout, exif, faults)
    for path in strays:
        faults.add("labels without an image", str(path), "take the file away, or bring its image back")
    own_names = not set(label_set) <= set(layout.classes.values())
    known = dict(zip(numbers, label_set, strict=True)) if own_names else layout.classes
    label_of = {number: label for label, number in enumerate(numbers, start=1)}
    records: list[Record] = []
    own: list[list[YoloObject]] = []
    remarks: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    without = [image for image in images if not image.labels.is_file()]
    if images and len(without) == len(images):
        raise DataError(
            f"{layout.description or layout.folder} ({split}): none of the {len(images)} images has a label file; "
            f"{without[0].labels} was looked for beside {without[0].path}"
        )
    written = [
        read_labels(image.labels, known, faults, keypoints=layout.keypoints) if image.labels.is_file() else []
        for image in images
    ]
    with_masks = any(item.kind == "polygon" for objects in written for item in objects)
    use: MaskUse = masks if with_masks else "none"
    for image, objects in zip(images, written, strict=True):
        used = [item for item in objects if item.number in label_of]
        record, sound, clipped = _record(image, used, label_of, faults, exif, use, on_bad_box == "clip")
        records.append(record)
        own.append(sound)
        repaired.update(clipped)
        remarks["objects of other classes than data.classes, left out"] += len(objects) - len(used)
    remarks["images without a label file, read as images without objects"] = len(without)
    if layout.shared:
        remarks["images of one folder without splits, of which every fifth by a fixed shuffle is held back"] = len(
            records
        )
    if layout.keypoints:
        remarks["objects with keypoints, of which the boxes are used"] = sum(map(len, own))
    if use == "there":
        boxes = sum(item.kind == "box" for objects in own for item in objects)
        remarks["objects without a mask, which models with masks refuse or leave out"] = boxes
    turned = sum(image.header.orientation != 1 for image in images)
    return DetectionSet(
        name="yolo",
        split=f"{split}-{part.name}" if part else split,
        classes=label_set,
        records=records,
        decode=lambda index: decode_rgb(images[index].path, exif=exif),
        picture=lambda index: read_picture(images[index].path, exif=exif),
        files=[image.path for image in images],
        masks=(lambda index: _drawn(own[index], *images[index].size)) if with_masks else None,
        dropped=faults.finish(len(records)),
        repaired=dict(repaired),
        remarks=orientation_remark(turned, exif) | {text: count for text, count in remarks.items() if count},
        category_ids=numbers,
    )


def chosen_classes(
    layout: Layout, classes: Sequence[str], key: str = "data.classes"
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The numbers of the classes that are used, and their names. A word is a name first, then a number. Raises
    ConfigError, which names `key`."""
    known = layout.classes
    if not classes:
        return tuple(known), tuple(known.values())
    if layout.names is None and not any(text.isdecimal() for text in classes):
        return tuple(range(len(classes))), tuple(classes)
    number_of = {name: number for number, name in known.items()}
    found: list[int] = []
    mistakes = []
    for text in classes:
        number = number_of.get(text, int(text) if text.isdecimal() and len(text) < 10 else -1)
        if number not in known:
            there = ", ".join(f"{key} {name}" if str(key) != name else name for key, name in list(known.items())[:20])
            mistakes.append(f"{key}: no class {text!r} in {layout.description or layout.folder}; there are: {there}")
        elif number in found:
            mistakes.append(f"{key}: {text} stands there twice, as name and number")
        else:
            found.append(number)
    if mistakes:
        raise ConfigError(*mistakes)
    return tuple(found), tuple(known[number] for number in found)


def _images(listed: Sequence[Listed], layout: Layout, exif: Exif, faults: Faults) -> list[_Image]:
    """The usable images, each once; a fault for each that is missing or damaged, is listed twice, or shares a label file."""
    once: dict[Path, Listed] = {}
    owners: dict[Path, Path] = {}
    for item in listed:
        labels = label_file(item.path, layout.folder)
        if item.path in once:
            faults.add("listed twice", item.where, str(item.path))
        elif labels in owners:
            faults.add("two images of one label file", str(item.path), f"{labels} is that of {owners[labels]} as well")
        else:
            once[item.path] = item
            owners[labels] = item.path
    stems = Counter(path.stem for path in once)
    images = []
    for (path, item), header in zip(once.items(), inspect_all(list(once)), strict=True):
        if isinstance(header, BadImageError):
            where = f"{item.where}: {path}" if item.where not in (str(path), str(path.parent)) else str(path)
            faults.add(header.reason, where, header.detail)
            continue
        unique = stems[path.stem] == 1
        images.append(
            _Image(
                id=path.stem if unique else _below(path, layout.folder),
                path=path,
                labels=label_file(path, layout.folder),
                header=header,
                size=size_of(header, exif),
            )
        )
    return images


def _below(path: Path, folder: Path) -> str:
    own = path.relative_to(folder) if path.is_relative_to(folder) else path
    return own.with_suffix("").as_posix().lstrip("/")


def _record(
    image: _Image,
    objects: Sequence[YoloObject],
    label_of: Mapping[int, int],
    faults: Faults,
    exif: Exif,
    masks: MaskUse,
    clip: bool,
) -> tuple[Record, list[YoloObject], dict[str, int]]:
    """The record of one image, its sound objects, and how many of its boxes were clipped, by reason."""
    height, width = image.size
    corners = np.array([item.corners(height, width) for item in objects], np.float64).reshape(-1, 4)
    sizes = np.tile(np.array([(height, width)]), (len(corners), 1))
    boxes, reasons, clipped = examine_boxes(corners, sizes, first_pixel=None, clip=clip)
    for k, (item, reason) in enumerate(zip(objects, reasons, strict=True)):
        if reason:
            hint = item.hint + orientation_hint(image.header, exif) if reason == OUTSIDE else ""
            detail = f"corners {show_box(corners[k])} in pixels of an image of {width} x {height}"
            faults.add(reason, item.where, detail + hint)
        elif masks == "all" and item.kind == "box":
            reasons[k] = NO_MASK
            faults.add(NO_MASK, item.where, "a box; other files of the split have polygons")
        elif masks != "none" and item.kind == "polygon":
            wrong = coco_masks.examine([item.polygon(height, width)], height, width)
            if wrong:
                reasons[k] = BAD_MASK
                faults.add(BAD_MASK, item.where, wrong)
    sound = [k for k, reason in enumerate(reasons) if reason is None]
    kept = [objects[k] for k in sound]
    sides = boxes[sound, 2:] - boxes[sound, :2]
    areas = [
        area_of(item.polygon(height, width)) if item.kind == "polygon" else float(side.prod())
        for item, side in zip(kept, sides, strict=True)
    ]
    record = Record(
        image_id=image.id,
        source=str(image.labels if image.labels.is_file() else image.path),
        height=height,
        width=width,
        boxes=boxes[sound],
        labels=np.array([label_of[item.number] for item in kept], np.int64),
        difficult=np.zeros(len(kept), bool),
        crowd=np.zeros(len(kept), bool),
        area=np.array(areas, np.float64),
    )
    return record, kept, repairs(np.where(clipped > _ROUNDING * max(height, width), clipped, 0.0))


def _drawn(objects: Sequence[YoloObject], height: int, width: int) -> NDArray[np.bool_]:
    """(N, height, width); a box has no pixels: what learns from masks has refused it."""
    seen = np.zeros((len(objects), height, width), bool)
    for mask, item in zip(seen, objects, strict=True):
        if item.kind == "box":
            continue
        try:
            mask[:] = coco_masks.draw([item.polygon(height, width)], height, width)
        except ValueError as error:
            raise DataError(f"{item.where}: {error}; masks need one (models without masks do not)") from error
    return seen
