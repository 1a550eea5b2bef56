"""Small data sets in the published layouts, written by the tests themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_image(path: Path, height: int = 40, width: int = 60, seed: int = 0) -> Path:
    """Noise: it compresses badly, so that cutting the file cuts pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def voc_object(name: str, box: Sequence[object], *, difficult: int | None = None, extra: str = "") -> str:
    xmin, ymin, xmax, ymax = box
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return (
        f"<object><name>{name}</name>{flag}{extra}<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
    )


def voc_xml(*objects: str, height: int = 40, width: int = 60) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{size}{''.join(objects)}</annotation>"


def write_voc(
    root: Path, annotations: Mapping[str, str], *, year: str = "2007", split: str = "trainval", suffix: str = ".jpg"
) -> Path:
    """A devkit below `root` whose split lists the given images; returns the folder VOC<year>."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed, (name, xml) in enumerate(annotations.items()):
        (folder / "Annotations" / f"{name}.xml").write_text(xml)
        write_image(folder / "JPEGImages" / f"{name}{suffix}", seed=seed)
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in annotations))
    return folder


CATEGORIES = [{"id": 7, "name": "train"}, {"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}]


def coco_content(annotations: Sequence[Mapping[str, Any]], *, images: int = 3) -> dict[str, Any]:
    """Images with the ids 10, 11, ... of 60 x 40 pixels."""
    return {
        "images": [{"id": 10 + k, "file_name": f"{10 + k:012d}.jpg", "height": 40, "width": 60} for k in range(images)],
        "annotations": [{"id": 100 + k, **entry} for k, entry in enumerate(annotations)],
        "categories": CATEGORIES,
    }


def write_coco(root: Path, content: Mapping[str, Any], *, split: str = "val2017") -> Path:
    """COCO's layout below `root`; returns the annotation file."""
    for seed, image in enumerate(content["images"]):
        write_image(root / "coco" / split / image["file_name"], seed=seed)
    path = root / "coco" / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_yolo(
    root: Path,
    labels: Mapping[str, str | None],
    *,
    split: str = "train",
    height: int = 40,
    width: int = 60,
    names: Sequence[str] | None = ("cat", "dog", "cow"),
) -> Path:
    """`images/<split>` and `labels/<split>` below `root`, with a data.yaml unless `names` is None; None writes no label file."""
    for seed, (name, text) in enumerate(labels.items()):
        write_image(root / "images" / split / f"{name}.jpg", height, width, seed=hash_of(split) + seed)
        if text is not None:
            path = root / "labels" / split / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if names is not None:
        lines = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
        (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{lines}")
    return root


def hash_of(text: str) -> int:
    """A number of its own for each split, so that no two have the same images."""
    return sum(text.encode()) * 1000


def pennfudan_text(name: str, boxes: Sequence[Sequence[int]], *, height: int = 40, width: int = 60) -> str:
    head = (
        "# Compatible with PASCAL Annotation Version 1.00\n"
        f'Image filename : "PennFudanPed/PNGImages/{name}.png"\n'
        f"Image size (X x Y x C) : {width} x {height} x 3\n"
        f"Objects with ground truth : {len(boxes)} {{ }}\n"
    )
    lines = [
        f'Bounding box for object {k} "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : ({a}, {b}) - ({c}, {d})\n'
        for k, (a, b, c, d) in enumerate(boxes, start=1)
    ]
    return head + "".join(lines)


def write_pennfudan(root: Path, images: Mapping[str, Sequence[Sequence[int]]]) -> Path:
    folder = root / "PennFudanPed"
    (folder / "Annotation").mkdir(parents=True, exist_ok=True)
    for seed, (name, boxes) in enumerate(images.items()):
        write_image(folder / "PNGImages" / f"{name}.png", seed=seed)
        (folder / "Annotation" / f"{name}.txt").write_text(pennfudan_text(name, boxes))
    return folder


def write_frey(root: Path, *, frames: int = 12) -> Path:
    """`frey/frey_rawface.mat` as it is published; pixel (r, c) of frame f is r + c + f, so that any transposition shows."""
    import scipy.io

    values = np.add.outer(np.arange(frames), np.add.outer(np.arange(28), np.arange(20))).astype(np.uint8)
    (root / "frey").mkdir(parents=True)
    scipy.io.savemat(root / "frey" / "frey_rawface.mat", {"ff": values.reshape(frames, 560).T})
    return root
