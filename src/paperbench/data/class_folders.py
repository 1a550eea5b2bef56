"""Folders of classes, the usual layout of photographs: `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or one level of `CLASS/*.jpg`.

Of one level, and of a `train` without a `test`, a part of every class is held back, by a seed. The held-back folder may also be
called `val`, `valid` or `validation`. Classes are sorted by name, as torchvision's `ImageFolder` sorts them; names that differ in
how an accent is encoded are one name. Pictures in folders within a class belong to it. Hidden files are passed over, and other
files are counted.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from paperbench.config.suggest import nearest
from paperbench.data.image_sets import FoldersConfig
from paperbench.data.layout import data_root, missing
from paperbench.engine.seeding import hashed
from paperbench.errors import DataError

Split = Literal["train", "test"]

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
"""Endings of pictures, in any case."""
TEST_NAMES: Final = ("test", "val", "valid", "validation")
"""Names of the held-back folder, the first that is there is taken."""
UNLABELLED: Final = -1
"""Class of a picture that lies in no class."""
_IGNORED: Final = "__MACOSX"
_HELD_BACK: Final = 103
_SHOWN: Final = 8


@dataclass(frozen=True, kw_only=True)
class Files:
    """Pictures of one split: paths, and (N,) int64 positions of their classes, or `UNLABELLED`."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def spread(self, count: int) -> Files:
        """Return `count` pictures that are spread evenly over the split, and so over its classes; 0 is all of them."""
        if count == 0 or count >= len(self):
            return self
        return self.select(np.linspace(0, len(self) - 1, count).round().astype(np.int64))

    def select(self, places: NDArray[np.int64]) -> Files:
        """Return the pictures at these places."""
        return Files(paths=tuple(self.paths[place] for place in places.tolist()), labels=self.labels[places])


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """The pictures below a folder. passed_over: counts of what is no picture of the data set, by its kind."""

    root: Path
    classes: tuple[str, ...]
    train: Files
    test: Files
    origin: str
    """Where the splits come from, in words."""
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def split(self, name: Split) -> Files:
        """Return one split."""
        return self.train if name == "train" else self.test

    @cached_property
    def repeated(self) -> tuple[tuple[Path, Path], ...]:
        """Test pictures whose file is byte for byte that of a training picture, each with one of these."""
        return equal_files(self.train.paths, self.test.paths)


@dataclass(kw_only=True)
class _Found:
    """What one walk found: pictures by class."""

    pictures: dict[str, list[Path]] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)


def find(config: FoldersConfig, *, labelled: bool = True) -> ClassFolders:
    """Find the pictures below `data.root`; none is opened.

    labelled: the task needs classes, at least two; otherwise a folder of pictures without classes is read too. Raises DataError for
    a layout that has no one reading: classes of one split only, classes without a picture, folders of splits within classes.
    """
    root = data_root(config.root)
    if not root.is_dir():
        raise missing("folders", root, "no such folder")
    folders = {_name(path).lower(): path for path in _folders(root)}
    test = next((folders[name] for name in TEST_NAMES if name in folders), None)
    if "train" in folders and _is_split(folders["train"], alone=len(folders) == 1, paired=test is not None):
        found = _of_splits(config, root, folders["train"], test, labelled=labelled)
    elif test is not None and all(name in TEST_NAMES for name in folders):
        raise DataError(
            f"{root}: has {test.name}/ and no train/: add the training pictures, or give data.root={test} alone"
        )
    else:
        found = _of_one_level(config, root, labelled=labelled)
    for name in ("train", "test"):
        if not len(found.split(name)):
            raise DataError(
                f"{root}: the {name} split holds no picture ({', '.join(sorted(SUFFIXES))} were looked for)"
            )
    return found


# --- layouts ----------------------------------------------------------------------------------------------------------


def _of_splits(config: FoldersConfig, root: Path, train: Path, test: Path | None, *, labelled: bool) -> ClassFolders:
    first = _by_class(train)
    if test is None:
        _check_classes(train, first, labelled=labelled)
        return _held_back(
            config, root, first, f"{train.name}/, of which {_percent(config)} of every class are held back"
        )
    second = _by_class(test)
    unread = [path.name for path in _folders(root) if path not in (train, test)]
    passed_over = first.passed_over + second.passed_over
    if unread:
        passed_over[f"folders beside {train.name}/ and {test.name}/ ({', '.join(unread[:_SHOWN])})"] = len(unread)
    flat = not _named(first)
    _check_classes(test, second, labelled=labelled)
    if not flat:
        _check_classes(train, first, labelled=labelled)
        _check_same(train, first, test, second)
    classes = _named(second)
    return ClassFolders(
        root=root,
        classes=classes or ("",),
        train=_files(first, classes),
        test=_files(second, classes),
        origin=f"{train.name}/ and {test.name}/" + (f", no classes in {train.name}/" if flat and classes else ""),
        passed_over=dict(passed_over),
    )


def _of_one_level(config: FoldersConfig, root: Path, *, labelled: bool) -> ClassFolders:
    found = _by_class(root)
    _check_classes(root, found, labelled=labelled)
    return _held_back(config, root, found, f"one level, of which {_percent(config)} of every class are held back")


def _held_back(config: FoldersConfig, root: Path, found: _Found, origin: str) -> ClassFolders:
    """Split by `test_fraction`: of every class the pictures with the smallest random keys, at least one, are the test set."""
    classes = _named(found)
    files = _files(found, classes)
    keys = np.random.Philox(key=hashed(config.split_seed, _HELD_BACK)).random_raw(len(files))
    order = np.argsort(keys, kind="stable")
    held = np.zeros(len(files), bool)
    for number in np.unique(files.labels):
        own = order[files.labels[order] == number]
        if len(own) < 2:
            raise DataError(
                f"{root}: class {classes[number] if classes else root.name} has one picture, which cannot be both trained and "
                "tested on: add pictures, or make train/ and test/"
            )
        held[own[: min(len(own) - 1, max(1, round(config.test_fraction * len(own))))]] = True
    return ClassFolders(
        root=root,
        classes=classes or ("",),
        train=files.select(np.flatnonzero(~held)),
        test=files.select(np.flatnonzero(held)),
        origin=origin,
        passed_over=dict(found.passed_over),
    )


def _is_split(train: Path, *, alone: bool, paired: bool) -> bool:
    """Return False for a folder of pictures that is called train and lies beside other classes, such as plane and car."""
    return alone or paired or bool(_folders(train))


def _percent(config: FoldersConfig) -> str:
    return f"{100 * config.test_fraction:g} % (data.split_seed={config.split_seed})"


def find_unlabelled(folder: str | Path) -> Files:
    """Return all pictures in a folder and in those within it, in the order of their names. Raises DataError."""
    place = data_root(folder)
    if not place.is_dir():
        raise DataError(
            f"data.unlabelled={folder}: {'is a file, not a folder' if place.exists() else 'no such folder'}"
        )
    found = _Found()
    _walk(place, place, "", found)
    paths = found.pictures.get("", [])
    if not paths:
        raise DataError(f"data.unlabelled={folder}: holds no picture ({', '.join(sorted(SUFFIXES))} were looked for)")
    return Files(paths=tuple(paths), labels=np.full(len(paths), UNLABELLED, np.int64))


# --- classes ----------------------------------------------------------------------------------------------------------


def _named(found: _Found) -> tuple[str, ...]:
    return tuple(sorted(name for name in found.pictures if name))


def _files(found: _Found, classes: Sequence[str]) -> Files:
    """Return pictures by class; without classes, those beside no folder, unlabelled where `classes` come from elsewhere."""
    numbers = (
        {name: number for number, name in enumerate(classes)}
        if _named(found)
        else {"": 0 if not classes else UNLABELLED}
    )
    entries = [(path, number) for name, number in numbers.items() for path in found.pictures.get(name, [])]
    return Files(paths=tuple(path for path, _ in entries), labels=np.array([number for _, number in entries], np.int64))


def _check_classes(folder: Path, found: _Found, *, labelled: bool) -> None:
    classes = _named(found)
    if empty := [name for name in classes if not found.pictures[name]]:
        raise DataError(
            f"{folder}: {len(empty)} of {len(classes)} folders hold no picture: {_shown(empty)}. Every folder is a class: fill "
            "them, or take them away"
        )
    if labelled and len(classes) < 2:
        held = f"only the class {classes[0]}" if classes else "pictures that lie in no folder of a class"
        inner = f"; if its classes lie deeper, give data.root={folder / classes[0]}" if classes else ""
        raise DataError(
            f"{folder}: holds {held}: classes are folders, CLASS/*.jpg, and there must be two or more{inner}"
        )
    if classes and found.pictures.get(""):
        found.passed_over["pictures beside the folders of classes"] += len(found.pictures.pop(""))


def _check_same(train: Path, first: _Found, test: Path, second: _Found) -> None:
    """Raise DataError naming the classes that are in one of the two folders alone."""
    one, other = set(_named(first)), set(_named(second))
    lines = []
    for folder, others, alone, near in ((train, test, one - other, other), (test, train, other - one, one)):
        for name in sorted(alone)[:_SHOWN]:
            hint = [found for found in nearest(name, sorted(near)) if found not in alone][:1]
            lines.append(
                f"{folder / name}: a class that {others.name}/ does not have" + (f"; it has {hint[0]}" if hint else "")
            )
        if len(alone) > _SHOWN:
            lines.append(f"{folder}: {len(alone) - _SHOWN} more classes that {others.name}/ does not have")
    if lines:
        raise DataError(
            "\n".join([*lines, "Both splits must have the same classes: rename these folders, or take them away"])
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# --- files ------------------------------------------------------------------------------------------------------------


def _by_class(folder: Path) -> _Found:
    """Return the pictures below a folder: those in it under "", those in each of its folders under its name."""
    found = _Found()
    for path in _entries(folder):
        if path.is_dir() and not _is_hidden(path):
            name = _name(path)
            if name in found.pictures:
                raise DataError(f"{path}: another folder has the same name, its accents encoded otherwise; join them")
            inner = [_name(part).lower() for part in _folders(path)]
            if "train" in inner:
                raise DataError(f"{path}: holds train/, so it is a data set and no class: give data.root={path}")
            found.pictures[name] = []
            _walk(path, path, name, found)
        else:
            _take(path, "", found)
    return found


def _walk(folder: Path, top: Path, name: str, found: _Found) -> None:
    for path in _entries(folder):
        if path.is_dir() and not _is_hidden(path):
            _walk(path, top, name, found)
        elif _take(path, name, found) and folder != top:
            found.passed_over[NESTED] += 1


NESTED: Final = "pictures in folders within a class, which belong to it"


def _take(path: Path, name: str, found: _Found) -> bool:
    if _is_hidden(path):
        found.passed_over["hidden files and folders"] += 1
    elif path.suffix.lower() in SUFFIXES:
        found.pictures.setdefault(name, []).append(path)
        return True
    else:
        found.passed_over[f"other files (*{path.suffix.lower()})" if path.suffix else "other files"] += 1
    return False


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: (_name(path), path.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir() and not _is_hidden(path)]


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == _IGNORED


def _name(path: Path) -> str:
    return unicodedata.normalize("NFC", path.name)


def equal_files(first: Iterable[Path], second: Iterable[Path]) -> tuple[tuple[Path, Path], ...]:
    """Return (file of `first`, file of `second`) for each of `second` that holds the same bytes as one of `first`.

    Files of equal size alone are read; one that cannot be read equals none.
    """
    sizes: dict[int, list[Path]] = {}
    for path in first:
        sizes.setdefault(_size(path), []).append(path)
    known: dict[int, dict[str, Path]] = {}
    pairs = []
    for path in second:
        size = _size(path)
        if size <= 0 or size not in sizes:
            continue
        if size not in known:
            known[size] = {_digest(other): other for other in reversed(sizes[size])}
        other = known[size].get(_digest(path))
        if other is not None:
            pairs.append((other, path))
    return tuple(pairs)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return str(path)
