"""`paperbench compare`: what differs between runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paperbench.cli.differences import print_comparison
from paperbench.cli.guard import emit_json
from paperbench.config.difference import ABSENT
from paperbench.config.paths import short
from paperbench.config.words import counted
from paperbench.errors import ConfigError, DataError
from paperbench.records.comparison import Comparison, Row, compare, contradictions, progress_in_words
from paperbench.records.grouping import Setting, repeated_settings
from paperbench.records.metrics import all_metrics
from paperbench.records.record import RunRecord, read_run
from paperbench.records.selection import find_runs
from paperbench.records.statistics import Summary
from paperbench.records.sweeps import RECORD, read_sweep

SCHEMA_VERSION = 1


def compare_runs(given: Sequence[Path], *, json_output: bool) -> None:
    """Compare the runs that the folders are or stand for; the first is the reference."""
    runs, remarks = compared(given)
    comparison = compare(runs)
    remarks = [*remarks, *comparison.remarks]
    if json_output:
        emit_json(_document(comparison, remarks))
    else:
        print_comparison(comparison, remarks)


# --- the runs ---------------------------------------------------------------------------------------------------------


def compared(given: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """The runs that the folders are or stand for, each once, with names that distinguish them, and remarks about runs that
    have not started.

    Raises `ConfigError` for fewer than two runs and for runs whose numbers mean different things, `DataError` for damage.
    """
    directories, remarks = _directories(given)
    if len(directories) < 2:
        names = ", ".join(short(path) for path in directories) or "none"
        raise ConfigError(f"compare: needs at least two runs, found {names}. Runs: `paperbench runs`", *remarks)
    runs = [
        replace(_readable(directory), name=name)
        for name, directory in zip(_names(directories), directories, strict=True)
    ]
    if refused := contradictions(runs):
        raise ConfigError(*refused)
    return runs, remarks


def _readable(directory: Path) -> RunRecord:
    run = read_run(directory)
    if not run.config:
        raise DataError(f"{directory / 'config.yaml'}: damaged, cannot be compared")
    return run


def _directories(given: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The folders of the runs, each once, in the order given, and remarks about runs that are not there yet."""
    mistakes: list[str] = []
    remarks: list[str] = []
    found: dict[Path, Path] = {}
    for path in given:
        members, absent = _members(path)
        if absent:
            remarks.append(f"{short(path)}: {absent} of its {counted(absent + len(members), 'runs')} not started")
        if not members and not absent:
            mistakes.append(f"{path}: no run, sweep or folder of runs; `paperbench runs` lists the runs there are")
        for member in members:
            found.setdefault(member.resolve(), member)
    if mistakes:
        raise ConfigError(*mistakes)
    return list(found.values()), remarks


def _members(path: Path) -> tuple[list[Path], int]:
    """The runs that `path` stands for, and how many more of a sweep were never started."""
    if (path / "config.yaml").is_file():
        return [path], 0
    if (path / RECORD).is_file():
        entries = read_sweep(path).entries
        started = [entry.directory for entry in entries if (entry.directory / "config.yaml").is_file()]
        return started, len(entries) - len(started)
    return sorted(run.directory for run in find_runs(path)), 0


def _names(directories: Sequence[Path]) -> list[str]:
    """Folder names where they distinguish the runs, else paths."""
    names = [directory.absolute().name for directory in directories]
    return names if len(set(names)) == len(names) else [short(directory.absolute()) for directory in directories]


# --- for a program ----------------------------------------------------------------------------------------------------


def _document(comparison: Comparison, remarks: Sequence[str]) -> dict[str, Any]:
    """One entry a run; a key that a run lacks is not in its entry."""

    def part(rows: Sequence[Row], index: int) -> dict[str, Any]:
        return {row.key: row.values[index] for row in rows if row.values[index] is not ABSENT}

    runs = [
        {
            "name": run.name,
            "directory": str(run.directory),
            "task": run.task,
            "state": run.state,
            "progress": progress_in_words(run),
            "config": part(comparison.config, index),
            "environment": part(comparison.environment, index),
            "data": run.data if run.done else "",
            "metrics": part(comparison.metrics, index),
            "deltas": {
                row.key: delta for row in comparison.metrics if (delta := row.deltas()[index]) is not None and index
            },
        }
        for index, run in enumerate(comparison.runs)
    ]
    settings = repeated_settings(comparison.runs)
    return {
        "schema_version": SCHEMA_VERSION,
        "reference": comparison.runs[0].name,
        "runs": runs,
        "directions": {row.key: all_metrics().direction(row.key) for row in comparison.metrics},
        "same_metrics": comparison.same_metrics,
        "over_seeds": [_setting_document(setting, settings[0]) for setting in settings],
        "remarks": list(remarks),
    }


def _setting_document(setting: Setting, first: Setting) -> dict[str, Any]:
    def summary(value: Summary) -> dict[str, Any]:
        return {"n": value.n, "mean": value.mean, "interval": value.interval, "interval_kind": value.kind}

    differences = {} if setting is first else setting.against(first)
    return {
        "label": setting.overrides,
        "runs": [run.name for run in setting.by_seed.values()],
        "seeds": list(setting.by_seed),
        "metrics": {name: summary(value) for name, value in setting.summaries().items()},
        "paired_differences": {
            name: {"seeds": list(pair.seeds), **summary(pair.summary)} for name, pair in differences.items()
        },
    }
