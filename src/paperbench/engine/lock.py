"""A file that one process at a time holds. The system releases it when the holder dies, however that happens."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

from paperbench.engine.files import explain_os_errors
from paperbench.errors import EnvironmentError_

_TRIES, _SECONDS_BETWEEN_TRIES = 10, 0.01
_LOOKS, _SECONDS_BETWEEN_LOOKS = 5, 0.001
"""`is_held` in another process holds the file for a few microseconds; that must not be mistaken for a process at work."""
_NAME_AT = 1
"""Offset of the holder's name. Windows locks the first byte, and nobody but the holder can read it meanwhile."""


class FileLock:
    """An exclusive lock on `path`, whose file names the holder. Children of a fork share it: only `exec` drops it.

    filelock locks the open file: `flock` on Linux and macOS, which NFS passes on to its server, and `LockFileEx` on Windows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def acquire(self) -> bool:
        """Hold the lock until `release` or the process's death; False if another process holds it.

        Raises `EnvironmentError_` where the file cannot be created or the file system has no locks.
        """
        if self._file is not None:
            return True
        with explain_os_errors(self.path):
            file = self.path.open("ab", buffering=0)
        try:
            if not _try(file, _TRIES, _SECONDS_BETWEEN_TRIES):
                file.close()
                return False
        except OSError as error:
            file.close()
            raise EnvironmentError_(
                f"cannot lock {self.path}: {error.strerror}; use a file system with locks"
            ) from error
        try:
            with explain_os_errors(self.path):
                file.truncate(0)
                file.write(f"\npid {os.getpid()} on {socket.gethostname()}\n".encode())
        except EnvironmentError_:  # the disk is full
            file.close()
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Release the lock, if held."""
        if self._file is not None:
            self._file.close()  # closing the only descriptor drops the lock
            self._file = None

    def holder(self) -> str:
        """`pid 123 on host`: the process that held it last."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(_NAME_AT)
                name = file.read()
        except OSError:
            return "another process"
        return name.decode(errors="replace").strip() or "another process"

    def is_held(self) -> bool:
        """Return True if some process, this one included, holds it.

        Of a folder on NFS that may only be read the answer is False, since NFS locks no file that is open for reading alone.
        """
        if self._file is not None:
            return True
        try:
            with _open_to_look(self.path) as file:
                return not _try(file, _LOOKS, _SECONDS_BETWEEN_LOOKS)
        except OSError:
            return False


def _open_to_look(path: Path) -> BinaryIO:
    """Open an existing lock file, for writing if this process may."""
    try:
        return path.open("r+b", buffering=0)
    except PermissionError:
        return path.open("rb", buffering=0)


def _try(file: BinaryIO, tries: int, seconds: float) -> bool:
    for attempt in range(tries):
        if attempt:
            time.sleep(seconds)
        if lock_descriptor(file.fileno(), blocking=False):
            return True
    return False
