"""One run as its folder describes it.

Whatever a killed process, a full disk or a stranger left in the folder ends as a sentence in `RunRecord.faults`, never as an
error: a table of a hundred runs must not fail for one of them. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeGuard

import yaml

from paperbench.catalog import TASKS
from paperbench.config.difference import flatten
from paperbench.config.former import modernised
from paperbench.config.validate import schema_of
from paperbench.engine import metriclog
from paperbench.engine.rundir import DONE, FAILED, RUNNING, STOPPED, WAITING, RunDirectory
from paperbench.errors import EXIT_ENVIRONMENT
from paperbench.records.metrics import metrics_of
from paperbench.records.place import QUEUED, REQUEUED, Place, read_place

NOT_STARTED, INTERRUPTED, DAMAGED, MISSING = "not started", "interrupted", "damaged", "missing"
"""Nothing there yet; unfinished with no process at work; files missing or unreadable; begun once, and its folder gone."""

STATES = (WAITING, RUNNING, DONE, STOPPED, FAILED, INTERRUPTED, DAMAGED, QUEUED, REQUEUED)
"""States of a run that has a folder."""

LOG_LINES = 12
_LOG_BYTES = 64 << 10
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
_PLACES = ("output.", "tensorboard")
_NOT_METRICS = frozenset({"step", "time"})
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where it was built in: ten times as fast, and sweeps have hundreds of runs."""

# --- the record -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One file of `checkpoints/manifest.json`; `size` in bytes."""

    file: str
    step: int | None
    size: int | None
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run, read from its folder.

    `config` has the keys of this version, also of a run that an earlier one made. `state` is that of `status.json`, or
    `interrupted`, `damaged` or `not started`. `labels` are the values that a sweep varied, as typed. Missing files leave empty
    mappings; `faults` says in words which could not be read.
    """

    directory: Path
    name: str
    state: str
    config: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: tuple[Checkpoint, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None
    """The job of a run that a cluster has, as it was last seen; then `state` may be `queued` or `requeued`."""
    faults: tuple[str, ...] = ()

    # --- identity -----------------------------------------------------------------------------------------------------

    @property
    def experiment(self) -> str:
        return self._text("experiment")

    @property
    def task(self) -> str:
        return self._text("task")

    @property
    def scale(self) -> str:
        return self._text("scale")

    def _text(self, key: str) -> str:
        return str(self.results.get(key) or self.config.get(key) or "")

    @property
    def seed(self) -> int | str | None:
        """The seed of the configuration; None where none is known."""
        value = self.config.get("seed", self.results.get("seed", self.labels.get("seed")))
        return value if isinstance(value, int | str) else None

    @property
    def data(self) -> str:
        """The data that the results were measured on, in words."""
        return str(self.results.get("data") or "")

    @cached_property
    def flat_config(self) -> dict[str, Any]:
        """The configuration by dotted keys, without where the run was written: that says nothing about what it is."""
        return {key: value for key, value in flatten(self.config) if not key.startswith(_PLACES)}

    # --- progress -----------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """True if the run ended and left results."""
        return self.state == DONE and bool(self.results)

    @property
    def step(self) -> int:
        return _whole(self.status.get("step"))

    @property
    def steps(self) -> int:
        """All steps of the run; 0 where that is not known yet."""
        return _whole(self.status.get("steps"))

    @property
    def best(self) -> float | None:
        """The best value during training of the metric that the run watches."""
        value = self.status.get("best")
        return value if is_number(value) else None

    @property
    def updated(self) -> str:
        """ISO time of the last change of `status.json`."""
        return str(self.status.get("updated") or "")

    @property
    def seconds(self) -> float | int | None:
        """Wall time, sessions before a resume included."""
        for source in (self.results, self.status):
            if is_number(source.get("seconds")):
                return source["seconds"]
        return None

    @property
    def message(self) -> str:
        """The reason why it failed or stopped, in the run's own words."""
        return str(self.status.get("message") or "") if self.state != DONE else ""

    # --- numbers ------------------------------------------------------------------------------------------------------

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of `results.json`, exactly as they stand there; null and everything else that is none left out."""
        found = self.results.get("metrics")
        if not isinstance(found, Mapping):
            return {}
        return {str(name): value for name, value in found.items() if is_number(value)}

    @property
    def headline(self) -> tuple[str, float | None]:
        """The first metric, in the order that its package declares, that the results hold; `("", None)` without any."""
        return metrics_of(self.task).headline(self.metrics)

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The records of `metrics.jsonl`, one a step; empty when there are none."""
        try:
            return metriclog.read(self.directory / "metrics.jsonl")
        except OSError:
            return []

    @cached_property
    def history(self) -> dict[str, tuple[list[int], list[float]]]:
        """Every number that was logged, by name in the order of appearance: the steps, and the finite values there."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for record in self.log:
            for name, value in record.items():
                if is_number(value):
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(record["step"])
                    values.append(value)
        return {name: series for name, series in found.items() if name not in _NOT_METRICS}

    # --- files --------------------------------------------------------------------------------------------------------

    def figures(self) -> list[Path]:
        """The images below `figures/`, sorted by name."""
        folder = self.directory / "figures"
        try:
            found = [file for file in folder.rglob("*") if file.suffix.lower() in _IMAGES and file.is_file()]
        except OSError:
            return []
        return sorted(found, key=lambda file: (len(file.relative_to(folder).parts), file.as_posix()))

    def log_tail(self) -> str:
        """The last lines of `log.txt`."""
        return "\n".join(log_tail(self.directory))

    def facts(self) -> dict[str, Any]:
        """A summary as JSON-ready values, without configuration and without all metrics but the headline."""
        metric, value = self.headline
        return {
            "directory": str(self.directory),
            **{key: getattr(self, key) for key in ("experiment", "task", "scale", "seed", "state", "step", "steps")},
            "best": self.best,
            "metric": metric,
            "value": value,
            "updated": self.updated,
            "seconds": self.seconds,
            "job": None if self.place is None else asdict(self.place),
        }


def is_number(value: object) -> TypeGuard[int | float]:
    """Return True for a number of JSON: neither null nor a truth value, nor the NaN and infinity that Python alone reads."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _whole(value: object) -> int:
    return int(value) if is_number(value) else 0


# --- reading ----------------------------------------------------------------------------------------------------------


def read_run(folder: Path, *, name: str | None = None, labels: Mapping[str, str] | None = None) -> RunRecord:
    """Read one run; see `RunRecord` for what becomes of damage. `name` is the folder's unless given."""
    name = folder.absolute().name if name is None else name
    faults: list[str] = []
    if not (folder / "config.yaml").is_file():
        if folder.is_dir() and any(folder.glob("*.json")):
            faults.append("config.yaml is missing")
        state = DAMAGED if faults else NOT_STARTED
        return RunRecord(directory=folder, name=name, state=state, labels=labels or {}, faults=tuple(faults))
    directory = RunDirectory(folder)
    config = _read_config(directory, faults)
    status = _read_object(directory.status_file, faults, required=True)
    results = _read_object(directory.results_file, faults)
    recorded = str(status.get("state", ""))
    locked = recorded != DONE and directory.is_locked()
    state = _state(recorded, done=_is_complete(results, recorded), locked=locked)
    if recorded == DONE and not directory.results_file.exists():
        faults.append("results.json is missing, though the run is done")
    if not config or not status or (recorded == DONE and not results):
        state = DAMAGED
    place = read_place(folder) if state not in (DONE, FAILED, DAMAGED) else None
    if place is not None and state in (WAITING, STOPPED, INTERRUPTED) and place.state in (QUEUED, REQUEUED):
        state = place.state
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
        place=place,
        faults=tuple(faults),
    )


def _is_complete(results: Mapping[str, Any], recorded: str) -> bool:
    return bool(results) and results.get("status", recorded) == DONE


def _state(recorded: str, *, done: bool, locked: bool) -> str:
    """The state at this moment of a run whose `status.json` says `recorded`."""
    if done:
        return DONE
    if locked:
        return RUNNING
    return recorded if recorded in (FAILED, STOPPED, WAITING) else INTERRUPTED


def _read_config(directory: RunDirectory, faults: list[str]) -> dict[str, Any]:
    try:
        value = yaml.load(directory.config_file.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        faults.append(f"config.yaml cannot be read: {_first_line(error)}")
        return {}
    if not isinstance(value, dict):
        faults.append("config.yaml holds no configuration")
        return {}
    return _with_new_names(value)


def _with_new_names(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run that an earlier version made, with the keys of this one; of an unknown task, as it is."""
    task = TASKS.get(str(config.get("task")))
    if task is None:
        return config
    try:
        return modernised(schema_of(task), config)
    except Exception:  # a damaged section, which is still worth showing
        return config


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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def log_tail(directory: Path, lines: int = LOG_LINES) -> tuple[str, ...]:
    """The last lines of the run's log that are not blank; none where there is no log."""
    try:
        with RunDirectory(directory).log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]


# --- the status alone -------------------------------------------------------------------------------------------------

Status = Literal["to do", "continues", "running", "failed", "done"]
_STATUSES: dict[str, Status] = {
    WAITING: "to do",
    STOPPED: "continues",
    INTERRUPTED: "continues",
    RUNNING: "running",
    FAILED: "failed",
    DONE: "done",
}


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The progress of a run as a scheduler needs it, without its configuration.

    `to do`: not begun; `continues`: stopped or killed, at `step` of `steps`; `running`: some process is at work there.
    """

    state: Status
    step: int = 0
    steps: int = 0
    best: float | None = None
    seconds: float = 0.0
    """Wall time over all sessions."""
    message: str = ""
    error: str = ""
    exit_code: int | None = None
    results: dict[str, Any] | None = None
    """The content of results.json of a run that is done."""
    killed: bool = False
    """Of a run that continues: its last session ended without reporting a status."""

    @property
    def by_environment(self) -> bool:
        """True if it failed for want of a disk, a device or data, which somebody may have mended since."""
        return self.state == "failed" and self.exit_code == EXIT_ENVIRONMENT


def read_status(directory: Path) -> RunStatus:
    """Read the present status of the run in `directory`, which need not exist."""
    run = RunDirectory(directory)
    if not run.config_file.is_file():
        return RunStatus(state="to do")
    # The lock first: a run that ends between the two looks is then seen as running, and looked at again.
    locked = run.is_locked()
    results, status = run.results() or {}, run.status()
    done = not locked and results.get("status") == DONE
    state = _state(str(status.get("state", "")), done=done, locked=locked)
    best = status.get("best")
    return RunStatus(
        state=_STATUSES[state],
        step=_whole(status.get("step")),
        steps=_whole(status.get("steps")),
        best=float(best) if is_number(best) else None,
        seconds=float(status.get("seconds") or 0.0),
        message=str(status.get("message") or ""),
        error=str(status.get("error") or ""),
        exit_code=status.get("exit_code"),
        results=results if done else None,
        killed=state == INTERRUPTED,
    )
