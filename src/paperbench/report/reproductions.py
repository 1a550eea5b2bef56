"""All reproductions at a glance: what each stands beside, what it costs at each scale, and what is done of it.

Reads files alone and composes nothing, so that a list is quick. The record that a reproduction leaves, and the directories of
the runs in it, say what is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paperbench.config.paths import search_path
from paperbench.errors import ConfigError, DataError
from paperbench.records.record import read_status
from paperbench.records.sweeps import read_sweep
from paperbench.report.layout import Layout, names, read
from paperbench.report.layoutfile import CostEntry


@dataclass(frozen=True, kw_only=True)
class AtScale:
    """`seconds` is what all runs take one after another on `machine`, None where that was never measured."""

    scale: str
    runs: int
    seeds: int
    done: int
    seconds: float | None
    machine: str


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One reproduction, with the scales it can be made at."""

    name: str
    paper: str
    table: str
    caption: str
    file: Path
    scales: tuple[AtScale, ...]


def listed(root: Path, conf_dir: Path | None = None) -> tuple[list[Listed], list[str]]:
    """Every reproduction that can be named, by name, and the mistakes in files that cannot be read."""
    found: list[Listed] = []
    mistakes: list[str] = []
    for name, file in names(search_path(conf_dir)).items():
        try:
            found.append(describe(read(name, file), root))
        except ConfigError as error:
            mistakes += error.mistakes
    return found, mistakes


def describe(layout: Layout, root: Path) -> Listed:
    """Describe one reproduction whose runs lie below `root`."""
    return Listed(
        name=layout.name,
        paper=layout.paper,
        table=layout.table,
        caption=layout.caption,
        file=layout.file,
        scales=tuple(at_scale(layout, scale, root) for scale in layout.scales),
    )


def at_scale(layout: Layout, scale: str, root: Path) -> AtScale:
    """Runs and cost of one scale, and what is done of it."""
    runs = layout.runs(scale)
    seconds, machine = time_of(layout, scale, runs)
    folders = _recorded(root / "reproduce" / layout.name / scale)
    return AtScale(
        scale=scale,
        runs=runs,
        seeds=layout.scale(scale).seeds,
        done=sum(1 for folder in folders if read_status(folder).state == "done"),
        seconds=seconds,
        machine=machine,
    )


def time_of(layout: Layout, scale: str, runs: int) -> tuple[float | None, str]:
    """Seconds that so many runs take one after another, and on which machine; None where that was never measured."""
    cost = layout.scale(scale).cost
    return (cost.seconds * runs, cost.machine) if isinstance(cost, CostEntry) else (None, "")


def _recorded(folder: Path) -> list[Path]:
    """The run directories that the record in `folder` names; none where there is no record that can be read."""
    try:
        return [entry.directory for entry in read_sweep(folder).entries]
    except (ConfigError, DataError):
        return []
