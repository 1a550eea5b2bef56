"""The runs below a folder, read from their files. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from paperbench.cli.summary import HEADLINES
from paperbench.engine.rundir import DONE, FAILED, KILLED, RUNNING, STOPPED, WAITING, RunDirectory

INTERRUPTED = "interrupted"
"""What a person is told of a run whose process is gone without a word."""

STATES = (WAITING, RUNNING, DONE, STOPPED, FAILED, INTERRUPTED)


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One run as `paperbench runs` shows it.

    `best` is the watched metric's best value during training, if it has one; `metric` and `value` are the headline of its
    results, `metrics` all of them. `config` is the resolved configuration, `seconds` the time it has taken so far.
    """

    directory: Path
    experiment: str
    task: str
    scale: str
    seed: int
    state: str
    step: int
    steps: int
    best: float | None
    metric: str
    value: float | None
    updated: str
    seconds: float | None
    metrics: Mapping[str, float]
    config: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """Everything but the configuration and the full list of metrics, JSON-ready."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _LONG}
        return {**facts, "directory": str(self.directory)}


_LONG = ("metrics", "config")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where it was built in: ten times as fast, and sweeps have hundreds of runs."""


def find_runs(root: Path) -> list[RunInfo]:
    """All runs below `root`, the most recently active first; folders that are no runs are passed over."""
    found = [info for folder in _folders(root) if (info := read_run(folder)) is not None]
    return sorted(found, key=lambda info: (info.updated, str(info.directory)), reverse=True)


def _folders(root: Path, depth: int = 4) -> Iterator[Path]:
    """Folders with both files that every run has. Runs do not hold runs, so a run's own folders are not searched."""
    if (root / "config.yaml").is_file() and (root / "status.json").is_file():
        yield root
        return
    if depth == 0:
        return
    try:
        children = sorted(child for child in root.iterdir() if child.is_dir() and not child.is_symlink())
    except OSError:
        return
    for child in children:
        yield from _folders(child, depth - 1)


def read_run(folder: Path) -> RunInfo | None:
    """What the files of a run say; None if its configuration cannot be read."""
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), _LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    if not isinstance(config, dict):
        return None
    directory = RunDirectory(folder)
    status, results = directory.status(), directory.results() or {}
    state = directory.current_state()
    metrics = {name: n for name, n in (results.get("metrics") or {}).items() if _is_number(n)}
    metric, value = headline(metrics)
    seconds = results.get("seconds", status.get("seconds"))
    return RunInfo(
        directory=folder,
        experiment=str(config.get("experiment", "")),
        task=str(config.get("task", "")),
        scale=str(config.get("scale", "")),
        seed=int(config.get("seed") or 0),
        state=INTERRUPTED if state == KILLED else state,
        step=int(status.get("step") or 0),
        steps=int(status.get("steps") or 0),
        best=status.get("best"),
        metric=metric,
        value=value,
        updated=str(status.get("updated", "")),
        seconds=seconds if _is_number(seconds) else None,
        metrics=metrics,
        config=config,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def headline(metrics: Mapping[str, float]) -> tuple[str, float | None]:
    """The first metric, in the order of the summary at a run's end, that the results hold."""
    names = [name for pattern, _ in HEADLINES for name in metrics if fnmatchcase(name, pattern)]
    return (names[0], float(metrics[names[0]])) if names else ("", None)


def age(updated: str, now: datetime | None = None) -> str:
    """`3 min`, `2 h`, `5 d` since an ISO time; empty if it is none."""
    try:
        seconds = ((now or datetime.now().astimezone()) - datetime.fromisoformat(updated)).total_seconds()
    except (ValueError, TypeError):
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
