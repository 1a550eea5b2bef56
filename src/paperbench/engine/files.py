"""Atomic writes of small files, and `OSError`s turned into messages with the cause and the remedy.

No torch here: the command line reads run directories through this module.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from paperbench.engine.processes import ON_WINDOWS
from paperbench.errors import DiskFullError, EnvironmentError_

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Disk full, quota used up, file-size limit reached: the same remedy for all."""

_RUN_REMEDY = "choose a folder that can be written with --run-dir or output.root"

_TRIES, _SECONDS_BETWEEN_TRIES = 50, 0.02

_LONGEST_NAME = 255
"""Bytes of a file's name on the usual file systems."""

TMP_SUFFIX = ".tmp"
"""Ends the name of every file that is still being written; one that outlives its process can be removed."""


def temporary_name(path: Path) -> Path:
    """Return the file that `path` is written to before it is renamed: hidden, beside it, and this process's own."""
    name = f".{path.name}.{os.getpid()}{TMP_SUFFIX}"
    if len(os.fsencode(name)) > _LONGEST_NAME:  # the file's own name may just fit
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.{os.getpid()}{TMP_SUFFIX}"
    return path.with_name(name)


def replace_file(source: Path, target: Path) -> None:
    """Rename `source` to `target`, over what is there. On Windows a reader of `target` is in the way, and waited for a second."""
    for _ in range(_TRIES if ON_WINDOWS else 0):
        with suppress(PermissionError):
            source.replace(target)
            return
        time.sleep(_SECONDS_BETWEEN_TRIES)
    source.replace(target)


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` survive a power cut. File systems that cannot sync a directory are left alone."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content`, entirely or not at all.

    Raises `DiskFullError` or `EnvironmentError_`; the earlier content is then untouched.
    """
    # A file's name need not be text: what is no Unicode in it is written as an escape.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    temporary = temporary_name(path)
    with explain_os_errors(path, needed=len(data)):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            replace_file(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of indented JSON; numbers that JSON lacks (NaN, infinity) become null."""
    write_atomic(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """`value` with every float that JSON cannot hold replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


@contextmanager
def explain_os_errors(path: Path, *, needed: int | None = None, remedy: str = _RUN_REMEDY) -> Iterator[None]:
    """Turn an `OSError` about `path` into an error that names the path, the cause and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise disk_full(path, error, needed=needed) from error
        cause = error.strerror or str(error)
        raise EnvironmentError_(f"cannot write {path}: {cause}; {remedy}") from error


def disk_full(path: Path, error: OSError, *, needed: int | None) -> DiskFullError:
    """The error for a write to `path` that ran out of space; `needed` is the size of the file in bytes, if known."""
    wanted = "" if needed is None else f": {needed:,} bytes needed, {_free(path.parent)} free in {path.parent}"
    cause = error.strerror or str(error)
    remedy = {
        errno.EDQUOT: "free some of the quota",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    }.get(error.errno or 0, "free some disk space")
    return DiskFullError(
        f"cannot write {path} ({cause}){wanted}; {remedy}, then give the command again; a run goes on by `paperbench resume`"
    )


def _free(directory: Path) -> str:
    try:
        return f"{shutil.disk_usage(directory).free:,} bytes"
    except OSError:
        return "an unknown number of bytes"
