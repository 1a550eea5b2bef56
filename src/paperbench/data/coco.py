"""COCO's layout (Lin et al., ECCV 2014): `annotations/instances_<split>.json` and a folder of images per split.

Boxes are continuous and 0-based in the file already (x, y, width, height). Category ids, which have gaps, become labels
1..C in the order of the ids; `DetectionSet.category_ids` leads back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet, Record
from paperbench.data.faults import REPAIRED, UNKNOWN_CLASS, Faults, OnBadBox, examine_boxes, show_box
from paperbench.data.image_files import BadImageError, inspect_all
from paperbench.data.layout import data_root, missing, read_text
from paperbench.data.pictures import decode_rgb
from paperbench.errors import DataError

_PARTS: Final = ("images", "annotations", "categories")


class _Objects(NamedTuple):
    """Annotations whose image, class and numbers are known, in the order of the file."""

    ids: list[Any]
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    xywh: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    segmentation: list[Any]


def find(root: str | None, split: str) -> tuple[Path, Path]:
    """The annotation file and the folder of images of a split. Raises DataError."""
    base = data_root(root)
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


def read(*, root: str | None = None, split: str, on_bad_box: OnBadBox = "error", limit: int = 0) -> DetectionSet:
    """All images of the annotation file, in its order, also those without objects; image ids are COCO's.

    limit: reads the first images only; 0 reads all.
    Raises DataError: see `data.faults` for what `on_bad_box` decides; a file that is missing, cut short or not in
    COCO's format is an error always.
    """
    annotations, folder = find(root, split)
    content = _load(annotations)
    names, labels = _categories(annotations, content["categories"])
    faults = Faults(f"{annotations}", on_bad_box)

    images, paths, ids = _images(annotations, folder, content["images"], faults, limit)
    everything = limit == 0 or limit >= len(content["images"])
    objects = _objects(annotations, content["annotations"], ids, labels, faults, strays=everything)
    sizes = np.array([(image["height"], image["width"]) for image in images], np.int64).reshape(-1, 2)
    x, y, width, height = objects.xywh.T
    corners = np.stack([x, y, x + width, y + height], axis=1)
    boxes, reasons, clipped = examine_boxes(corners, sizes[objects.image], first_pixel=None)
    for k, reason in enumerate(reasons):
        if reason:
            image = images[objects.image[k]]
            where = (
                f"{annotations}, annotation {objects.ids[k]} of {image['file_name']} ({names[objects.label[k] - 1]})"
            )
            size = f"an image of {image['width']} x {image['height']}"
            faults.add(reason, where, f"x, y, width, height {show_box(objects.xywh[k])} in {size}")
    sound = np.array([reason is None for reason in reasons], bool)

    # Objects of image i stand together after a stable sort, at starts[i]:starts[i + 1].
    order = np.argsort(objects.image, kind="stable")
    order = order[sound[order]]
    starts = np.searchsorted(objects.image[order], np.arange(len(images) + 1))
    records: list[Record] = []
    places: list[NDArray[np.int64]] = []
    for i, image in enumerate(images):
        own = order[starts[i] : starts[i + 1]]
        places.append(own)
        records.append(
            Record(
                image_id=image["id"],
                source=str(paths[i]),
                height=image["height"],
                width=image["width"],
                boxes=boxes[own],
                labels=objects.label[own],
                difficult=np.zeros(len(own), bool),
                crowd=objects.crowd[own],
                area=objects.area[own].astype(np.float32),
            )
        )

    def masks(index: int) -> NDArray[np.bool_]:
        height, width = records[index].height, records[index].width
        seen = np.zeros((len(places[index]), height, width), bool)
        for mask, k in zip(seen, places[index].tolist(), strict=True):
            try:
                mask[:] = _mask(objects.segmentation[k], height, width)
            except ValueError as error:
                raise DataError(
                    f"{annotations}, annotation {objects.ids[k]}: {error}; masks need one (models without masks do not)"
                ) from error
        return seen

    return DetectionSet(
        name="coco",
        split=split,
        classes=names,
        records=records,
        decode=lambda index: decode_rgb(paths[index]),
        # Files with boxes alone are common: such data have no masks, instead of faulty ones.
        masks=masks if any(part is not None for part in objects.segmentation) else None,
        dropped=faults.finish(len(records)),
        repaired={REPAIRED: int(clipped.sum())} if clipped.any() else {},
        category_ids=tuple(labels),
    )


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    text = read_text(path)
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        what = "the file is empty" if not text.strip() else f"half-written or no JSON: {error}"
        raise DataError(f"{path}: {what}; copy or download it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not COCO's format: a {type(content).__name__} instead of an object")
    for part in _PARTS:
        entries = content.get(part)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "id" in entry for entry in entries):
            raise DataError(f"{path}: not COCO's format: '{part}' must be a list of objects that have an 'id'")
    return content


def _categories(path: Path, entries: list[dict[str, Any]]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names by label, and the label of each category id, in the order of the ids."""
    named = {entry["id"]: entry["name"] for entry in entries if isinstance(entry.get("name"), str)}
    if not named or not all(isinstance(entry["id"], int) and "name" in entry for entry in entries):
        raise DataError(f"{path}: not COCO's format: 'categories' must have a number as 'id' and a 'name' each")
    if len(named) < len(entries) or len(set(named.values())) < len(entries):
        raise DataError(f"{path}: two categories share an id or a name")
    ids = sorted(named)
    return tuple(named[key] for key in ids), {key: label for label, key in enumerate(ids, start=1)}


def _images(
    path: Path, folder: Path, entries: list[dict[str, Any]], faults: Faults, limit: int
) -> tuple[list[dict[str, Any]], list[Path], dict[Any, int]]:
    """The usable images, their files, and the place of each image id; -1 for an image with a fault of its own."""
    ids: dict[Any, int] = {}
    candidates = []
    for entry in entries[:limit] if limit else entries:
        if not all(isinstance(entry.get(key), int) for key in ("height", "width")) or not entry.get("file_name"):
            raise DataError(f"{path}, image {entry['id']}: needs file_name, height and width")
        if entry["id"] in ids:
            faults.add("duplicate image id", f"{path}, image {entry['id']}", entry["file_name"])
            continue
        ids[entry["id"]] = -1
        candidates.append(entry)
    images, paths = [], []
    files = [folder / entry["file_name"] for entry in candidates]
    for entry, file, header in zip(candidates, files, inspect_all(files), strict=True):
        if isinstance(header, BadImageError):
            faults.add(header.reason, str(file), header.detail)
        elif header.size != (entry["height"], entry["width"]):
            detail = f"{entry['width']} x {entry['height']}, the image {file} has {header.width} x {header.height}"
            faults.add("size contradicts the image", f"{path}, image {entry['id']}", detail)
        else:
            ids[entry["id"]] = len(images)
            images.append(entry)
            paths.append(file)
    return images, paths, ids


def _objects(
    path: Path,
    entries: list[dict[str, Any]],
    images: dict[Any, int],
    labels: dict[int, int],
    faults: Faults,
    *,
    strays: bool,
) -> _Objects:
    """strays: whether an annotation of an image that is not in the list is a fault; it is none of a shortened list."""
    used: list[dict[str, Any]] = []
    for entry in entries:
        place = images.get(entry.get("image_id"))
        if place is None:
            if strays:
                faults.add("unknown image", f"{path}, annotation {entry['id']}", f"image_id {entry.get('image_id')}")
        elif place < 0:
            continue
        elif entry.get("category_id") not in labels:
            detail = f"category_id {entry.get('category_id')} is not among the categories"
            faults.add(UNKNOWN_CLASS, f"{path}, annotation {entry['id']}", detail)
        elif not _is_box(entry.get("bbox")):
            faults.add("no box", f"{path}, annotation {entry['id']}", f"bbox {entry.get('bbox')!r}")
        else:
            used.append(entry)
    xywh = np.array([entry["bbox"] for entry in used], np.float64).reshape(-1, 4)
    area = np.array([entry.get("area", np.nan) for entry in used], np.float64)
    return _Objects(
        ids=[entry["id"] for entry in used],
        image=np.array([images[entry["image_id"]] for entry in used], np.int64),
        label=np.array([labels[entry["category_id"]] for entry in used], np.int64),
        xywh=xywh,
        area=np.where(np.isfinite(area), area, xywh[:, 2] * xywh[:, 3]),
        crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in used], bool),
        segmentation=[entry.get("segmentation") for entry in used],
    )


def _mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) from polygons, or from runs as COCO counts them. Raises ValueError for anything else."""
    from pycocotools import mask

    runs: Any = mask  # its stubs are narrower than what it takes
    if isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys():
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"the segmentation is of {segmentation['size']}, the image has [{height}, {width}]")
        known = segmentation["counts"]
        encoded = runs.frPyObjects(segmentation, height, width) if isinstance(known, list) else segmentation
        return runs.decode(encoded).astype(bool)
    if not isinstance(segmentation, list) or not all(
        isinstance(part, list) and len(part) >= 6 for part in segmentation
    ):
        raise ValueError("the segmentation is neither polygons nor runs")
    if not segmentation:
        return np.zeros((height, width), bool)
    return runs.decode(runs.merge(runs.frPyObjects(segmentation, height, width))).astype(bool)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(part, int | float) for part in value)
