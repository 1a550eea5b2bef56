"""Unpack archives from the internet without trusting them.

Only plain files and folders with names that stay below the target are accepted; links, devices, absolute names and `..` are
refused before anything is written. The content is unpacked beside its place and moved there afterwards.
"""

from __future__ import annotations

import errno
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from paperbench.engine.zips import ZIP_FAULTS
from paperbench.errors import DataError, DiskFullError, EnvironmentError_


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` about writing `path` into an error that names the path, the cause and the remedy."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(
                f"cannot write {path}: {cause}; free some space, then run the same command again"
            ) from error
        raise EnvironmentError_(f"cannot write {path}: {cause}; choose another place with --root") from error


def unpack(archive: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Unpack a tar or zip file into the new folder `target`; `progress(done, total)` is called for each member.

    Raises DataError for archives that are damaged or would write elsewhere, DiskFullError.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                _write(_zip_members(archive, file), target, progress)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as file:
                _write(_tar_members(archive, file), target, progress)
        else:
            raise DataError(f"{archive}: neither a tar nor a zip file; remove it and download it again")
    except (tarfile.TarError, *ZIP_FAULTS) as error:
        raise DataError(f"{archive}: damaged archive: {error}; remove it and download it again") from error


Member = tuple[str, Callable[[], IO[bytes]]]


def _zip_members(archive: Path, file: zipfile.ZipFile) -> list[Member]:
    members: list[Member] = []
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        _admit(archive, info.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
        if not info.is_dir():
            members.append((info.filename, lambda info=info: file.open(info)))
    return members


def _tar_members(archive: Path, file: tarfile.TarFile) -> list[Member]:
    members: list[Member] = []
    for info in file:
        _admit(archive, info.name, plain=info.isreg() or info.isdir())
        if info.isreg():
            members.append((info.name, lambda info=info: _content(file, info)))
    return members


def _content(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = file.extractfile(info)
    assert content is not None  # only None for what `_admit` refuses
    return content


def _admit(archive: Path, name: str, *, plain: bool) -> None:
    parts = PurePosixPath(name).parts
    if not plain:
        raise DataError(f"{archive}: refused: member '{name}' is a link or device, which no data set needs")
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise DataError(f"{archive}: refused: member '{name}' would be written outside the target folder")


def _write(members: list[Member], target: Path, progress: Callable[[int, int], None]) -> None:
    for number, (name, content) in enumerate(members, start=1):
        path = target / name
        with writing(path), content() as source:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
        progress(number, len(members))


def merge(source: Path, target: Path, *, last: Path) -> None:
    """Move everything below `source` into `target`, replacing files of the same name; `last` is moved after all else.

    `last` is a path below `target`. Whole folders move in one step where `target` has none of that name.
    """
    late = source / last.relative_to(target)
    with writing(target):
        for path, destination in _moves(source, target, late):
            destination.parent.mkdir(parents=True, exist_ok=True)
            path.replace(destination)
        if late.exists():
            last.parent.mkdir(parents=True, exist_ok=True)
            if late.is_dir() and last.exists():
                shutil.rmtree(last)
            late.replace(last)


def _moves(source: Path, target: Path, late: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(source.iterdir()):
        destination = target / path.name
        if path == late:
            continue
        if path.is_dir() and (destination.is_dir() or path in late.parents):
            yield from _moves(path, destination, late)
        else:
            yield path, destination
