"""PASCAL VOC devkits (Everingham et al., IJCV 2010), and folders of one's own that are laid out like one.

VOC's XML counts pixels from 1 and includes both corners: a box over a whole image of 500 x 375 reads 1, 1, 500, 375 and
becomes 0, 0, 500, 375. XML is parsed without entities, document types or external references.
"""

from __future__ import annotations

import difflib
import glob
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from paperbench.data.detection import DetectionSet, Record, box_areas
from paperbench.data.faults import (
    BAD_VALUE,
    OUTSIDE,
    UNKNOWN_CLASS,
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
from paperbench.data.values import class_name, flag_of, is_file, number_of
from paperbench.data.voc_layout import SUFFIXES, VocLayout, find
from paperbench.errors import DataError

CLASSES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_UNREADABLE: Final = "unreadable annotation"


class VocObject(NamedTuple):
    """An object as an annotation has it: its label, corners as written (4 finite or infinite numbers), and where it stands."""

    label: int
    corners: tuple[float, ...]
    difficult: bool
    where: str


def read(
    *,
    root: str | None = None,
    year: str = "2007",
    split: str,
    classes: Sequence[str] = (),
    zero_based: bool = False,
    on_bad_box: OnBadBox = "error",
    exif: Exif = "ignore",
    part: Part | None = None,
    limit: int = 0,
) -> DetectionSet:
    """The images that `ImageSets/Main/<split>.txt` lists, in its order; image ids are the names in it. Of a folder without lists,
    those with an XML file, in the order of their names; see `voc_layout`.

    classes: a label set of one's own, in the order of the labels; empty for VOC's 20. zero_based: the XML counts pixels
    from 0, both corners included. exif: whether images are turned as cameras say, and boxes are of the upright picture. part:
    one of the parts that the split is divided into; None is all of it. limit: reads the first images only; 0 reads all.
    Raises DataError: see `data.faults` for what `on_bad_box` decides; a missing devkit or split, and XML with entities
    or a document type, are errors always.
    """
    layout = find(root, year)
    faults = Faults(f"{layout.folder} ({split})", on_bad_box)
    listed = layout.names(split)
    once = list(dict.fromkeys(listed))
    within = dict(zip(once, part.of(once, layout.where(split)), strict=True)) if part else dict.fromkeys(once, True)
    ids: dict[str, Path] = {}
    for name in listed:
        if limit and len(ids) == limit:
            break
        if name in ids:
            faults.add("listed twice", f"{layout.where(split)}, {name}", "")
        elif within[name]:
            ids[name] = layout.image(name)

    label_set = tuple(classes) or CLASSES
    labels = {name: label for label, name in enumerate(label_set, start=1)}
    records: list[Record] = []
    paths: list[Path] = []
    repaired: Counter[str] = Counter()
    turned = 0
    for (name, path), header in zip(ids.items(), inspect_all(list(ids.values())), strict=True):
        annotation = layout.annotation(name)
        if isinstance(header, BadImageError):
            faults.add(header.reason, str(header.path), header.detail or _other_name(layout, name) or _others(path))
            continue
        tree = parse(annotation, faults)
        if tree is None or not _size_agrees(tree, header, exif, annotation, faults):
            continue
        objects = objects_of(tree, annotation, labels, faults, unknown=lambda given: _unknown(given, label_set))
        record, cut = _record(objects, name, annotation, header, exif, faults, zero_based, on_bad_box == "clip")
        records.append(record)
        paths.append(path)
        repaired.update(cut)
        turned += header.orientation != 1
    remarks = orientation_remark(turned, exif)
    if bare := layout.without_annotation(split):
        remarks["images of the folder without an XML file, which are not used"] = bare
    return DetectionSet(
        name="voc",
        split=f"{split}-{part.name}" if part else split,
        classes=label_set,
        records=records,
        decode=lambda index: decode_rgb(paths[index], exif=exif),
        picture=lambda index: read_picture(paths[index], exif=exif),
        files=paths,
        dropped=faults.finish(len(records)),
        repaired=dict(repaired),
        remarks=remarks,
    )


def _other_name(layout: VocLayout, name: str) -> str:
    """Name the image that a line of a list means where it has a folder, an ending or columns as well; empty where none is there."""
    last = Path(name).name
    for other in dict.fromkeys((last, last.removesuffix(Path(last).suffix), *name.split()[:1])):
        if other != name and is_file(layout.image(other)):
            return f"the list has '{name}', and image '{other}' is there: a line is the name alone, no folder, ending or column"
    return ""


def _others(path: Path) -> str:
    """Name the files beside a missing image that differ from it in their ending alone."""
    try:
        there = sorted(other.name for other in path.parent.glob(f"{glob.escape(path.stem)}.*"))
    except (OSError, ValueError):
        return ""
    return f"beside it: {', '.join(there)}; endings that are read: {', '.join(SUFFIXES[::2])}" if there else ""


def parse(path: Path, faults: Faults) -> Element | None:
    """The `annotation` element of an XML file; None, and a fault, for a file that is missing, empty or cut short.

    Raises DataError for entities, document types and external references: no annotation needs them.
    """
    try:
        tree = fromstring(path.read_bytes(), forbid_dtd=True)
    except FileNotFoundError:
        faults.add("missing annotation", str(path), "the image is listed and this file does not exist")
        return None
    except DefusedXmlException as error:
        raise DataError(
            f"{path}: refused: it declares a document type or entities ({type(error).__name__}), which can make a parser "
            "read other files or exhaust the memory; remove the declaration"
        ) from error
    except (ParseError, ValueError, LookupError, OSError) as error:
        empty = path.is_file() and path.stat().st_size == 0
        faults.add(_UNREADABLE, str(path), "the file is empty" if empty else f"half-written or no XML: {error}")
        return None
    if tree.tag != "annotation":
        faults.add(_UNREADABLE, str(path), f"its root is <{tree.tag}>, not <annotation>")
        return None
    return tree


def _size_agrees(tree: Element, header: Header, exif: Exif, path: Path, faults: Faults) -> bool:
    """False, and a fault, for an annotation of another size than its image. One that says nothing, or 0 x 0, agrees."""
    width, height = tree.findtext("size/width"), tree.findtext("size/height")
    written, used = (number_of(height), number_of(width)), size_of(header, exif)
    if (width is None and height is None) or written in (used, (0, 0)):
        return True
    detail = f"{width} x {height}, the image has {used[1]} x {used[0]}"
    faults.add("size contradicts the image", str(path), detail + orientation_hint(header, exif, fits=written))
    return False


def objects_of(
    tree: Element, path: Path, labels: Mapping[str, int], faults: Faults, *, unknown: Callable[[str], str] | None
) -> list[VocObject]:
    """The objects of an annotation whose class is among `labels`; a fault for each whose class, flag or box cannot be read.

    unknown: says of another class why it is a fault; None leaves objects of other classes out without a word.
    """
    found = []
    for number, item in enumerate(tree.findall("object"), start=1):
        name = class_name(item.findtext("name")) or ""
        where = f"{path}, object {number} ({name or 'without a name'})"
        if name not in labels:
            if unknown is not None:
                faults.add(UNKNOWN_CLASS, where, unknown(name))
            continue
        twice = [key for key in ("name", "bndbox", "difficult") if len(item.findall(key)) > 1]
        if twice:
            faults.add(
                BAD_VALUE, where, f"{twice[0]} stands there {len(item.findall(twice[0]))} times; an object has one"
            )
            continue
        difficult = flag_of(item.findtext("difficult"))
        if difficult is None:
            faults.add(BAD_VALUE, where, f"difficult reads {item.findtext('difficult')!r}; it is 0 or 1")
            continue
        texts = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        corners = [value for value in map(number_of, texts) if value is not None]
        if len(corners) < 4:
            faults.add("no box", where, f"xmin, ymin, xmax, ymax read {', '.join(map(str, texts))}")
            continue
        found.append(VocObject(labels[name], tuple(corners), difficult, where))
    return found


def _record(
    objects: Sequence[VocObject],
    name: str,
    path: Path,
    header: Header,
    exif: Exif,
    faults: Faults,
    zero_based: bool,
    clip: bool,
) -> tuple[Record, dict[str, int]]:
    """The record of one file, and how many of its boxes were clipped, by reason."""
    height, width = size_of(header, exif)
    raw = np.array([item.corners for item in objects], np.float64).reshape(-1, 4)
    sizes = np.tile(np.array([(height, width)]), (len(raw), 1))
    boxes, reasons, clipped = examine_boxes(raw, sizes, first_pixel=0 if zero_based else 1, clip=clip)
    for item, reason in zip(objects, reasons, strict=True):
        if reason:
            detail = f"{show_box(item.corners)} in an image of {width} x {height}"
            faults.add(reason, item.where, detail + (orientation_hint(header, exif) if reason == OUTSIDE else ""))
    sound = [index for index, reason in enumerate(reasons) if reason is None]
    boxes = boxes[sound]
    record = Record(
        image_id=name,
        source=str(path),
        height=height,
        width=width,
        boxes=boxes,
        labels=np.array([objects[index].label for index in sound], np.int64),
        difficult=np.array([objects[index].difficult for index in sound], bool),
        crowd=np.zeros(len(sound), bool),
        area=box_areas(boxes),
    )
    return record, repairs(clipped)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    number = number_of(name)
    if number is not None and (same := [other for other in known if number_of(other) == number]):
        return f"'{name}'; without quotes it was read as the number {same[0]}: 'data.classes=[\"{name}\"]'"
    hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known[:8])}{' …' if len(known) > 8 else ''}"
    return f"'{name}'; {hint}; data.classes=[…] gives a label set of one's own"
