"""What is known of a run, a sweep or a reproduction. `sources` reads it from their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from paperbench.config.difference import flatten
from paperbench.engine import metriclog
from paperbench.engine.rundir import DONE

NOT_STARTED, INTERRUPTED, DAMAGED = "not started", "interrupted", "damaged"

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
_PLACES = ("output", "tensorboard")
_NOT_CURVES = frozenset({"step", "time"})
_LOG_LINES = 12
_MOST_LOG = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One file of `checkpoints/manifest.json`."""

    file: str
    step: int | None
    size: int | None
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run as its files tell it. `state` is that of `status.json`, or `interrupted`, `damaged` or `not started`.

    `labels` are what the sweep varied, as typed. Missing files leave empty mappings; `faults` says in words what could
    not be read.
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
    faults: tuple[str, ...] = ()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of `results.json`, exactly as they stand there; null and everything else that is none left out."""
        found = self.results.get("metrics")
        return (
            {str(name): value for name, value in found.items() if is_number(value)}
            if isinstance(found, Mapping)
            else {}
        )

    @cached_property
    def flat_config(self) -> dict[str, Any]:
        """The configuration by dotted keys, without where the run was written: that says nothing about what it is."""
        return {key: value for key, value in flatten(self.config) if not key.startswith(_PLACES)}

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The records of `metrics.jsonl`, one a step; empty when there are none."""
        try:
            return metriclog.read(self.directory / "metrics.jsonl")
        except OSError:
            return []

    @cached_property
    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Every number that was logged, by name in the order in which each first was: the steps, and the finite values there."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for record in self.records:
            step = record["step"]
            for name, value in record.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(value)
        return {name: series for name, series in found.items() if name not in _NOT_CURVES}

    @property
    def done(self) -> bool:
        """Whether the run ended and left results."""
        return self.state == DONE and bool(self.results)

    @property
    def experiment(self) -> str:
        return str(self.results.get("experiment") or self.config.get("experiment") or "")

    @property
    def task(self) -> str:
        return str(self.results.get("task") or self.config.get("task") or "")

    @property
    def scale(self) -> str:
        return str(self.results.get("scale") or self.config.get("scale") or "")

    @property
    def seed(self) -> int | str | None:
        """The seed of the configuration; None where none is known."""
        value = self.config.get("seed", self.results.get("seed", self.labels.get("seed")))
        return value if isinstance(value, int | str) else None

    @property
    def seconds(self) -> float | int | None:
        """Wall time, sessions before a resume included."""
        for source in (self.results, self.status):
            if is_number(source.get("seconds")):
                return source["seconds"]
        return None

    @property
    def message(self) -> str:
        """Why it failed or stopped, in the run's own words."""
        return str(self.status.get("message") or "") if self.state != DONE else ""

    def figures(self) -> list[Path]:
        """The pictures below `figures/`, sorted by name."""
        folder = self.directory / "figures"
        try:
            found = [file for file in folder.rglob("*") if file.suffix.lower() in _PICTURES and file.is_file()]
        except OSError:
            return []
        return sorted(found, key=lambda file: (len(file.relative_to(folder).parts), file.as_posix()))

    def log_tail(self) -> str:
        """The last lines of `log.txt`."""
        try:
            with (self.directory / "log.txt").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _MOST_LOG))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.rstrip().splitlines()[-_LOG_LINES:])


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """A `sweep.json` and the runs it names, in its order."""

    directory: Path
    name: str
    experiment: str
    overrides: tuple[str, ...]
    runs: tuple[RunRecord, ...]


@dataclass(frozen=True, kw_only=True)
class ReproductionRecord:
    """A `reproduction.json` and, where a `sweep.json` stands beside it, its runs."""

    directory: Path
    document: Mapping[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def name(self) -> str:
        return str(self.document.get("name") or self.directory.name)


Subject = RunRecord | SweepRecord | ReproductionRecord


def is_number(value: object) -> bool:
    """Whether it is a number of JSON: neither null nor a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
