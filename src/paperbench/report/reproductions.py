"""All reproductions at a glance: what each stands beside, what it costs at each scale, and what is done of it.

Reads files alone and composes nothing, so that a list is quick. The record that a reproduction leaves, and the directories of
the runs in it, say what is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paperbench.config.paths import search_path, shipped_results
from paperbench.errors import ConfigError, DataError
from paperbench.records.record import read_status
from paperbench.records.sweeps import read_sweep
from paperbench.report import results
from paperbench.report.layout import Layout, names, read
from paperbench.report.layoutfile import CostEntry
from paperbench.report.results import Kept, made_in_words


@dataclass(frozen=True, kw_only=True)
class AtScale:
    """`seconds` is what all runs take one after another on `machine`, None where that was never measured."""

    scale: str
    runs: int
    seeds: int
    done: int
    seconds: float | None
    machine: str
    elsewhere: Elsewhere | None = None


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What is kept of this table, made by other runs than those here: `made` says who, in words."""

    numbers: int
    made: str


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
    try:
        kept = {item.key: item for item in results.read_all(shipped_results())}
    except DataError as error:
        kept, mistakes = {}, [str(error)]
    for name, file in names(search_path(conf_dir)).items():
        try:
            found.append(describe(read(name, file), root, kept))
        except ConfigError as error:
            mistakes += error.mistakes
    return found, mistakes


def describe(layout: Layout, root: Path, kept: Mapping[str, Kept]) -> Listed:
    """Describe one reproduction whose runs lie below `root`; `kept` are the exported ones by their key."""
    return Listed(
        name=layout.name,
        paper=layout.paper,
        table=layout.table,
        caption=layout.caption,
        file=layout.file,
        scales=tuple(at_scale(layout, scale, root, kept) for scale in layout.scales),
    )


def at_scale(layout: Layout, scale: str, root: Path, kept: Mapping[str, Kept]) -> AtScale:
    """Runs and cost of one scale, what is done of it here, and what was made elsewhere."""
    runs = layout.runs(scale)
    seconds, machine = time_of(layout, scale, runs)
    folders = _recorded(root / "reproduce" / layout.name / scale)
    done = sum(1 for folder in folders if read_status(folder).state == "done")
    found = kept.get(f"{layout.name}/{scale}")
    return AtScale(
        scale=scale,
        runs=runs,
        seeds=layout.scale(scale).seeds,
        done=done,
        seconds=seconds,
        machine=machine,
        elsewhere=Elsewhere(numbers=found.numbers, made=made_in_words(found.made)) if found and not done else None,
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
