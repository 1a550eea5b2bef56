"""The record of a sweep, `sweep.json`, and the runs it names. `sweeps.record` writes it. Imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from paperbench.engine.jsonlines import read_json_lines
from paperbench.errors import EXIT_DONE, ConfigError, DataError
from paperbench.records.record import MISSING, NOT_STARTED, RunRecord, read_run

RECORD, EVENTS = "sweep.json", "events.jsonl"
SCHEMA_VERSION = 1
AGAIN = "give the command that wrote it again"


@dataclass(frozen=True, kw_only=True)
class SweepEntry:
    """One run as the record names it. The folder need not exist; `labels` are the values that were varied, as typed."""

    directory: Path
    hash: str
    experiment: str = ""
    overrides: tuple[str, ...] = ()
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """A `sweep.json`: `kind` is `sweep` or `reproduction`, `overrides` were typed, `entries` are its runs in order.

    `launcher` started them last, with `settings`, `launcher.KEY=VALUE` as typed.
    """

    directory: Path
    kind: str
    name: str
    id: str
    experiment: str
    overrides: tuple[str, ...]
    entries: tuple[SweepEntry, ...]
    launcher: str = "local"
    settings: tuple[str, ...] = ()

    @cached_property
    def runs(self) -> tuple[RunRecord, ...]:
        """The runs as they stand, those that have not started included.

        One that has begun, by the sweep's events, and has no folder any more is `MISSING`: deleted, or not copied with the sweep.
        """
        begun = self._begun()
        return tuple(_read_entry(entry, begun) for entry in self.entries)

    def _begun(self) -> set[str]:
        try:
            events = read_json_lines(self.directory / EVENTS)
        except OSError:
            return set()
        if any(event.get("event") == "sweep ended" and event.get("exit_code") == EXIT_DONE for event in events):
            return {entry.hash for entry in self.entries}
        return {str(event.get("run")) for event in events if event.get("state") != NOT_STARTED}


def _read_entry(entry: SweepEntry, begun: Container[str]) -> RunRecord:
    run = read_run(entry.directory, name=entry.hash, labels=entry.labels)
    if run.state != NOT_STARTED or entry.hash not in begun:
        return run
    fault = f"the folder of the run is gone: {entry.directory}; copy it back, or run the sweep again"
    return replace(run, state=MISSING, faults=(fault,))


def find_sweeps(root: Path) -> list[Path]:
    """Return the folders of the sweeps below an output root, sorted by name."""
    return sorted({file.parent for pattern in ("*", "*/*") for file in root.glob(f"{pattern}/sweeps/*/{RECORD}")})


def read_sweep(folder: Path) -> SweepRecord:
    """Read the record in `folder`.

    Raises `ConfigError` where there is none, and `DataError` for one that is damaged or that another version wrote.
    """
    document = read_document(folder / RECORD)
    entries = document.get("runs")
    overrides = document.get("overrides")
    launcher = document.get("launcher")
    launcher = launcher if isinstance(launcher, Mapping) else {}
    if not isinstance(entries, list):
        raise DataError(f"{folder / RECORD}: damaged, names no runs; {AGAIN}")
    return SweepRecord(
        directory=folder,
        kind=str(document.get("kind") or "sweep"),
        name=str(document.get("name") or folder.name),
        id=str(document.get("id") or folder.name),
        experiment=str(document.get("experiment") or ""),
        overrides=_texts(overrides),
        entries=tuple(_entries(folder, entries)),
        launcher=str(launcher.get("name") or "local"),
        settings=_texts(launcher.get("settings")),
    )


def _entries(folder: Path, entries: list[Any]) -> Iterator[SweepEntry]:
    for entry in entries:
        if not isinstance(entry, Mapping) or not entry.get("directory"):
            raise DataError(f"{folder / RECORD}: damaged, does not say where its runs are; {AGAIN}")
        directory, labels = Path(os.path.normpath(folder / str(entry["directory"]))), entry.get("labels")
        yield SweepEntry(
            directory=directory,
            hash=str(entry.get("hash") or directory.name),
            experiment=str(entry.get("experiment") or ""),
            overrides=_texts(entry.get("overrides")),
            labels={str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {},
        )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def read_document(file: Path, readable: Sequence[int] = (SCHEMA_VERSION,)) -> dict[str, Any]:
    """Read a JSON object with one of the `readable` versions of its form; for errors see `read_sweep`."""
    value = read_object(file)
    version = value.get("schema_version")
    if version is None:
        raise DataError(f"{file}: damaged, has no schema_version; {AGAIN}")
    if version not in readable:
        known = " and ".join(map(str, readable))
        raise DataError(f"{file}: has format {version}, this version of paperbench reads {known}")
    return value


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; for errors see `read_sweep`."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file.parent} has no {file.name}; `paperbench runs` lists the runs there are") from None
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file}: cannot be read: {first}; {AGAIN}") from None
    if not isinstance(value, dict):
        raise DataError(f"{file}: holds no JSON object; {AGAIN}")
    return value
