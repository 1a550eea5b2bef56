"""`paperbench compare`: what differs between runs. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paperbench.cli.differences import print_comparison
from paperbench.cli.guard import emit_json
from paperbench.cli.history import DONE, RunInfo, find_runs, read_run
from paperbench.config.difference import ABSENT
from paperbench.config.paths import short
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import ConfigError, DataError
from paperbench.report.comparison import SECONDS, Comparison, Row, Subject, compare, contradictions, environment_facts
from paperbench.report.metrics import direction
from paperbench.report.seeds import Method, methods
from paperbench.runs.statistics import Summary

SCHEMA_VERSION = 1


def compare_runs(given: Sequence[Path], *, json_output: bool) -> None:
    """Compares the runs that the folders are or stand for; the first is the reference."""
    directories, remarks = _directories(given)
    if len(directories) < 2:
        names = ", ".join(short(path) for path in directories) or "none"
        raise ConfigError(f"compare: needs at least two runs, found {names}. Runs: `paperbench runs`", *remarks)
    subjects = _subjects(directories)
    if refused := contradictions(subjects):
        raise ConfigError(*refused)
    comparison = compare(subjects)
    remarks = [*remarks, *comparison.remarks]
    if json_output:
        emit_json(_document(comparison, remarks))
    else:
        print_comparison(comparison, remarks)


# --- which runs -------------------------------------------------------------------------------------------------------


def _directories(given: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The folders of the runs, each once, in the order given, and remarks about runs that are not there yet."""
    mistakes: list[str] = []
    remarks: list[str] = []
    found: dict[Path, Path] = {}
    for path in given:
        members, absent = _members(path)
        if absent:
            remarks.append(f"{short(path)}: {absent} of its {absent + len(members)} runs not started")
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
    if (path / "sweep.json").is_file():
        recorded = _recorded(path / "sweep.json")
        made = [run for run in recorded if (run / "config.yaml").is_file()]
        return made, len(recorded) - len(made)
    return sorted(info.directory for info in find_runs(path)), 0


def _recorded(file: Path) -> list[Path]:
    """The directories of a sweep's runs, in its order."""
    try:
        runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
        return [(file.parent / run["directory"]).resolve() for run in runs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged, no record of a sweep ({type(error).__name__}: {error})") from error


def _subjects(directories: Sequence[Path]) -> list[Subject]:
    names = _names(directories)
    subjects = []
    for name, directory in zip(names, directories, strict=True):
        info = read_run(directory)
        if info is None:
            raise DataError(f"{directory / 'config.yaml'}: damaged, cannot be compared")
        subjects.append(_subject(name, info))
    return subjects


def _names(directories: Sequence[Path]) -> list[str]:
    """Folder names where they tell the runs apart, else paths."""
    names = [directory.absolute().name for directory in directories]
    return names if len(set(names)) == len(names) else [short(directory.absolute()) for directory in directories]


def _subject(name: str, info: RunInfo) -> Subject:
    directory = RunDirectory(info.directory)
    done = info.state == DONE
    results = (directory.results() or {}) if done else {}
    seconds = {SECONDS: info.seconds} if info.seconds is not None else {}
    return Subject(
        name=name,
        directory=str(info.directory),
        task=info.task,
        state=info.state,
        progress="" if done else f"step {info.step} of {info.steps}" if info.steps else "before its first step",
        config=info.config,
        environment=environment_facts(directory.environment(), results),
        data=str(results.get("data", "")),
        metrics={**info.metrics, **seconds} if done else {},
    )


# --- for a program ----------------------------------------------------------------------------------------------------


def _document(comparison: Comparison, remarks: Sequence[str]) -> dict[str, Any]:
    """One entry a run; a key that a run lacks is not in its entry."""

    def part(rows: Sequence[Row], index: int) -> dict[str, Any]:
        return {row.key: row.values[index] for row in rows if row.values[index] is not ABSENT}

    runs = [
        {
            "name": subject.name,
            "directory": subject.directory,
            "task": subject.task,
            "state": subject.state,
            "progress": subject.progress,
            "config": part(comparison.config, index),
            "environment": part(comparison.environment, index),
            "data": subject.data,
            "metrics": part(comparison.metrics, index),
            "deltas": {
                row.key: delta for row in comparison.metrics if (delta := row.deltas()[index]) is not None and index
            },
        }
        for index, subject in enumerate(comparison.subjects)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "reference": comparison.subjects[0].name,
        "runs": runs,
        "directions": {row.key: direction(row.key) for row in comparison.metrics},
        "same_metrics": comparison.same_metrics,
        "over_seeds": [_method_document(method) for method in methods(comparison.subjects)],
        "remarks": list(remarks),
    }


def _method_document(method: Method) -> dict[str, Any]:
    def summary(value: Summary) -> dict[str, Any]:
        return {"n": value.n, "mean": value.mean, "interval": value.interval, "interval_kind": value.kind}

    return {
        "label": method.label,
        "runs": list(method.runs),
        "seeds": list(method.seeds),
        "metrics": {name: summary(value) for name, value in method.metrics.items()},
        "paired_differences": {
            name: {"seeds": list(pair.seeds), **summary(pair.summary)} for name, pair in method.against_first.items()
        },
    }
