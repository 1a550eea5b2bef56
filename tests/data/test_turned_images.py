"""Photographs that a camera stored turned: pixels, masks, pictures and records of a set agree, whatever `exif` says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paperbench.data import coco, voc, yolo
from paperbench.data.detection import DetectionSet
from paperbench.data.joined import join
from paperbench.data.pictures import Exif
from tests.data.files import coco_content, voc_object, voc_xml, write_coco, write_voc, write_yolo

ORIENTATION = 6
"""A quarter turn: rows of the upright picture are columns of the stored one."""
SIZES: dict[Exif, tuple[int, int]] = {"ignore": (40, 60), "apply": (60, 40)}
"""Height and width of what is read."""
POLYGON = "0 0.1 0.1 0.5 0.1 0.5 0.4\n"


def turn(folder: Path) -> None:
    """Mark every JPEG of a folder as turned; its pixels stay as they are."""
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as stored:
            picture, exif = stored.copy(), stored.getexif()
        exif[0x0112] = ORIENTATION
        picture.save(path, exif=exif, quality=100, subsampling=0)


def from_voc(root: Path, exif: Exif) -> DetectionSet:
    height, width = SIZES[exif]
    write_voc(root, {name: voc_xml(voc_object("cat", (2, 3, 20, 30)), height=height, width=width) for name in "ab"})
    turn(root)
    return voc.read(root=str(root), split="trainval", exif=exif)


def from_coco(root: Path, exif: Exif) -> DetectionSet:
    height, width = SIZES[exif]
    outline = {"segmentation": [[2, 3, 20, 3, 20, 30]], "bbox": [2, 3, 18, 27], "area": 243.0, "iscrowd": 0}
    content = coco_content([{"image_id": 10 + k, "category_id": 3, **outline} for k in range(2)], images=2)
    content["images"] = [{**image, "height": height, "width": width} for image in content["images"]]
    write_coco(root, content)
    turn(root)
    return coco.read(root=str(root), split="val2017", masks="all", exif=exif)


def from_yolo(root: Path, exif: Exif) -> DetectionSet:
    write_yolo(root, dict.fromkeys("ab", POLYGON))
    turn(root)
    return yolo.read(root=root, split="train", masks="all", exif=exif)


def from_two(root: Path, exif: Exif) -> DetectionSet:
    return join([(name, from_yolo(root / name, exif)) for name in ("first", "second")])


@pytest.mark.parametrize("exif", SIZES)
@pytest.mark.parametrize("read", [from_voc, from_coco, from_yolo, from_two])
def test_all_that_is_read_has_one_size(tmp_path: Path, read: Callable[[Path, Exif], DetectionSet], exif: Exif) -> None:
    found = read(tmp_path, exif)
    assert len(found) == (4 if read is from_two else 2)
    for index, record in enumerate(found.records):
        size = (record.height, record.width)
        assert size == SIZES[exif]
        pixels = found.decode(index)
        assert pixels.shape == (*size, 3)
        with Image.open(found.files[index]) as stored:
            expected = np.asarray(stored)
        np.testing.assert_array_equal(pixels, np.rot90(expected, -1) if exif == "apply" else expected)
        assert found.picture is not None
        np.testing.assert_array_equal(found.picture(index).pixels, pixels)
        assert (record.boxes[:, 2:] <= (record.width, record.height)).all()
        if found.masks is not None:
            masks = found.masks(index)
            assert masks.shape == (len(record.labels), *size)
            inside = np.zeros(size, bool)
            x1, y1, x2, y2 = record.boxes[0]
            inside[int(np.floor(y1)) : int(np.ceil(y2)) + 1, int(np.floor(x1)) : int(np.ceil(x2)) + 1] = True
            assert masks[0].any()
            assert not (masks[0] & ~inside).any()
