"""What differs between runs: configuration, environment, data, metrics. Computes on plain data; imports no torch.

The first run is the reference: differences of numbers are to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paperbench.catalog import TASKS
from paperbench.config.difference import ABSENT, flatten

SECONDS = "seconds"
"""Wall time of a run, compared among its metrics."""

_NOT_COMPARED = ("output.",)
"""Where a run was written says nothing about it."""

_FACTS = ("device", "cpu", "threads", "processes", "python", "paperbench")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One run to compare. `environment` is flat, from `environment_facts`; `metrics` holds numbers only, none for a run that
    is not done; `progress` says in words how far such a run is, and is empty for one that is done."""

    name: str
    directory: str
    task: str
    state: str
    progress: str
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    data: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One thing that differs: its value in each run, `ABSENT` where a run has none."""

    key: str
    values: tuple[Any, ...]

    def deltas(self) -> tuple[float | None, ...]:
        """Each number less the first run's; None where either is not there."""
        first = self.values[0]
        return tuple(None if value is ABSENT or first is ABSENT else value - first for value in self.values)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Only what differs. `same_metrics` counts the metrics that do not; `remarks` are sentences to read first."""

    subjects: tuple[Subject, ...]
    config: tuple[Row, ...]
    environment: tuple[Row, ...]
    data: tuple[Row, ...]
    metrics: tuple[Row, ...]
    same_metrics: int
    remarks: tuple[str, ...]


def compare(subjects: Sequence[Subject]) -> Comparison:
    """Runs of one task are compared on every key and metric that any of them has, runs of different tasks on those that all
    have. Raises `ValueError` for fewer than two."""
    if len(subjects) < 2:
        raise ValueError("comparing takes at least two runs")
    shared = len({subject.task for subject in subjects}) > 1
    done = [subject for subject in subjects if not subject.progress]
    config = _rows(subjects, compared_config, shared_by=subjects if shared else ())
    environment = _rows(subjects, lambda subject: subject.environment)
    data = _rows(subjects, lambda subject: {"data": subject.data} if subject.data else {})
    metrics = _rows(subjects, lambda subject: subject.metrics, shared_by=done if shared else ())
    differing = tuple(row for row in metrics if _told_apart(row, subjects))
    return Comparison(
        subjects=tuple(subjects),
        config=tuple(row for row in config if _differ(row.values)),
        environment=tuple(row for row in environment if _told_apart(row, subjects)),
        data=tuple(row for row in data if _told_apart(row, subjects)),
        metrics=differing,
        same_metrics=len(metrics) - len(differing),
        remarks=tuple(_remarks(subjects, shared=shared)),
    )


def contradictions(subjects: Sequence[Subject]) -> list[str]:
    """Why numbers of these runs must not be compared: for every convention of their tasks (`catalog.TaskSpec.conventions`)
    in which they differ, a sentence that names both values. Empty where none does."""
    keys = dict.fromkeys(
        key for subject in subjects if subject.task in TASKS for key in TASKS[subject.task].conventions
    )
    found = []
    for key in keys:
        held: dict[Any, str] = {}
        for subject in subjects:
            value = dict(flatten(subject.config)).get(key, ABSENT)
            if value is not ABSENT:
                held.setdefault(value, subject.name)
        if len(held) > 1:
            said = ", ".join(f"{key}={value} ({name})" for value, name in held.items())
            found.append(f"{said}: their numbers mean different things and are not compared; compare runs of one {key}")
    return found


def compared_config(subject: Subject) -> dict[str, Any]:
    """The run's configuration by dotted keys, without where it was written."""
    return {key: value for key, value in flatten(subject.config) if not key.startswith(_NOT_COMPARED)}


def _rows(
    subjects: Sequence[Subject], part: Callable[[Subject], Mapping[str, Any]], *, shared_by: Sequence[Subject] = ()
) -> list[Row]:
    """Rows of all keys in the order they appear; with `shared_by`, only those that all of these runs have."""
    parts = [part(subject) for subject in subjects]
    keys = dict.fromkeys(key for values in parts for key in values)
    wanted = (key for key in keys if all(key in part(subject) for subject in shared_by))
    return [Row(key, tuple(values.get(key, ABSENT) for values in parts)) for key in wanted]


def _told_apart(row: Row, subjects: Sequence[Subject]) -> bool:
    """Whether the row differs by more than what unfinished runs cannot have yet."""
    pairs = zip(row.values, subjects, strict=True)
    return _differ([value for value, subject in pairs if value is not ABSENT or not subject.progress])


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


# --- remarks ----------------------------------------------------------------------------------------------------------


def _remarks(subjects: Sequence[Subject], *, shared: bool) -> Iterator[str]:
    if shared:
        tasks = ", ".join(dict.fromkeys(subject.task for subject in subjects))
        yield f"runs of different tasks ({tasks}): compared on the keys and metrics that all of them have"
    for subject in subjects:
        if subject.progress:
            yield f"{subject.name} is {subject.state}, {subject.progress}: it has no results to compare"
    made_on = {subject.data for subject in subjects if subject.data}
    if len(made_on) > 1:
        yield "made on different data: differences between their metrics say little about the methods"
    if len({str(subject.config.get("scale")) for subject in subjects}) > 1:
        yield "made at different scales"


# --- environments -----------------------------------------------------------------------------------------------------


def environment_facts(environment: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, str]:
    """What of `env.json` and `results.json` may matter to a number: device, precision, processor, threads, versions, source.

    A run that was resumed elsewhere names every value it had, in order.
    """
    sessions = [environment, *(s for s in environment.get("resumed", ()) if isinstance(s, Mapping))]
    found: dict[str, list[str]] = {}
    for session in sessions:
        for key, value in _session_facts(session).items():
            if value not in found.setdefault(key, []):
                found[key].append(value)
    if results.get("precision"):
        found["precision"] = [str(results["precision"])]
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
