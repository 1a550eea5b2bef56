"""What a folder of somebody's data holds, by its files: the layouts that data sets and `estimate rca` read. No torch here.

Only names and the heads of files are looked at; `paperbench data check` reads all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from paperbench.config.words import counted
from paperbench.data.voc import CLASSES
from paperbench.data.voc_layout import ALL, devkit_in, unlisted_in
from paperbench.data.yolo_layout import find as find_yolo
from paperbench.errors import DataError

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".hdr")
_TRAIN = ("trainval", "train", "training", "train2017")
_TEST = ("test", "val", "valid", "validation", "testing", "val2017")
_KNOWN = (*_TRAIN, *_TEST)
_PREDICTIONS = ("predictions", "predictionsTs", "predicted", "prediction", "preds", "pred")
_REFERENCES = ("reference", "references", "refs", "ref")
_ROLES = frozenset({"images", "imgs", "masks", "labels", "annotations", "truth", "gt", *_PREDICTIONS, *_REFERENCES})
"""Names of folders that say what part of a set they hold, where the names of classes would say what is to be seen."""
_YEAR = re.compile(r"VOC(?P<year>[A-Za-z0-9_]+)")
_PUBLISHED_YEAR = re.compile(r"VOC20(0[6-9]|1[0-2])")
_NO_YEAR = "mine"
"""`data.year` of a folder that is none of a devkit."""
_HELD_OUT = 0.2
_MOST_FILES = 20_000
_MOST_BYTES = 2_000_000_000
_DEPTH = 3


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """One way to read a folder.

    kind: `voc`, `coco`, `yolo`, `folders` or `rca`. found: what is there, in words. data: the data set of the catalog, empty where
    an experiment reads files itself. values: keys and values of the configuration. lacking: what an experiment would need besides,
    with the remedy; then nothing can be written.
    """

    kind: str
    found: str
    data: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    has_masks: bool = False
    lacking: str = ""


def recognise(folder: Path) -> list[Recognised]:
    """Return every layout that the folder has, the most specific first."""
    folder = folder.resolve()
    readers: tuple[Callable[[Path], Recognised | None], ...] = (_voc, _coco, _yolo, _rca, _folders)
    found = [item for read in readers if (item := read(folder)) is not None]
    # A YOLO set's folders of images, or a VOC set's, are no classes.
    return [item for item in found if item.kind != "folders"] or found


# --- boxes ------------------------------------------------------------------------------------------------------------


def _voc(folder: Path) -> Recognised | None:
    sets = sorted(path.parent for path in _below(folder, "Annotations") if any(path.glob("*.xml")))
    devkits = [path for path in sets if path.parent.name == "VOCdevkit" and path.name.startswith("VOC")]
    places = dict.fromkeys((*devkits, folder, *sets, *sorted(path for path in folder.iterdir() if path.is_dir())))
    layout = next((found for place in places if (found := devkit_in(place) or unlisted_in(place))), None)
    if layout is None:
        return None
    root, year = layout.folder, _NO_YEAR
    if named := _YEAR.fullmatch(layout.folder.name):
        root, year = layout.folder.parent, named["year"]
        root = root.parent if root.name == "VOCdevkit" else root
    splits = _choose(
        set(layout.splits) - ({ALL} if layout.lists is None else set()), whole=ALL if layout.lists is None else ""
    )
    names = _class_names(layout.annotations)
    values: dict[str, Any] = {"root": str(root), "year": year, **splits.values}
    if not (_PUBLISHED_YEAR.fullmatch(layout.folder.name) and set(names) <= set(CLASSES)):
        values["classes"] = names
    what = f"VOC's layout in {layout.folder}" if layout.lists else f"an XML file for each image in {layout.annotations}"
    return Recognised(
        kind="voc",
        found=f"{what}, {_some(names, 'class', 'classes')}{splits.words}",
        data="voc",
        values=values,
        lacking=""
        if splits.values
        else f"no split to train and test on: {layout.lists} needs two lists of images, train.txt and test.txt",
    )


def _class_names(annotations: Path) -> list[str]:
    """Return the names of the objects, in their order; files that cannot be read are for `data check` to name."""
    found: set[str] = set()
    for file in _some_files(annotations, {".xml"}):
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, OSError, ValueError):
            continue
        found |= {text.strip() for item in root.iter("object") if (text := item.findtext("name")) and text.strip()}
    return sorted(found)


def _coco(folder: Path) -> Recognised | None:
    sets = {file: document for file in _json_files(folder) if (document := _coco_document(file)) is not None}
    if not sets:
        return None
    names = {file: re.sub(r"^instances_", "", file.stem) for file in sets}
    homes = {file.parent for file in sets if file.stem.startswith("instances_")}
    if len(homes) == 1 and (home := homes.pop()).name == "annotations" and home.parent in (folder, folder / "coco"):
        # COCO's own layout: other files beside the instances, such as key points, are no sets.
        sets = {file: document for file, document in sets.items() if file.stem.startswith("instances_")}
        names = {file: names[file] for file in sets}
        homes_of = {name: (home.parent / name, home.parent / "images" / name) for name in names.values()}
    else:
        homes_of = {}
    if homes_of and all(any(path.is_dir() for path in places) for places in homes_of.values()):
        splits = {name: name for name in names.values()}
    else:
        splits = {}
        for file, name in names.items():
            place = "/".join(file.relative_to(folder).parts)
            images = _images_of(file, sets[file], folder)
            texts = (name,) if file.parent == folder else (name, file.parent.name)
            split = next((known for text in texts if (known := _split_name(text)) in _KNOWN), name)
            splits[place if split in splits else split] = (
                place if images == file.parent else f"{place}:{images.relative_to(folder)}"
            )
    chosen = _choose(set(splits))
    keys = {key: splits.get(value, value) for key, value in chosen.values.items()}
    categories = next(iter(sets.values()))["categories"]
    objects = sum(len(document["annotations"]) for document in sets.values())
    masked = any(item.get("segmentation") for document in sets.values() for item in document["annotations"][:50])
    classes = [str(item.get("name")) for item in categories if isinstance(item, dict)]
    return Recognised(
        kind="coco",
        found=f"{counted(len(sets), 'COCO files')} ({', '.join(sorted(names.values()))}), {counted(objects, 'objects')}, "
        f"{_some(classes, 'class', 'classes')}{chosen.words}",
        data="coco",
        values={"root": str(folder), **keys},
        has_masks=masked,
        lacking=""
        if chosen.values
        else "none of the files is one to learn from by its name: name one train and one val, or say which: "
        "paperbench train faster-rcnn data=coco data.root=DIR data.train_split=FILE.json:FOLDER data.test_split=FILE.json:FOLDER",
    )


def _json_files(folder: Path) -> Iterator[Path]:
    for depth in range(_DEPTH):
        for file in sorted(folder.glob("*/" * depth + "*.json")):
            if file.is_file() and file.stat().st_size <= _MOST_BYTES:
                yield file


def _coco_document(file: Path) -> dict[str, Any] | None:
    try:
        with file.open(encoding="utf-8-sig") as text:
            head = text.read(1)
            if head != "{":
                return None
            document = json.loads(head + text.read())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    lists = all(isinstance(document.get(key), list) for key in ("images", "annotations", "categories"))
    return document if lists and all(isinstance(item, dict) for item in document["annotations"][:50]) else None


def _images_of(file: Path, document: Mapping[str, Any], folder: Path) -> Path:
    """Return the folder that holds the first image a COCO file names."""
    first = next((item for item in document["images"] if isinstance(item, dict)), {})
    name = str(first.get("file_name") or "").replace("\\", "/")
    split = _split_name(re.sub(r"^instances_", "", file.stem))
    places = [file.parent, folder, folder / "images", folder / split, folder / "images" / split, file.parent / "images"]
    others = sorted(path for depth in range(1, _DEPTH) for path in folder.glob("*/" * depth) if path.is_dir())
    return next((place for place in (*places, *others) if name and (place / name).is_file()), file.parent)


def _yolo(folder: Path) -> Recognised | None:
    file = next((path for name in ("data.yaml", "data.yml", "dataset.yaml") if (path := folder / name).is_file()), None)
    labels = [path for path in _below(folder, "labels") if next(path.rglob("*.txt"), None)]
    if file is None and not labels:
        return None
    if file is not None and not re.search(
        r"^(names|train)\s*:", file.read_text(encoding="utf-8", errors="replace"), re.M
    ):
        return None
    count = sum(1 for path in labels for _ in path.rglob("*.txt"))
    words = f"the YOLO layout ({f'{file.name}, ' if file else ''}{counted(count, 'label files')})"
    root = file if file is not None and file.name != "data.yaml" else folder
    chosen = _yolo_splits(root)
    return Recognised(
        kind="yolo",
        found=f"{words}{chosen.words}",
        data="yolo",
        values={"root": str(root), **chosen.values},
        has_masks=_has_polygons(labels),
    )


def _yolo_splits(root: Path) -> _Choice:
    """Return what differs from the data set's own splits, `train` and `val`; what cannot be read is for `data check` to name."""
    try:
        splits = set(find_yolo(root).splits)
    except DataError:
        return _Choice(values={})
    if {"train", "val"} <= splits or not splits:
        return _Choice(values={})
    return _choose(splits)


def _has_polygons(folders: list[Path]) -> bool:
    """Return True where the first labels are polygons: a class and three points or more."""
    for folder in folders:
        for file in _some_files(folder, {".txt"}, most=20):
            try:
                lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
            except OSError:
                continue
            if any(len(line.split()) >= 7 for line in lines):
                return True
    return False


# --- classes and masks ------------------------------------------------------------------------------------------------


def _folders(folder: Path) -> Recognised | None:
    split = next((name for name in _TRAIN if (folder / name).is_dir()), None)
    home = folder / split if split else folder
    classes = {
        path.name: count
        for path in sorted(home.iterdir())
        if path.is_dir() and not path.name.startswith(".") and (count := sum(1 for _ in _some_files(path, PICTURES)))
    }
    if len(classes) < 2:
        return None
    roles = [name for name in classes if name.casefold() in _ROLES]
    lacking = ""
    if len(roles) > 1:
        lacking = (
            f"{' and '.join(roles)} are names of images and masks, not of classes. Masks to judge: paperbench estimate rca "
            "images=DIR masks=DIR reference.images=DIR reference.masks=DIR. Classes all the same: "
            "paperbench train stn-birds data=folders data.root=DIR"
        )
    return Recognised(
        kind="folders",
        found=f"{_some(list(classes), 'folder of pictures', 'folders of pictures')}, {counted(sum(classes.values()), 'pictures')}"
        f"{f' in {split}' if split else ''}",
        data="folders",
        values={"root": str(folder)},
        lacking=lacking,
    )


def _rca(folder: Path) -> Recognised | None:
    """Images with masks to judge, and images with masks to trust: nnU-Net's folders, or folders of plain names."""
    if all((folder / name).is_dir() for name in ("imagesTr", "imagesTs")):
        return Recognised(kind="rca", found="an nnU-Net archive", values={"images": str(folder)})
    images = _first(folder, "imagesTs", "images", "test/images")
    masks = _first(folder, *_PREDICTIONS, "masks", "test/masks")
    known = _first(folder, "imagesTr", *(f"{name}/images" for name in _REFERENCES), "train/images")
    trusted = _first(folder, "labelsTr", *(f"{name}/masks" for name in _REFERENCES), "train/masks", "train/labels")
    truth = _first(folder, "labelsTs", "truth", "test/labels")
    there = {"images": images, "masks": masks, "reference.images": known, "reference.masks": trusted}
    present = {key: path for key, path in there.items() if path is not None}
    # Folders of pictures with such names are also other layouts': masks or volumes tell.
    if "masks" not in present and not any(_has_volumes(path) for path in present.values()):
        return None
    if len(present) < 2:
        return None
    absent = [key for key in there if key not in present]
    wanted = {
        "images": "imagesTs or images", "masks": "predictions or masks", "reference.images": "imagesTr or reference/images",
        "reference.masks": "labelsTr or reference/masks",
    }  # fmt: skip
    values = {key: str(path) for key, path in present.items()} | ({"truth": str(truth)} if truth else {})
    lacking = "; ".join(f"{key}: no folder {wanted[key]}" for key in absent)
    return Recognised(
        kind="rca",
        found=f"segmentations to judge ({', '.join(path.relative_to(folder).as_posix() for path in present.values())})",
        values=values,
        lacking=f"{lacking}; name them: paperbench estimate rca images=DIR masks=DIR reference.images=DIR reference.masks=DIR"
        if lacking
        else "",
    )


def _has_volumes(folder: Path) -> bool:
    return any(path.name.lower().endswith(VOLUMES) for path in folder.iterdir())


# --- names ------------------------------------------------------------------------------------------------------------


def _split_name(name: str) -> str:
    """Return the known split that a name ends or begins with: `my_train` -> `train`."""
    lower = name.lower()
    for known in sorted(_KNOWN, key=len, reverse=True):
        if re.search(rf"(^|[^a-z]){known}([^a-z]|$)", lower):
            return known
    return name


def _splits(names: set[str]) -> tuple[str, str]:
    """Return the split to learn from and the one to test on, each empty where there is none."""
    train = next((name for name in _TRAIN if name in names), "")
    test = next((name for name in _TEST if name in names), "")
    others = sorted(names - {train, test})
    return train or (others[0] if others and test else ""), test or (others[0] if others and train else "")


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """values: keys of the configuration, empty where nothing can be chosen. words: goes behind what was found."""

    values: Mapping[str, Any]
    words: str = ""


def _choose(names: set[str], *, whole: str = "") -> _Choice:
    """Return the splits to train and test on; of a single one a share is held out. whole: the split of all images, where there is
    one."""
    train, test = _splits(names)
    if train and test:
        return _Choice(values={"train_split": train, "test_split": test})
    single = whole or (next(iter(names)) if len(names) == 1 else "")
    if not single:
        return _Choice(values={})
    return _Choice(
        values={"train_split": single, "test_fraction": _HELD_OUT},
        words=f"; no split to test on, so {100 * _HELD_OUT:g} % of the images are held out",
    )


def _below(folder: Path, name: str) -> list[Path]:
    """Return the folders of a name, down to a depth."""
    return [path for depth in range(_DEPTH + 1) for path in sorted(folder.glob("*/" * depth + name)) if path.is_dir()]


def _first(folder: Path, *names: str) -> Path | None:
    return next((path for name in names if (path := folder / name).is_dir() and any(path.iterdir())), None)


def _some_files(folder: Path, endings: set[str] | frozenset[str], *, most: int = _MOST_FILES) -> Iterator[Path]:
    count = 0
    for path in folder.rglob("*"):
        if path.suffix.lower() in endings and not path.name.startswith("."):
            yield path
            count += 1
            if count == most:
                return


def _some(names: list[str], one: str, several: str) -> str:
    """Return `2 classes: cat, dog`."""
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{len(names)} {one if len(names) == 1 else several}: {shown}" if names else f"no {one}"
