"""A file that one process at a time holds. The kernel releases it when the holder dies, however that happens."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import IO

from paperbench.engine.files import explain_os_errors
from paperbench.errors import EnvironmentError_

_TRIES, _SECONDS_BETWEEN_TRIES = 10, 0.01
"""`is_held` in another process holds the file for a few microseconds; that must not be mistaken for a process at work."""


class FileLock:
    """An exclusive lock on `path`, whose file names the holder. Children of a fork share it: only `exec` drops it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Hold the lock until `release` or the process's death; False if another process holds it.

        Raises `EnvironmentError_` where the file cannot be created or the file system has no locks.
        """
        if self._file is not None:
            return True
        with explain_os_errors(self.path):
            file = self.path.open("a+", encoding="utf-8")
        try:
            if not _try(file):
                file.close()
                return False
        except OSError as error:
            file.close()
            raise EnvironmentError_(
                f"cannot lock {self.path}: {error.strerror}; use a file system with locks"
            ) from error
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
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
            return self.path.read_text(encoding="utf-8").strip() or "another process"
        except OSError:
            return "another process"

    def is_held(self) -> bool:
        """Return True if some process, this one included, holds it."""
        if self._file is not None:
            return True
        try:
            file = self.path.open("r", encoding="utf-8")
        except OSError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                return False
        return False


def _try(file: IO[str]) -> bool:
    for attempt in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 < _TRIES:
                time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return True
    return False
