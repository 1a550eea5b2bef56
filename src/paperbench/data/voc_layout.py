"""Folders with an XML file for each image: a VOC devkit, and the folders of labelling programs.

A devkit has `Annotations`, `JPEGImages` and a list of images for each split in `ImageSets/Main`. Without lists, every XML file is
an image, in `Annotations` with the images in `JPEGImages`, or under similar names, or beside the images, as LabelImg writes them.
Their one split is `all`; where they lie in folders such as `train` and `valid`, each of these is a split as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from paperbench.data.layout import data_root, missing, read_text
from paperbench.data.values import as_stored, is_file
from paperbench.errors import DataError

SUFFIXES: Final = tuple(
    suffix
    for lower in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".gif")
    for suffix in (lower, lower.upper())
)
"""Endings of images, each in lower and in upper case."""
ALL: Final = "all"
"""The split of every image of a folder without lists."""
_FLAGS: Final = ("-1", "0", "1")
"""What follows the names in the devkit's lists of one class: the image has none, only difficult ones, or some."""
_ANNOTATIONS: Final = ("annotations", "annotation", "xmls", "xml", "labels")
_IMAGES: Final = ("jpegimages", "images", "image", "imgs", "img", "photos")
_HEAD: Final = 4096
_HOLD_OUT: Final = f"data.train_split={ALL} data.test_fraction=0.2 holds a fifth of all images out for the test"


@dataclass(frozen=True, kw_only=True)
class VocLayout:
    """Where the files of an image are. lists: `ImageSets/Main`, or None for a folder without lists."""

    folder: Path
    annotations: Path
    images: Path
    lists: Path | None

    def annotation(self, name: str) -> Path:
        """Return the XML file of an image, as it is stored."""
        return as_stored(self.annotations / f"{name}.xml")

    def image(self, name: str) -> Path:
        """Return the file of an image, whatever its ending; one that does not exist where there is none."""
        candidates = [self.images / f"{name}{suffix}" for suffix in SUFFIXES]
        return next((stored for path in candidates if is_file(stored := as_stored(path))), candidates[0])

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits there are."""
        if self.lists is not None:
            # Lists of one class are named <class>_<split>; they are no splits.
            return tuple(sorted(path.stem for path in self.lists.glob("*.txt") if "_" not in path.stem))
        return (ALL, *sorted({name.partition("/")[0] for name in self._names if "/" in name}))

    def names(self, split: str) -> list[str]:
        """Return the names of a split's images, as listed, or in the order of their files. Raises DataError naming the splits there
        are.

        A line of a list is a name, which may have blanks in it. The devkit's lists of one class have a flag behind it, which is
        left out where an image of the whole line is not there.
        """
        if self.lists is None:
            found = self._names if split == ALL else [name for name in self._names if name.startswith(f"{split}/")]
            if not found:
                raise DataError(f"{self.folder}: no such split {split!r}; {self._choice}; {_HOLD_OUT}")
            return found
        listing = self.lists / f"{split}.txt"
        if not listing.is_file():
            raise DataError(f"{listing}: no such split; {self._choice}")
        names = [self._name_in(line.strip()) for line in read_text(listing).split("\n") if line.strip()]
        if not names:
            raise DataError(f"{listing}: lists no image; the file is empty or half-written")
        return names

    def where(self, split: str) -> str:
        """Name what says which images a split has."""
        return str(self.folder if self.lists is None else self.lists / f"{split}.txt")

    def without_annotation(self, split: str) -> int:
        """Return the number of images of a folder without lists that have no XML file."""
        if self.lists is not None:
            return 0
        known = set(self._names)
        names = {
            path.relative_to(self.images).with_suffix("").as_posix()
            for path in _files(self.images)
            if path.suffix in SUFFIXES
        }
        return sum(name not in known and (split == ALL or name.startswith(f"{split}/")) for name in names)

    @property
    def _choice(self) -> str:
        return f"there are: {', '.join(self.splits) or 'none'} (data.train_split and data.test_split choose)"

    @cached_property
    def _names(self) -> list[str]:
        found = (path for path in _files(self.annotations) if path.suffix.lower() == ".xml")
        return sorted(path.relative_to(self.annotations).with_suffix("").as_posix() for path in found)

    def _name_in(self, line: str) -> str:
        name, _, flag = line.replace("\t", " ").rpartition(" ")
        if flag not in _FLAGS or not name.strip():
            return line
        whole = is_file(self.annotations / f"{line}.xml") or is_file(self.image(line))
        return line if whole else name.strip()


def find(root: str | None, year: str) -> VocLayout:
    """The folder VOC<year>: below a devkit, in a devkit, or `root` itself. Raises DataError."""
    base = data_root(root)
    devkit = Path("VOCdevkit") / f"VOC{year}"
    places = (base / devkit, base / f"VOC{year}", base / "TrainVal" / devkit, base)
    for read in (devkit_in, unlisted_in):
        found = next((layout for folder in places if (layout := read(folder)) is not None), None)
        if found is not None:
            return found
    raise missing(
        "voc",
        base,
        f"{devkit}/ImageSets/Main was looked for (data.year={year}), or XML files in Annotations or beside the images",
    )


def devkit_in(folder: Path) -> VocLayout | None:
    """Return the layout of a folder with lists of images; None where there are none."""
    lists = folder / "ImageSets" / "Main"
    if not lists.is_dir():
        return None
    return VocLayout(folder=folder, annotations=folder / "Annotations", images=folder / "JPEGImages", lists=lists)


def unlisted_in(folder: Path) -> VocLayout | None:
    """Return the layout of a folder without lists, by its first XML file; None where no file is an annotation."""
    if not folder.is_dir():
        return None
    annotations = _child(folder, _ANNOTATIONS)
    if annotations is not None and _has_annotation(annotations):
        images = _child(folder, _IMAGES) or folder
        return VocLayout(folder=folder, annotations=annotations, images=images, lists=None)
    if _has_annotation(folder):
        return VocLayout(folder=folder, annotations=folder, images=folder, lists=None)
    return None


def _child(folder: Path, names: tuple[str, ...]) -> Path | None:
    there = {path.name.casefold(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _has_annotation(folder: Path) -> bool:
    """Return True where the first XML file is VOC's; an empty or a damaged one among others is for the reader to name."""
    heads = (_head(path) for path in _files(folder) if path.suffix.lower() == ".xml")
    return any(b"<annotation" in head for head, _ in zip(heads, range(20), strict=False))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those in it, hidden ones left out."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from (item for item in sorted(path.iterdir()) if item.is_file() and not item.name.startswith("."))
        elif path.is_file():
            yield path
