"""The runs below a folder, read from their files. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from paperbench.cli.guard import emit_json
from paperbench.cli.output import line, table
from paperbench.cli.summary import HEADLINES
from paperbench.config.paths import short
from paperbench.engine.rundir import KILLED, RunDirectory

INTERRUPTED = "interrupted"
"""What a person is told of a run whose process is gone without a word."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One run as `paperbench runs` shows it. `best` is the watched metric's best value during training, if it has one."""

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
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    if not isinstance(config, dict):
        return None
    directory = RunDirectory(folder)
    status, results = directory.status(), directory.results() or {}
    state = directory.current_state()
    metric, value = headline(results.get("metrics") or {})
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
    )


def headline(metrics: dict[str, Any]) -> tuple[str, float | None]:
    """The first metric, in the order of the summary at a run's end, that the results hold."""
    names = [name for name, _ in HEADLINES if isinstance(metrics.get(name), int | float)]
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


def print_runs(root: Path, *, json_output: bool) -> None:
    """The table of `paperbench runs`."""
    found = find_runs(root)
    if json_output:
        emit_json([{**asdict(info), "directory": str(info.directory)} for info in found])
        return
    if not found:
        line(f"no runs below {root}")
        return
    table(
        ("experiment", "scale", "state", "step", "result", "age", "directory"),
        (
            (
                f"{info.experiment} ({info.task})" if info.task.endswith("eval") else info.experiment,
                info.scale,
                info.state,
                f"{info.step}/{info.steps}" if info.steps else "",
                _result(info),
                age(info.updated),
                short(info.directory),
            )
            for info in found
        ),
    )


def _result(info: RunInfo) -> str:
    if info.value is not None:
        return f"{info.metric} {info.value:.4g}"
    return f"best {info.best:.4g}" if isinstance(info.best, int | float) else ""
