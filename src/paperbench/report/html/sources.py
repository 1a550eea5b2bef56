"""What a report is made of, read from the files of runs, sweeps and reproductions.

Whatever a killed process, a full disk or a stranger left in a run's folder ends as a sentence in `RunRecord.faults`, never
as an error: a report on a hundred runs must not fail for one of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from paperbench.engine.rundir import DONE, KILLED, RunDirectory
from paperbench.errors import ConfigError, DataError
from paperbench.report.html import reproduction_form
from paperbench.report.html.records import (
    DAMAGED,
    INTERRUPTED,
    NOT_STARTED,
    Checkpoint,
    ReproductionRecord,
    RunRecord,
    Subject,
    SweepRecord,
)

SCHEMA_VERSION = 1
SWEEP, REPRODUCTION = "sweep.json", "reproduction.json"

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it is there: ten times as fast


def load(path: Path) -> Subject:
    """The run, sweep or reproduction in the folder `path`, which may also be named by one of its files.

    Raises `ConfigError` when it is none of the three, naming what was expected and what is there instead, and `DataError`
    when the record of a sweep or a reproduction is damaged.
    """
    path = path.expanduser()
    folder = (
        path.parent if path.is_file() and path.name in (SWEEP, REPRODUCTION, "config.yaml", "results.json") else path
    )
    if not path.exists():
        raise ConfigError(f"{path}: no such folder; `paperbench runs` lists the runs there are")
    if (folder / REPRODUCTION).is_file() and path.name != SWEEP:
        return _load_reproduction(folder)
    if (folder / SWEEP).is_file():
        return _load_sweep(folder)
    if (folder / "config.yaml").is_file():
        return load_run(folder, name=folder.resolve().name)
    raise ConfigError(
        f"{path}: neither a run (config.yaml) nor a sweep ({SWEEP}) nor a reproduction ({REPRODUCTION}){_there(folder)}"
    )


def _there(folder: Path) -> str:
    """What a folder holds that may have been meant."""
    if not folder.is_dir():
        return "; name the folder of one"
    markers = ("config.yaml", SWEEP, REPRODUCTION)
    try:
        below = sorted(
            {file.parent for mark in markers for file in (*folder.glob(f"*/{mark}"), *folder.glob(f"*/*/{mark}"))}
        )
    except OSError:
        below = []
    if not below:
        return "; `paperbench runs` lists the runs there are"
    others = f" and {len(below) - 3} more" if len(below) > 3 else ""
    return f"; below it: {', '.join(map(str, below[:3]))}{others}"


# --- a run ------------------------------------------------------------------------------------------------------------


def load_run(folder: Path, *, name: str, labels: Mapping[str, str] | None = None) -> RunRecord:
    """One run; see `RunRecord` for what becomes of damage."""
    faults: list[str] = []
    if not (folder / "config.yaml").is_file():
        if folder.is_dir() and any(folder.glob("*.json")):
            faults.append("config.yaml is missing")
        return RunRecord(
            directory=folder,
            name=name,
            state=DAMAGED if faults else NOT_STARTED,
            labels=labels or {},
            faults=tuple(faults),
        )
    directory = RunDirectory(folder)
    config = _read_config(directory, faults)
    status = _read_object(directory.status_file, faults, required=True)
    results = _read_object(directory.results_file, faults)
    state = directory.current_state()
    state = INTERRUPTED if state == KILLED else state
    if state == DONE and not directory.results_file.exists():
        faults.append("results.json is missing, though the run is done")
    if not config or not status or (state == DONE and not results):
        state = DAMAGED
    return RunRecord(
        directory=folder,
        name=name,
        state=state,
        config=config,
        status=status,
        results=results,
        environment=_read_object(directory.env_file, faults),
        checkpoints=_read_checkpoints(directory.checkpoints / "manifest.json", faults),
        labels=labels or {},
        faults=tuple(faults),
    )


def _read_config(directory: RunDirectory, faults: list[str]) -> dict[str, Any]:
    try:
        value = yaml.load(directory.config_file.read_text(encoding="utf-8"), Loader=_YAML_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        faults.append(f"config.yaml cannot be read: {_first_line(error)}")
        return {}
    if not isinstance(value, dict):
        faults.append("config.yaml holds no configuration")
        return {}
    return value


def _read_object(path: Path, faults: list[str], *, required: bool = False) -> dict[str, Any]:
    """A JSON object; empty, with a fault noted, where the file is damaged or, if required, not there."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            faults.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError) as error:
        faults.append(f"{path.name} cannot be read: {_first_line(error)}")
        return {}
    if not isinstance(value, dict):
        faults.append(f"{path.name} holds no JSON object")
        return {}
    return value


def _read_checkpoints(path: Path, faults: list[str]) -> tuple[Checkpoint, ...]:
    files = _read_object(path, faults).get("files")
    found = []
    for name, versions in files.items() if isinstance(files, Mapping) else ():
        for version in versions if isinstance(versions, list) else ():
            if isinstance(version, Mapping):
                step, size = version.get("step"), version.get("bytes")
                found.append(
                    Checkpoint(
                        file=str(name),
                        step=step if isinstance(step, int) else None,
                        size=size if isinstance(size, int) else None,
                        sha256=str(version.get("sha256", "")),
                    )
                )
    return tuple(found)


# --- sweeps and reproductions -----------------------------------------------------------------------------------------


def _load_sweep(folder: Path) -> SweepRecord:
    record = _read_record(folder / SWEEP)
    overrides = record.get("overrides")
    return SweepRecord(
        directory=folder,
        name=str(record.get("name") or folder.name),
        experiment=str(record.get("experiment") or ""),
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else (),
        runs=_load_members(folder, record),
    )


def _load_reproduction(folder: Path) -> ReproductionRecord:
    document = _read_record(folder / REPRODUCTION)
    reproduction_form.check(folder / REPRODUCTION, document)
    runs = _load_members(folder, _read_record(folder / SWEEP)) if (folder / SWEEP).is_file() else ()
    return ReproductionRecord(directory=folder, document=document, runs=runs)


def _read_record(path: Path) -> dict[str, Any]:
    faults: list[str] = []
    record = _read_object(path, faults, required=True)
    if faults:
        raise DataError(f"{path}: {faults[0]}; give the command that wrote it again")
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(f"{path}: has format {version}, this version of paperbench reads {SCHEMA_VERSION}")
    return record


def _load_members(folder: Path, record: Mapping[str, Any]) -> tuple[RunRecord, ...]:
    runs = record.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, Mapping) and run.get("directory") for run in runs):
        raise DataError(f"{folder / SWEEP}: does not say where its runs are; give the command that wrote it again")
    members = []
    for run in runs:
        labels = run.get("labels")
        members.append(
            load_run(
                Path(os.path.normpath(folder / str(run["directory"]))),
                name=str(run.get("hash") or Path(str(run["directory"])).name),
                labels={str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {},
            )
        )
    return tuple(members)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
