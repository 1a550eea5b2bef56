"""The files of a sweep: `sweep.json` and `configs.json`, from which it can be continued, and `events.jsonl`.

`sweep.json`: `{"schema_version": 1, "kind", "name", "id", "experiment", "overrides": […], "launcher": {"name",
"settings": [`launcher.KEY=VALUE` as typed]}, "runs": [{"directory" (relative to
the record's folder), "hash", "experiment", "overrides", "labels"}]}`. `configs.json` holds the resolved configuration of each
run by its hash. Both are written whole before the first run starts, the record last: where it stands, all of it stands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from paperbench.config.compose import Composed
from paperbench.config.former import modernised
from paperbench.config.suggest import nearest
from paperbench.config.validate import dump, schema_of, task_named, validate
from paperbench.engine.files import TMP_SUFFIX, write_atomic, write_json
from paperbench.engine.jsonlines import JsonLinesWriter, read_json_lines
from paperbench.errors import ConfigError, DataError
from paperbench.records.sweeps import (
    AGAIN,
    EVENTS,
    RECORD,
    SCHEMA_VERSION,
    SweepEntry,
    find_sweeps,
    read_object,
    read_sweep,
)
from paperbench.sweeps.plan import Member, Request, Sweep, member_of

CONFIGS = "configs.json"


# --- the record -------------------------------------------------------------------------------------------------------


def write(sweep: Sweep) -> None:
    """Write the record into the sweep's folder, which exists; the same sweep gives the same files."""
    for rubbish in sweep.directory.glob(f".*{TMP_SUFFIX}"):
        rubbish.unlink(missing_ok=True)
    configs = {member.hash: member.composed.resolved for member in sweep.members}
    write_atomic(sweep.directory / CONFIGS, json.dumps(configs, allow_nan=False))
    write_json(
        sweep.directory / RECORD,
        {
            "schema_version": SCHEMA_VERSION,
            "kind": sweep.kind,
            "name": sweep.name,
            "id": sweep.id,
            "experiment": sweep.members[0].request.experiment,
            "overrides": list(sweep.overrides),
            "launcher": {"name": sweep.launcher, "settings": list(sweep.settings)},
            "runs": [_entry(member, sweep.directory) for member in sweep.members],
        },
    )


def _entry(member: Member, folder: Path) -> dict[str, Any]:
    return {
        "directory": os.path.relpath(member.directory, folder),
        "hash": member.hash,
        "experiment": member.request.experiment,
        "overrides": list(member.request.overrides),
        "labels": dict(member.request.labels),
    }


def load(folder: Path) -> Sweep:
    """Load the sweep recorded in `folder`, its configurations checked against this version of the program.

    Raises `ConfigError` where there is no record, or one that this version cannot continue, `DataError` for a damaged one.
    """
    if not (folder / RECORD).is_file():
        raise ConfigError(f"{folder} is not a sweep: it has no {RECORD}; `--resume` takes one's folder or id")
    record = read_sweep(folder)
    configs = read_object(folder / CONFIGS)
    return Sweep(
        name=record.name,
        id=record.id,
        directory=folder,
        members=tuple(_member(entry, configs, folder) for entry in record.entries),
        kind=record.kind,
        overrides=record.overrides,
        launcher=record.launcher,
        settings=record.settings,
    )


def _member(entry: SweepEntry, configs: Mapping[str, Any], folder: Path) -> Member:
    resolved = configs.get(entry.hash)
    if not isinstance(resolved, Mapping):
        raise DataError(f"{folder / CONFIGS}: damaged, has no run {entry.hash}; {AGAIN}")
    task = task_named(resolved.get("task"))
    config = validate(task, modernised(schema_of(task), resolved))
    composed = Composed(
        experiment=config.experiment,
        task=task,
        config=config,
        resolved=dump(config),
        overrides=entry.overrides,
        choices={},
        source=None,
    )
    request = Request(experiment=entry.experiment, overrides=entry.overrides, labels=entry.labels)
    member = member_of(request, composed)
    if member.hash != entry.hash:
        raise ConfigError(
            f"{folder / RECORD}: made by another version of the program, whose configurations have other keys; "
            "give the sweep's command again"
        )
    return replace(member, directory=entry.directory)


def find(name: str, root: Path, *, option: str = "--resume") -> Path:
    """Find the folder of the sweep called `name`: a folder, or an id, or the beginning of one, below the output root `root`.

    `option` is the option of the command line that took the name.
    """
    if (Path(name) / RECORD).is_file():
        return Path(name)
    known = {folder.name: folder for folder in find_sweeps(root)}
    matching = [known[name]] if name in known else [folder for key, folder in known.items() if key.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        listed = ", ".join(sorted(folder.name for folder in matching))
        raise ConfigError(f"{option} {name}: could be {listed}; give more of the id")
    near = nearest(name, known) or sorted(known)[:5]
    listed = f" There: {', '.join(near)}" if near else ""
    raise ConfigError(f"{option} {name}: no such folder, and no sweep of that id below {root}.{listed}")


# --- events -----------------------------------------------------------------------------------------------------------


class Events:
    """Appends to `events.jsonl`: each start and end, one JSON object a line."""

    def __init__(self, folder: Path) -> None:
        self._file = JsonLinesWriter(folder / EVENTS)

    def write(self, event: str, **values: Any) -> None:
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        self._file.write({"time": now, "event": event, **values})

    def close(self) -> None:
        self._file.close()


def events(folder: Path) -> list[dict[str, Any]]:
    """Return all events of the sweep in `folder`, in order."""
    return read_json_lines(folder / EVENTS)
