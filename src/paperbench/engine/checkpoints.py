"""Checkpoints that survive a kill at any instruction, a full disk and damaged files.

`last.pt`, `previous.pt` and `best.pt` hold whole training states; `manifest.json` holds, for each name, the SHA-256, step and
size of every content that the file may hold. A save

1. writes the new state to a temporary file beside them, syncs it, and knows its hash;
2. lists the new hash in the manifest next to the old ones;
3. links `best.pt` to it (if it is the best), `previous.pt` to the old `last.pt`, and renames it to `last.pt`;
4. removes the hashes that no file holds any more from the manifest.

After a kill between any two of these steps, each name holds a complete file whose hash the manifest knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from paperbench.config.commands import command
from paperbench.engine.files import (
    NO_SPACE,
    TMP_SUFFIX,
    disk_full,
    explain_os_errors,
    replace_file,
    sync_directory,
    temporary_name,
    write_json,
)
from paperbench.engine.reporter import Reporter, SilentReporter
from paperbench.engine.zips import ZIP_FAULTS
from paperbench.errors import CheckpointError, ConfigError

LAST, PREVIOUS, BEST, MANIFEST = "last.pt", "previous.pt", "best.pt", "manifest.json"
_FALLBACKS = {"last": (LAST, PREVIOUS, BEST), "best": (BEST, LAST, PREVIOUS), "previous": (PREVIOUS,)}

State = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One content that a checkpoint file may hold."""

    sha256: str
    step: int
    bytes: int


class CheckpointStore:
    """The checkpoints of one run, in `directory`. One process writes; any number may read.

    `sweep` removes what a killed writer left half written; only the process that holds the run's lock may ask for it.
    """

    def __init__(self, directory: Path, reporter: Reporter | None = None, *, sweep: bool = True) -> None:
        self.directory = directory
        self.reporter = reporter or SilentReporter()
        self._verified: set[str] = set()
        """Names whose content this process has verified or written itself."""
        if sweep and directory.is_dir():
            for rubbish in directory.glob(f".*{TMP_SUFFIX}"):
                with suppress(OSError):
                    rubbish.unlink()

    # --- saving -------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Return True if anything was ever saved here, sound or not."""
        return any(self._path(name).exists() for name in (LAST, PREVIOUS, BEST))

    def save(self, state: State, *, step: int, best: bool = False) -> None:
        """Make `state` the last checkpoint and, with `best`, the best one.

        `state` holds tensors, numbers, strings, None, and dicts, lists and tuples of them. Raises `DiskFullError` (naming
        the bytes needed and free) or `EnvironmentError_`; the earlier checkpoints are then still in place.
        """
        with explain_os_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        state = {**state, "step": step}
        temporary = temporary_name(self.directory / LAST)
        try:
            new = self._write(state, step, temporary)
            self._put_in_place(temporary, new, best=best)
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _write(self, state: State, step: int, temporary: Path) -> Entry:
        try:
            with temporary.open("wb") as file:
                counted = _HashingFile(file)
                torch.save(state, counted)  # type: ignore[arg-type]
                if counted.error is not None:
                    raise counted.error
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()  # before counting what is free
            if error.errno in NO_SPACE:
                raise disk_full(self.directory / LAST, error, needed=_size(state)) from error
            with explain_os_errors(self.directory / LAST):
                raise
        return Entry(counted.hash.hexdigest(), step, counted.bytes)

    def _put_in_place(self, temporary: Path, new: Entry, *, best: bool) -> None:
        entries = self._manifest()
        if entries is None:
            entries = self._rebuild_manifest()
        # A damaged last.pt must not push a good previous.pt aside.
        keep = LAST in self._verified or (self._path(LAST).exists() and self._matches(LAST, entries))
        after = {name: list(known) for name, known in entries.items()}
        after[LAST] = [new]
        if keep:
            after[PREVIOUS] = entries.get(LAST, [])
        if best:
            after[BEST] = [new]
        during = {name: [*after[name], *(e for e in entries.get(name, []) if e not in after[name])] for name in after}
        self._write_manifest(during)
        with explain_os_errors(self.directory):
            if best:
                self._link(temporary, BEST)
            if keep:
                self._link(self._path(LAST), PREVIOUS)
            replace_file(temporary, self._path(LAST))
        sync_directory(self.directory)
        self._write_manifest(after)
        self._verified.add(LAST)

    def _rebuild_manifest(self) -> dict[str, list[Entry]]:
        """Return a manifest for files that have none, as far as their own checksums are right."""
        entries: dict[str, list[Entry]] = {}
        for name in (LAST, PREVIOUS, BEST):
            path = self._path(name)
            if path.exists():
                with suppress(DamagedError):
                    _, step = self._read(name, None)
                    with path.open("rb") as file:
                        entries[name] = [
                            Entry(hashlib.file_digest(file, "sha256").hexdigest(), step, path.stat().st_size)
                        ]
        return entries

    def _link(self, source: Path, name: str) -> None:
        """Make `name` hold what `source` holds, by a hard link where the file system has them."""
        temporary = temporary_name(self._path(name))
        try:
            with suppress(FileNotFoundError):
                temporary.unlink()
            try:
                os.link(source, temporary)
            except OSError:
                with source.open("rb") as read, temporary.open("wb") as write:
                    shutil.copyfileobj(read, write, 1 << 20)
                    write.flush()
                    os.fsync(write.fileno())
            replace_file(temporary, self._path(name))
        finally:
            with suppress(OSError):
                temporary.unlink()

    # --- loading ------------------------------------------------------------------------------------------------------

    def step_of(self, which: str = "last") -> int | None:
        """The step of the `last`, `best` or `previous` checkpoint by the manifest; None if there is none."""
        name = _FALLBACKS[which][0]
        known = (self._manifest() or {}).get(name)
        return known[-1].step if known and self._path(name).exists() else None

    def load(self, which: str = "last") -> tuple[State, int] | None:
        """The state and step of the `last`, `best` or `previous` checkpoint, its tensors on the CPU; None if there is no file.

        A damaged file is reported and the next good one is used, which is reported too. Raises `CheckpointError` naming
        every file when none of them is good.
        """
        if which not in _FALLBACKS:
            raise ValueError(f"which={which!r} is none of {', '.join(_FALLBACKS)}")
        names = [name for name in _FALLBACKS[which] if self._path(name).exists()]
        if not names:
            return None
        entries = self._manifest()
        if entries is None:
            self.reporter.message(
                f"{self._path(MANIFEST)} is missing or damaged: checkpoints are checked by their own checksums alone"
            )
        damage: list[str] = []
        for name in names:
            try:
                state, step = self._read(name, entries)
            except DamagedError as error:
                damage.append(f"{self._path(name)} is damaged: {error}")
                self.reporter.message(damage[-1])
                continue
            self._verified.add(name)
            if damage:
                self.reporter.message(f"using {self._path(name)} of step {step} instead")
            return state, step
        raise CheckpointError(
            "no checkpoint can be used:\n  " + "\n  ".join(damage) + "\nrestore one from a copy, or start a new run"
        )

    def _read(self, name: str, entries: dict[str, list[Entry]] | None) -> tuple[State, int]:
        path = self._path(name)
        if entries is None:
            _check_archive(path)
        else:
            _check_hash(path, entries.get(name, []))
        state = _unpickle(path)
        return state, int(state.get("step", 0))

    def _matches(self, name: str, entries: dict[str, list[Entry]]) -> bool:
        try:
            _check_hash(self._path(name), entries.get(name, []))
        except DamagedError:
            return False
        return True

    # --- the manifest -------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _manifest(self) -> dict[str, list[Entry]] | None:
        """Return the contents that each file may hold, or None when the manifest is missing or damaged."""
        try:
            files = json.loads(self._path(MANIFEST).read_text(encoding="utf-8"))["files"]
            return {
                str(name): [Entry(str(e["sha256"]), int(e["step"]), int(e["bytes"])) for e in known]
                for name, known in files.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _write_manifest(self, entries: dict[str, list[Entry]]) -> None:
        files = {name: [vars(entry) for entry in known] for name, known in entries.items()}
        write_json(self._path(MANIFEST), {"schema_version": 1, "files": files})


def without_prefix(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries of a state dict whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def load_for_evaluation(
    path: Path | str, reporter: Reporter | None = None, *, which: str = "best"
) -> tuple[State, int, Path]:
    """State, step and file of a trained model: `path` is a run directory, or a checkpoint file.

    The best checkpoint of a run is loaded, or the last where no best one was chosen. A file is checked against the manifest
    beside it, if that names it. Nothing is written. Raises `ConfigError` when there is nothing at `path` and
    `CheckpointError` for a damaged file.
    """
    path = Path(path)
    if path.is_file():
        store = CheckpointStore(path.parent, reporter, sweep=False)
        entries = store._manifest()
        known = entries.get(path.name) if entries else None
        try:
            state, step = store._read(path.name, {path.name: known} if known else None)
        except DamagedError as error:
            raise CheckpointError(f"{path} is damaged: {error}; name another checkpoint") from error
        return state, step, path
    if not path.exists():
        raise ConfigError(
            f"checkpoint={path}: there is no such run or file; `paperbench runs` lists the runs there are"
        )
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    store = CheckpointStore(directory, reporter, sweep=False)
    loaded = store.load(which)
    if loaded is None:
        raise ConfigError(
            f"checkpoint={path}: no checkpoint has been saved there yet; `{command('resume', path)}` trains on"
        )
    state, step = loaded
    name = next(name for name in _FALLBACKS[which] if name in store._verified)
    return state, step, directory / name


# --- verification -----------------------------------------------------------------------------------------------------


class DamagedError(Exception):
    """The reason why a checkpoint file cannot be used."""


def _check_hash(path: Path, known: list[Entry]) -> None:
    if not known:
        raise DamagedError(f"{MANIFEST} does not know it")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedError(f"it cannot be read ({error.strerror})") from error
    if any(digest == entry.sha256 for entry in known):
        return
    if size == 0:
        raise DamagedError("it is empty")
    if all(size < entry.bytes for entry in known):
        raise DamagedError(f"it is cut short, {size:,} of {known[0].bytes:,} bytes")
    raise DamagedError(f"its SHA-256 {digest[:12]}… is not {' or '.join(entry.sha256[:12] + '…' for entry in known)}")


def _check_archive(path: Path) -> None:
    """Check the CRC-32 that the zip archive holds for each of its members."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (OSError, *ZIP_FAULTS) as error:
        raise DamagedError(str(error)) from error
    if bad is not None:
        raise DamagedError(f"the checksum of its part {bad} does not match")


def _unpickle(path: Path) -> State:
    """Read a checkpoint without executing anything in it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged archives surface as half a dozen exception types; all mean the same here.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedError(f"it does not hold plain tensors and numbers ({first})") from error
    if not isinstance(state, dict):
        raise DamagedError(f"it holds a {type(state).__name__}, not a training state")
    return state


class _HashingFile:
    """Passes writes on, hashes and counts them, and remembers the first that failed."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self.hash = hashlib.sha256()
        self.bytes = 0
        self.error: OSError | None = None
        self._file = file

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            if self._file is not None and self.error is None:
                self._file.write(view)
                self.hash.update(view)
        except OSError as error:
            # Raising through torch's C++ writer can end the process; the caller looks here when it returns.
            self.error = error
        self.bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """Do nothing: torch calls it at the end, and the caller flushes and syncs."""


def _size(state: State) -> int:
    """Return the bytes that `state` takes on disk; it is serialised again to count them."""
    counted = _HashingFile(None)
    torch.save(state, counted)  # type: ignore[arg-type]
    return counted.bytes
