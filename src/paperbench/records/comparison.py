"""Differences between runs: configuration, environment, data, metrics. Imports no torch.

The first run is the reference: differences of numbers are to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paperbench.catalog import TASKS
from paperbench.config.difference import ABSENT
from paperbench.records.record import RunRecord

SECONDS = "seconds"
"""Wall time of a run, compared among its metrics."""

_FACTS = ("device", "cpu", "threads", "processes", "python", "paperbench")


@dataclass(frozen=True)
class Row:
    """One key that differs: its value in each run, `ABSENT` where a run has none."""

    key: str
    values: tuple[Any, ...]

    def deltas(self) -> tuple[float | None, ...]:
        """Each number less the first run's; None where either is not there."""
        first = self.values[0]
        return tuple(None if value is ABSENT or first is ABSENT else value - first for value in self.values)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Only what differs. `same_metrics` counts the metrics that do not; `remarks` are sentences to read first."""

    runs: tuple[RunRecord, ...]
    config: tuple[Row, ...]
    environment: tuple[Row, ...]
    data: tuple[Row, ...]
    metrics: tuple[Row, ...]
    same_metrics: int
    remarks: tuple[str, ...]


def compare(runs: Sequence[RunRecord]) -> Comparison:
    """Compare runs of one task on every key and metric that any of them has, runs of different tasks on those that all have.

    Raises `ValueError` for fewer than two.
    """
    if len(runs) < 2:
        raise ValueError("comparing takes at least two runs")
    shared = len({run.task for run in runs}) > 1
    done = [run for run in runs if run.done]
    config = _rows(runs, lambda run: run.flat_config, shared_by=runs if shared else ())
    environment = _rows(runs, environment_facts)
    data = _rows(runs, lambda run: {"data": run.data} if run.done and run.data else {})
    metrics = _rows(runs, compared_metrics, shared_by=done if shared else ())
    differing = tuple(row for row in metrics if _differs(row, runs))
    return Comparison(
        runs=tuple(runs),
        config=tuple(row for row in config if _several(row.values)),
        environment=tuple(row for row in environment if _differs(row, runs)),
        data=tuple(row for row in data if _differs(row, runs)),
        metrics=differing,
        same_metrics=len(metrics) - len(differing),
        remarks=tuple(_remarks(runs, shared=shared)),
    )


def contradictions(runs: Sequence[RunRecord]) -> list[str]:
    """The reasons why numbers of these runs must not be compared: a sentence with both values for every convention of their
    tasks (`catalog.TaskSpec.conventions`) in which they differ. Empty where none does."""
    keys = dict.fromkeys(key for run in runs if run.task in TASKS for key in TASKS[run.task].conventions)
    found = []
    for key in keys:
        names: dict[Any, str] = {}
        for run in runs:
            value = run.flat_config.get(key, ABSENT)
            if value is not ABSENT:
                names.setdefault(value, run.name)
        if len(names) > 1:
            values = ", ".join(f"{key}={value} ({name})" for value, name in names.items())
            found.append(
                f"{values}: their numbers mean different things and are not compared; compare runs of one {key}"
            )
    return found


def compared_metrics(run: RunRecord) -> dict[str, float]:
    """The metrics of a run that is done, with its wall time; none of any other."""
    if not run.done:
        return {}
    return {**run.metrics, **({SECONDS: run.seconds} if run.seconds is not None else {})}


def progress_in_words(run: RunRecord) -> str:
    """`step 4 of 8` for an unfinished run; empty for one that is done."""
    if run.done:
        return ""
    return f"step {run.step} of {run.steps}" if run.steps else "before its first step"


def _rows(
    runs: Sequence[RunRecord], part: Callable[[RunRecord], Mapping[str, Any]], *, shared_by: Sequence[RunRecord] = ()
) -> list[Row]:
    """Rows of all keys in the order they appear; with `shared_by`, only those that all of these runs have."""
    parts = [part(run) for run in runs]
    keys = dict.fromkeys(key for values in parts for key in values)
    required = [part(run) for run in shared_by]
    wanted = (key for key in keys if all(key in values for values in required))
    return [Row(key, tuple(values.get(key, ABSENT) for values in parts)) for key in wanted]


def _differs(row: Row, runs: Sequence[RunRecord]) -> bool:
    """True if the row differs by more than the values that unfinished runs cannot have yet."""
    return _several([value for value, run in zip(row.values, runs, strict=True) if value is not ABSENT or run.done])


def _several(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


# --- remarks ----------------------------------------------------------------------------------------------------------


def _remarks(runs: Sequence[RunRecord], *, shared: bool) -> Iterator[str]:
    if shared:
        tasks = ", ".join(dict.fromkeys(run.task for run in runs))
        yield f"runs of different tasks ({tasks}): compared on the keys and metrics that all of them have"
    for run in runs:
        if not run.done:
            yield f"{run.name} is {run.state}, {progress_in_words(run)}: it has no results to compare"
    if len({run.data for run in runs if run.done and run.data}) > 1:
        yield "made on different data: differences between their metrics say little about the methods"
    if len({str(run.config.get("scale")) for run in runs}) > 1:
        yield "made at different scales"


# --- environments -----------------------------------------------------------------------------------------------------


def environment_facts(run: RunRecord) -> dict[str, str]:
    """The facts of `env.json` and `results.json` that may matter to a number: device, precision, processor, threads, versions,
    source.

    A run that was resumed elsewhere names every value it had, in order.
    """
    environment = run.environment
    sessions = [environment, *(s for s in environment.get("resumed", ()) if isinstance(s, Mapping))]
    found: dict[str, list[str]] = {}
    for session in sessions:
        for key, value in _session_facts(session).items():
            if value not in found.setdefault(key, []):
                found[key].append(value)
    if run.done and run.results.get("precision"):
        found["precision"] = [str(run.results["precision"])]
    return {key: " then ".join(values) for key, values in found.items()}


def _session_facts(session: Mapping[str, Any]) -> dict[str, str]:
    facts = {key: str(session[key]) for key in _FACTS if session.get(key) is not None}
    packages = session.get("packages")
    if isinstance(packages, Mapping):
        facts |= {str(name): str(version) for name, version in packages.items()}
    git = session.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        changes = str(git.get("diff") or "")
        mark = f" with changes {hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else ""
        facts["source"] = f"{str(git['commit'])[:12]}{mark}"
    return facts
