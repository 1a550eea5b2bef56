"""Folders of the YOLO layout: the images of each split, the label file of each image, the names of the classes.

A `data.yaml` says so with the keys `path`, `names`, `train`, `val` and `test`; without one, folders are looked for: `images/train`
or `train/images`, `train.txt` with a list of images, or one folder `images` for everything. A label file stands where `labels`
replaces the last `images` of the image's path, or beside the image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

from paperbench.config import unique_keys
from paperbench.config.paths import expanded
from paperbench.data.layout import contents, data_root, read_text
from paperbench.data.values import class_name, name_of, shown, whole
from paperbench.data.voc_layout import SUFFIXES
from paperbench.data.yolo_files import highest_number, looks_like_labels
from paperbench.errors import DataError

_DESCRIPTIONS: Final = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES: Final = ("classes.txt", "obj.names", "names.txt", "labels/classes.txt", "data/obj.names")
_ALSO: Final = {"val": ("valid", "validation"), "valid": ("val", "validation"), "validation": ("val", "valid")}
_ENDINGS: Final = frozenset(suffix.lower() for suffix in SUFFIXES)
_HOLDS: Final = "images and labels in the YOLO layout: a data.yaml, or images/<split> with labels/<split>/*.txt"
MOST_CLASSES: Final = 1000
"""Of data that name no class: a higher number is a fault, instead of a thousand classes without an object."""


@dataclass(frozen=True)
class Listed:
    """An image of a split, and what names it: the folder, or a line of a list."""

    path: Path
    where: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A data set on disk. `names` are the classes by number, None where nothing names them; `description` is the data.yaml that
    says all of this, or None. `keypoints`: numbers behind each box, of data for poses."""

    folder: Path
    description: Path | None
    content: Mapping[str, Any]
    names: Mapping[int, str] | None
    keypoints: int = 0

    @cached_property
    def classes(self) -> dict[int, str]:
        """Names by number; without names the numbers themselves, up to the highest below `MOST_CLASSES` in any label file."""
        if self.names is not None:
            return dict(self.names)
        files = {label_file(item.path, self.folder) for split in self.splits for item in self.images(split)}
        highest = max((highest_number(path, MOST_CLASSES) for path in files if path.is_file()), default=-1)
        return {number: str(number) for number in range(highest + 1)}

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits there are. Those of one folder without any are `train` and `val`, see `images`."""
        if self.description is not None:
            named = ("train", "val", "test")
            return tuple(name for name in (*named, "valid", "minival") if self.content.get(name))
        found = tuple(name for name in ("train", "val", "test") if self._places(name))
        return found or (("train", "val") if self._unsplit() else ())

    @property
    def shared(self) -> bool:
        """True for one folder of images without splits, a fifth of which is held back."""
        return (
            self.description is None and bool(self._unsplit()) and not any(map(self._places, ("train", "val", "test")))
        )

    def images(self, split: str) -> list[Listed]:
        """The images of a split: of a folder in the order of their names, of a list in its order. Raises DataError.

        Of one folder without splits every fifth image in a fixed shuffle of the names, by their hash, is `val` and the others are
        `train`.
        """
        places = self._described(split) if self.description is not None else self._places(split)
        if places:
            return [item for place in places for item in _images_of(place)]
        if split in ("train", "val") and self.shared:
            everything = list(_images_of(self._unsplit()[0]))
            order = sorted(everything, key=lambda item: hashlib.sha256(item.path.name.encode()).digest())
            held = {item.path for item in order[: max(1, len(order) // 5)]}
            return [item for item in everything if (item.path in held) == (split == "val")]
        there = ", ".join(self.splits) or "none"
        where = self.description or self.folder
        raise DataError(
            f"{where}: no split {split!r}; there are: {there} (data.train_split and data.test_split choose)"
        )

    def _places(self, split: str) -> list[Path]:
        for name in (split, *_ALSO.get(split, ())):
            candidates = (
                self.folder / "images" / name,
                self.folder / name / "images",
                self.folder / f"{name}.txt",
                self.folder / name,
            )
            for place in candidates:
                if place.is_dir() or place.is_file():
                    return [place]
        return []

    def _unsplit(self) -> list[Path]:
        places = (self.folder / "images", self.folder / "obj_train_data", self.folder)
        return [place for place in places if place.is_dir() and next(_images_below(place), None)][:1]

    def _described(self, split: str) -> list[Path]:
        assert self.description is not None
        key = next((name for name in (split, *_ALSO.get(split, ())) if self.content.get(name)), None)
        if key is None:
            return []
        value = self.content[key]
        entries = value if isinstance(value, list) else [value]
        return [self._resolved(key, entry) for entry in entries]

    def _resolved(self, key: str, entry: Any) -> Path:
        """The folder or list that an entry of the data.yaml means: below `path`, or beside the file where `path` leads nowhere, as
        after a download. `../train` that leads nowhere means `train`, as Roboflow writes."""
        where = f"{self.description}: {key}"
        text = name_of(entry)
        if text is None:
            raise DataError(
                f"{where} is {shown(entry)}; it is a folder of images, a list of images, or a list of these"
            )
        assert self.description is not None
        text = text.replace("\\", "/")
        given = name_of(self.content.get("path"))
        bases = [self.description.parent / expanded(given)] if given else []
        candidates = [base / expanded(text) for base in (*bases, self.description.parent)]
        candidates += [self.description.parent / text[3:]] if text.startswith("../") else []
        for place in candidates:
            if place.exists():
                return _absolute(place)
        looked = ", ".join(dict.fromkeys(str(place) for place in candidates))
        said = f" and path: {shown(given)}" if given else ""
        raise DataError(
            f"{where} is {text!r}{said}, and there is nothing at {looked}; correct {key} or path, which may be relative to the file"
        )


def find(root: str | Path | None) -> Layout:
    """The layout at `root`: a folder, or its data.yaml. Raises DataError."""
    base = _absolute(data_root(root))
    if base.is_file():
        return _described(base)
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; data.root is the folder, or the data.yaml, of {_HOLDS}")
    description = _description_in(base)
    if description is not None:
        return _described(description)
    layout = Layout(folder=base, description=None, content={}, names=_named(base))
    if not layout.splits:
        raise DataError(f"{base}: no data set 'yolo' here, {_HOLDS}\n  found: {contents(base)}")
    return layout


def _description_in(folder: Path) -> Path | None:
    """The data.yaml of a folder, or the one YAML file in it that names classes and images, whatever its name."""
    usual = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    if usual is not None:
        return usual
    found = [path for path in sorted(folder.glob("*.y*ml")) if path.is_file() and _describes(path)]
    if len(found) > 1:
        raise DataError(
            f"{folder}: several files describe YOLO data: {', '.join(path.name for path in found)}; "
            f"data.root={found[0]} chooses one"
        )
    return found[0] if found else None


def _describes(path: Path) -> bool:
    try:
        content = yaml.safe_load(read_text(path))
    except (DataError, yaml.YAMLError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "names" in content and bool({"train", "val", "test"} & content.keys())


def label_file(image: Path, folder: Path) -> Path:
    """The label file of an image: `labels` in place of the last `images` of its path below `folder`, else of the whole path if
    such a folder is there, else beside the image."""
    parts = image.parts
    own = len(folder.parts) if parts[: len(folder.parts)] == folder.parts else len(parts)
    places = [k for k in range(len(parts) - 1) if parts[k] == "images"]
    below = [k for k in places if k >= own]
    for k in (*below[-1:], *places[-1:]):
        other = Path(*parts[:k], "labels", *parts[k + 1 :]).with_suffix(".txt")
        if k in below or other.parent.is_dir():
            return other
    return image.with_suffix(".txt")


def stray_labels(images: Sequence[Path], folder: Path) -> list[Path]:
    """Label files in the folders of the images' labels that belong to no image on disk, whatever split it is in."""
    labels = {label_file(image, folder) for image in images}
    places: dict[Path, Path] = {label_file(image, folder).parent: image.parent for image in images}
    strays = []
    for place, beside in places.items():
        here = {path.stem for path in beside.iterdir() if _is_image(path)} if beside.is_dir() else set[str]()
        for path in sorted(place.glob("*.txt")):
            known = path in labels or path.stem in here or path.name in {Path(name).name for name in _NAMES}
            if not known and not path.name.startswith(".") and looks_like_labels(path):
                strays.append(path)
    return strays


def _absolute(path: Path) -> Path:
    """Without `..`, and without following links: a link to a folder of images stands where its labels are looked for."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links


# --- images -----------------------------------------------------------------------------------------------------------


def _images_of(place: Path) -> Iterator[Listed]:
    if place.is_dir():
        found = sorted(_images_below(place))
        if not found:
            endings = ", ".join(SUFFIXES[::2])
            raise DataError(f"{place}: holds no image; found: {contents(place)} (endings that are read: {endings})")
        yield from (Listed(path, str(place)) for path in found)
    elif _is_image(place):
        yield Listed(place, str(place))
    else:
        yield from _of_list(place)


def _images_below(place: Path) -> Iterator[Path]:
    return (path for path in place.rglob("*") if _is_image(path) and path.is_file())


def _is_image(path: Path) -> bool:
    """True for a name of an image; hidden files, such as `._a.jpg` of macOS, are none."""
    return path.suffix.lower() in _ENDINGS and not path.name.startswith(".")


def _of_list(path: Path) -> Iterator[Listed]:
    """The images of a list, a path a line: below the list's folder or one above it, as programs differ there, or without the first
    folder of the path, which CVAT writes as `data/`."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), start=1)]
    if not any(line for _, line in lines):
        raise DataError(f"{path}: lists no image; the file is empty or half-written")
    for number, line in lines:
        if line:
            text = line.replace("\\", "/")
            text = str(expanded(text)) if text.startswith("~/") else text
            bases = (path.parent, *list(path.parent.parents)[:2])
            candidates = [*(base / text for base in bases), path.parent / text.partition("/")[2]]
            yield Listed(next((place for place in candidates if place.is_file()), candidates[0]), f"{path}:{number}")


# --- data.yaml and names ----------------------------------------------------------------------------------------------


def _described(path: Path) -> Layout:
    text = read_text(path)
    try:
        content = unique_keys.load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a description of YOLO data: keys names, train and val are expected in it")
    names = _names(path, content, _written_names(text))
    given = name_of(content.get("path"))
    wanted = path.parent / expanded(given) if given else path.parent
    folder = wanted if wanted.is_dir() else path.parent
    layout = Layout(
        folder=_absolute(folder), description=path, content=content, names=names, keypoints=_keypoints(path, content)
    )
    if not layout.splits:
        raise DataError(f"{path}: names no images: train and val are a folder of images, or a list of images, each")
    return layout


def _written_names(text: str) -> list[str]:
    """Return the names as the file writes them, which `0012` and `1_000` are not once YAML has read them as numbers."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    names = next((value for key, value in node.value if key.value == "names"), None)
    if isinstance(names, yaml.SequenceNode):
        return [str(item.value) for item in names.value]
    return [str(item.value) for _, item in names.value] if isinstance(names, yaml.MappingNode) else []


def _names(path: Path, content: Mapping[str, Any], written: Sequence[str]) -> dict[int, str]:
    given, count = content.get("names"), content.get("nc")
    numbers: list[Any]
    if isinstance(given, list):
        numbers, texts = list(range(len(given))), given
    elif isinstance(given, dict):
        keys = [int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 10 else key for key in given]
        numbers, texts = [whole(key) for key in keys], list(given.values())
    else:
        what = "is missing" if given is None else f"is {shown(given)}"
        raise DataError(f"{path}: names {what}; it is a list of the classes' names, or a map of their numbers to names")
    if sorted(number for number in numbers if number is not None) != list(range(len(numbers))):
        raise DataError(f"{path}: names has the numbers {shown(list(given))}; they count from 0 without a gap")
    found: dict[int, str] = {}
    # Names that are merged from elsewhere in the file (`<<`) are not found as they are written.
    shown_as = written if len(written) == len(texts) else [str(value) for value in texts]
    for number, value, as_written in zip(numbers, texts, shown_as, strict=True):
        number_as_text = isinstance(value, int | float) and not isinstance(value, bool)
        name = class_name(as_written if number_as_text else value)
        if name is None:
            hint = (
                ": write it in quotes, YAML takes yes, no, on and off for true and false"
                if value in (True, False)
                else ""
            )
            raise DataError(f"{path}: names: {number} is {shown(value)}; a class is named by text{hint}")
        if name in found.values():
            raise DataError(
                f"{path}: names: {name!r} stands there twice; rename or merge them, since results are by name"
            )
        found[number] = name
    if not found or (count is not None and whole(count) != len(found)):
        raise DataError(f"{path}: names has {len(found)} classes, nc is {shown(count)}")
    return dict(sorted(found.items()))


def _keypoints(path: Path, content: Mapping[str, Any]) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    sizes = [whole(size) for size in shape] if isinstance(shape, list) else []
    if len(sizes) != 2 or any(size is None or size < 1 for size in sizes):
        raise DataError(f"{path}: kpt_shape is {shown(shape)}; it is [number of points, 2 or 3]")
    return (sizes[0] or 0) * (sizes[1] or 0)


def _named(folder: Path) -> dict[int, str] | None:
    """Names that a file lists, one a line; None where there is no such file."""
    path = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    names = [class_name(line) or "" for line in read_text(path).split("\n")]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names):
        if not name:
            raise DataError(f"{path}:{number + 1}: an empty line among the names, which are numbered by line from 0")
        if name in names[:number]:
            raise DataError(f"{path}:{number + 1}: {name!r} stands there twice; rename or merge them")
    return dict(enumerate(names))
