"""A content-addressed store: results that several runs need, computed once, found by a hash of everything that decides them.

Two forms. `ArrayStore` holds small results, one file each, written entirely or not at all: two processes that compute the same one
write the same bytes. `StoreEntry` is a folder for a result that takes long: one process at a time works in it, the others wait, and
if that process is stopped or killed the next one continues from what it left.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from paperbench.config.paths import expanded
from paperbench.engine.arrays import read_arrays
from paperbench.engine.files import TMP_SUFFIX, explain_os_errors, write_atomic, write_json
from paperbench.engine.lock import FileLock
from paperbench.engine.run import Run

KEY_LENGTH: Final = 16
"""Hexadecimal digits of the key in the name of an entry's folder."""
RECIPE: Final = "recipe.json"

_SECONDS_BETWEEN_TRIES: Final = 0.2
_ABANDONED_AFTER_SECONDS: Final = 3600.0
"""Age at which a temporary file belongs to a process that was killed: a write takes milliseconds."""


def content_key(recipe: Any, *content: bytes | NDArray[Any]) -> str:
    """SHA-256, in hexadecimal, of a recipe and of what the result is computed from.

    recipe: a string, or anything that JSON holds (keys are sorted; NaN and infinity raise ValueError). content: bytes, or arrays of
    any layout, whose values count in C order; shapes and types belong in the recipe.
    """
    text = recipe if isinstance(recipe, str) else json.dumps(recipe, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode())
    for part in content:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
    return digest.hexdigest()


class ArrayStore:
    """Arrays by key, one file each: `<folder>/<first two digits of the key>/<key><suffix>`.

    suffix: `.npy` for one array, `.npz` for any number.
    """

    def __init__(self, folder: Path, suffix: Literal[".npy", ".npz"] = ".npz") -> None:
        self.folder = folder
        self.suffix = suffix
        self._cleaned: set[Path] = set()

    def path(self, key: str) -> Path:
        """The file of `key`, whether it exists or not."""
        return self.folder / key[:2] / f"{key}{self.suffix}"

    def load(self, key: str) -> list[NDArray[Any]] | None:
        """The arrays of `key` in the order in which they were saved; None where there are none, or the file is damaged."""
        try:
            arrays = read_arrays(io.BytesIO(self.path(key).read_bytes()))
            if isinstance(arrays, np.ndarray):
                return [arrays] if self.suffix == ".npy" else None
            return [arrays[f"arr_{number}"] for number in range(len(arrays))] or None
        except (OSError, ValueError, KeyError):
            return None

    def save(self, key: str, *arrays: NDArray[Any]) -> None:
        """Write the arrays of `key`, entirely or not at all. Raises DiskFullError or EnvironmentError_."""
        path = self.path(key)
        content = io.BytesIO()
        if self.suffix == ".npy":
            (array,) = arrays
            np.save(content, array)
        else:
            np.savez(content, *arrays)
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned(path.parent)
        write_atomic(path, content.getvalue())

    def _remove_abandoned(self, folder: Path) -> None:
        """Remove temporary files of killed processes, once for each folder. There is no lock: young ones may be in use."""
        if folder in self._cleaned:
            return
        self._cleaned.add(folder)
        before = time.time() - _ABANDONED_AFTER_SECONDS
        for temporary in folder.glob(f".*{TMP_SUFFIX}"):
            with suppress(OSError):
                if temporary.stat().st_mtime < before:
                    temporary.unlink()


class StoreEntry:
    """The folder of one result: `<folder>/<prefix><first digits of the key>`."""

    def __init__(self, folder: Path, key: str, *, prefix: str = "", recipe: Mapping[str, Any] | None = None) -> None:
        """recipe: written to `recipe.json` by the first process that works there, for people to read."""
        self.key = key
        self.path = folder / f"{prefix}{key[:KEY_LENGTH]}"
        self.recipe = recipe
        self._lock = FileLock(self.path / "lock")

    @contextmanager
    def locked(self, run: Run, name: str) -> Iterator[None]:
        """The folder for this run alone; waits for another run that works there. Called on all ranks.

        name: of the result, in messages. Raises `Stopped` when the run is asked to stop while it waits.
        """
        waiting = False
        while not run.ranks.on_main(self._acquire):
            if not waiting:
                run.reporter.message(
                    f"{name}: waiting for {self._lock.holder()}, which computes the same in {self.path}"
                )
            waiting = True
            if run.ranks.any(bool(run.stop)):
                raise run.stop_error(f"while another process computes {name} in {self.path}")
            time.sleep(_SECONDS_BETWEEN_TRIES)
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def try_locked(self) -> Iterator[bool]:
        """Like `locked` without waiting: False where another process works there. For one rank."""
        acquired = self._acquire()
        try:
            yield acquired
        finally:
            self._lock.release()

    def _acquire(self) -> bool:
        with explain_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not self._lock.acquire():
            return False
        try:
            if self.recipe is not None and not (self.path / RECIPE).is_file():
                write_json(self.path / RECIPE, self.recipe)
        except BaseException:
            self._lock.release()
            raise
        return True


def recorded_folder(run: Run, note: Path, folder: Path) -> Path:
    """The absolute `folder` as the run's first session recorded it in `note`; a resume may start in another working directory.

    Called on all ranks.
    """

    def read_or_write() -> str:
        try:
            return str(Path(json.loads(note.read_text(encoding="utf-8"))["folder"]))
        except (OSError, ValueError, KeyError, TypeError):
            absolute = str(expanded(folder).absolute())
            with explain_os_errors(note):
                note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"folder": absolute})
            return absolute

    return Path(run.ranks.on_main(read_or_write))
