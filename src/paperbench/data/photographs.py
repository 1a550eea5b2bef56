"""Pictures of folders of classes as labelled images: decoded, squared and resized, kept in memory within a budget.

Every file is decoded once before the work starts, so that all that are damaged are named together. Images that fit the budget are
one tensor; of more, the first ones stay in memory and the others are decoded again at each use, with the same result.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperbench.data.class_folders import NESTED, ClassFolders, Files, Split, equal_files, find, find_unlabelled
from paperbench.data.faults import Faults
from paperbench.data.image_files import READERS, BadImageError, inspect_all
from paperbench.data.image_sets import FoldersConfig, ImageSet, TransferFoldersData
from paperbench.data.pictures import Exif, Picture, decode_rgb, grey_of, read_picture, square
from paperbench.engine.class_names import record_classes
from paperbench.engine.run import Run
from paperbench.errors import DataError

Progress = Callable[[int, int], None]

_AT_ONCE: Final = 32 * READERS
"""Files in the hands of the readers: the memory beside the budget."""
_REMEDY: Final = "Replace these files, or take them out of their folders"


class PhotographStore:
    """Images (N, C, side, side) uint8 of files, indexed like a tensor: by positions (B,) int64, by a slice, by a number.

    channels: 3, or 1 for grey levels. cache_mb: MiB of images that stay in memory, in order of first use. Safe to use from several
    threads. Raises DataError naming a file that cannot be decoded any more.
    """

    def __init__(self, paths: Sequence[Path], *, side: int, channels: int, exif: Exif, cache_mb: float) -> None:
        self.paths = tuple(paths)
        self.shape = torch.Size((len(self.paths), channels, side, side))
        self.ndim = 4
        self.device = torch.device("cpu")
        self._exif: Exif = exif
        self._rows: NDArray[np.int64] | None = None
        each = channels * side * side
        self._cache = torch.empty(
            (min(len(self.paths), int(cache_mb * 2**20) // each), channels, side, side), dtype=torch.uint8
        )
        self._slot = np.full(len(self.paths), -1, np.int64)
        self._used = [0]
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="decode")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Return (B, C, side, side), or (C, side, side) for a number, on `device`."""
        if isinstance(index, int):
            return self[torch.tensor([index])][0]
        places = np.arange(len(self))[index] if isinstance(index, slice) else index.cpu().numpy()
        rows = places if self._rows is None else self._rows[places]
        return self._gather(rows).to(self.device)

    def to(self, device: torch.device | str) -> PhotographStore:
        """Return the same images on a device; the cache stays on the host and is shared."""
        other = copy.copy(self)
        other.device = torch.device(device)
        return other

    def part(self, rows: Tensor) -> PhotographStore:
        """Return the images at `rows`, (n,) int64; the cache is shared."""
        chosen = rows.cpu().numpy()
        other = copy.copy(self)
        other._rows = chosen if self._rows is None else self._rows[chosen]
        other.shape = torch.Size((len(chosen), *self.shape[1:]))
        return other

    def read_all(self, progress: Progress | None = None) -> list[BadImageError]:
        """Decode every file once, and fill the cache. Returns the faults of those that cannot be decoded."""
        faults: list[BadImageError] = []

        def one(row: int) -> BadImageError | NDArray[np.uint8]:
            try:
                return self._decode(row)
            except BadImageError as error:
                return error

        for start in range(0, len(self.paths), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(self.paths)))
            for row, found in zip(rows, self._pool.map(one, rows), strict=True):
                if isinstance(found, BadImageError):
                    faults.append(found)
                else:
                    self._keep(row, found)
            if progress is not None:
                progress(rows.stop, len(self.paths))
        return faults

    def _gather(self, rows: NDArray[np.int64]) -> Tensor:
        out = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        slots = self._slot[rows]
        held = slots >= 0
        if held.any():
            out[torch.from_numpy(np.flatnonzero(held))] = self._cache[torch.from_numpy(slots[held])]
        lacking = np.flatnonzero(~held)
        for start in range(0, len(lacking), _AT_ONCE):
            places = lacking[start : start + _AT_ONCE].tolist()
            for place, pixels in zip(places, self._pool.map(self._decode, rows[places].tolist()), strict=True):
                out[place] = torch.from_numpy(pixels)
                self._keep(int(rows[place]), pixels)
        return out

    def _keep(self, row: int, pixels: NDArray[np.uint8]) -> None:
        with self._lock:
            if self._slot[row] < 0 and self._used[0] < len(self._cache):
                self._cache[self._used[0]] = torch.from_numpy(pixels)
                self._slot[row] = self._used[0]
                self._used[0] += 1

    def _decode(self, row: int) -> NDArray[np.uint8]:
        pixels = square(decode_rgb(self.paths[row], exif=self._exif), self.shape[-1])
        return np.array(pixels if self.shape[1] == 3 else grey_of(pixels))

    def in_memory(self) -> Tensor | None:
        """Return all images as one tensor, where all of them are in the cache; else None."""
        if self._used[0] < len(self.paths):
            return None
        if (self._slot == np.arange(len(self._slot))).all():
            return self._cache
        return self._cache[torch.from_numpy(self._slot)]


def prepare(pixels: NDArray[np.uint8], *, side: int, channels: int) -> Tensor:
    """Return a picture (H, W, 3) as the images of a data set are made, (channels, side, side) uint8."""
    squared = square(pixels, side)
    return torch.from_numpy(np.array(squared if channels == 3 else grey_of(squared)))


# --- from the configuration -------------------------------------------------------------------------------------------


def load(
    config: FoldersConfig, split: Split, *, channels: int = 3, labelled: bool = True, progress: Progress | None = None
) -> ImageSet:
    """Read a split, images (N, channels, side, side). With `data.unlabelled` its pictures follow the training images.

    Raises DataError with every file that does not decode.
    """
    found = find(config, labelled=labelled)
    files = files_of(config, found, split)
    store = PhotographStore(
        files.paths,
        side=config.side,
        channels=channels,
        exif=config.exif,
        cache_mb=config.cache_mb * len(files) / sum(len(files_of(config, found, name)) for name in ("train", "test")),
    )
    bad = store.read_all(progress)
    if bad:
        faults = Faults(f"{found.root} ({split})", "error", remedy=_REMEDY)
        for error in bad:
            faults.add(error.reason, str(error.path), error.detail)
        faults.finish(len(files) - len(bad))
    whole = store.in_memory()
    images = store if whole is None else whole[:, 0] if channels == 1 else whole
    return ImageSet(
        images=cast(Tensor, images),
        labels=torch.from_numpy(files.labels),
        classes=found.classes,
        name=f"{found.root.name} {split}",
    )


def files_of(config: FoldersConfig, found: ClassFolders, split: Split) -> Files:
    """Return the files of a split, cut to `max_train_images` or `max_test_images`, and the unlabelled ones behind them."""
    files = found.split(split).spread(config.max_train_images if split == "train" else config.max_test_images)
    if split == "test" or not isinstance(config, TransferFoldersData) or not config.unlabelled:
        return files
    more = find_unlabelled(config.unlabelled).spread(config.max_train_images)
    return Files(paths=(*files.paths, *more.paths), labels=np.concatenate([files.labels, more.labels]))


def record(run: Run, config: FoldersConfig, *, labelled: bool = True) -> None:
    """Write the classes and a digest of the files into the folder of a run. Raises DataError where it began with other ones."""
    found = find(config, labelled=labelled)
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for path in files_of(config, found, split).paths:
            digest.update(
                f"{split} {'/'.join(path.parts[-3:])} {path.stat().st_size if path.exists() else -1}\n".encode()
            )
    record_classes(run, found.classes, listing=digest.hexdigest())


def locate(config: FoldersConfig, *, labelled: bool = True) -> None:
    """Find the files and read their headers. Raises DataError for a layout without one reading, and with every bad header."""
    found = find(config, labelled=labelled)
    for split in ("train", "test"):
        files = files_of(config, found, split)
        faults = Faults(f"{found.root} ({split})", "error", remedy=_REMEDY)
        for header in inspect_all(files.paths):
            if isinstance(header, BadImageError):
                faults.add(header.reason, str(header.path), header.detail)
        faults.finish(len(files) - faults.counts.total())


def describe(config: FoldersConfig, *, labelled: bool = True) -> str:
    """Return the data set in a few words, with what its numbers must be read with: equal files in both splits."""
    found = find(config, labelled=labelled)
    sizes = [f"{len(files_of(config, found, name)):,} {name}" for name in ("train", "test")]
    parts = [
        f"{found.root}: {' and '.join(sizes)} images"
        + (f" of {len(found.classes)} classes" if len(found.classes) > 1 else ""),
        found.origin,
        f"{config.side}x{config.side}" + ("" if getattr(config, "colour", True) else " grey"),
    ]
    if found.repeated:
        parts.append(f"{len(found.repeated)} test images are also training images ({found.repeated[0][1]})")
    return ", ".join(parts)


def check(config: FoldersConfig) -> dict[str, Any]:
    """Decode every file by the decoder of the training, and count what there is, for `paperbench data check`.

    Raises DataError with every file that does not decode, and as `class_folders.find`.
    """
    found = find(config, labelled=False)
    counts: dict[str, Any] = {"layout": found.origin}
    notes: Counter[str] = Counter()
    lines: list[str] = []
    for split in ("train", "test"):
        files = files_of(config, found, split)
        faults = Faults(f"{found.root} ({split})", "error", remedy=_REMEDY)
        sizes: list[tuple[int, int]] = []
        for path, picture in zip(files.paths, _pictures(files.paths, config.exif), strict=True):
            if isinstance(picture, BadImageError):
                faults.add(picture.reason, str(path), picture.detail)
                continue
            notes.update("EXIF orientation" if note.startswith("EXIF") else _general(note) for note in picture.notes)
            height, width = picture.pixels.shape[:2]
            sizes.append((width, height))
        try:
            faults.finish(len(files) - faults.counts.total())
        except DataError as error:
            lines.append(str(error))
            continue
        numbers = np.bincount(files.labels[files.labels >= 0], minlength=len(found.classes))
        counts |= {
            f"{split}: images": len(files),
            f"{split}: smallest and largest": " and ".join(
                f"{width} x {height}" for width, height in (min(sizes, key=np.prod), max(sizes, key=np.prod))
            ),
        }
        if len(found.classes) > 1:
            counts[f"{split}: images by class"] = dict(zip(found.classes, numbers.tolist(), strict=True))
        if unlabelled := int((files.labels < 0).sum()):
            counts[f"{split}: images without a class"] = unlabelled
    if lines:
        raise DataError("\n".join(lines))
    counts |= _equal(found)
    turned = notes.pop("EXIF orientation", 0)
    if turned:
        counts["stored turned by a camera (EXIF)"] = (
            f"{turned}, {'turned upright' if config.exif == 'apply' else 'read as stored'}"
        )
    counts |= notes
    for kind, number in found.passed_over.items():
        counts[kind if kind == NESTED else f"passed over: {kind}"] = number
    return counts


def _equal(found: ClassFolders) -> dict[str, str]:
    """Return the files that are equal byte for byte: in both splits, and in one split under two classes."""
    counts = {}
    if found.repeated:
        first, second = found.repeated[0]
        counts["equal files in train and test"] = f"{len(found.repeated)}, such as {first} and {second}"
    for split in ("train", "test"):
        files = found.split(split)
        label = dict(zip(files.paths, files.labels.tolist(), strict=True))
        pairs = [pair for pair in equal_files(files.paths, files.paths) if pair[0] != pair[1]]
        if pairs:
            counts[f"{split}: equal files"] = f"{len(pairs)}, such as {pairs[0][0]} and {pairs[0][1]}"
        apart = [pair for pair in pairs if label[pair[0]] != label[pair[1]]]
        if apart:
            counts[f"{split}: equal files in two classes"] = f"{len(apart)}, such as {apart[0][0]} and {apart[0][1]}"
    return counts


def _pictures(paths: Sequence[Path], exif: Exif) -> Iterator[Picture | BadImageError]:
    def one(path: Path) -> Picture | BadImageError:
        try:
            return read_picture(path, exif=exif)
        except BadImageError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), READERS):  # full-size pictures: few at once
            yield from pool.map(one, paths[start : start + READERS])


def _general(note: str) -> str:
    """Return a note without the number that differs from file to file."""
    return " ".join(word for word in note.split() if not word.isdigit())
