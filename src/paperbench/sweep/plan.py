"""From requests to a sweep: every run composed, checked and given its directory, before anything is written.

Imports no torch by itself; the tasks' own checks may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paperbench.config.compose import Composed

HASH_DIGITS = 12
"""Hexadecimal digits of `config_hash` that name a run's directory."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run that is wanted. `labels` are what tells it from the others, as typed: swept key to value."""

    experiment: str
    overrides: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a sweep: `directory` is `<output.root>/<experiment>/<hash>`, `hash` the first digits of `config_hash`."""

    request: Request
    composed: Composed
    hash: str
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Runs that belong together. The same runs have the same `id`, so that a command given again finds its sweep."""

    name: str
    id: str
    directory: Path
    """Holds the record `sweep.json`, `events.jsonl` and the sweep's lock; made when the first run starts."""
    members: tuple[Member, ...]
    kind: str = "sweep"


def expand(experiment: str, overrides: Sequence[str]) -> list[Request]:
    """The requests that overrides in Hydra's choice and range syntax stand for, the last key running fastest.

    `key=a,b`, `key=choice(a,b)`, `key=range(0,3)` and `group=glob(*)` are expanded; everything else goes to every request as
    it is. Raises `ConfigError` with every override that cannot be expanded.
    """
    raise NotImplementedError


def plan(
    requests: Sequence[Request],
    *,
    conf_dir: Path | None = None,
    directory: Path | None = None,
    name: str | None = None,
    kind: str = "sweep",
) -> Sweep:
    """Composes and checks every request; requests of one configuration become one member.

    `directory` is the sweep's folder, by default `<output.root>/<experiment>/sweeps/<id>`. Nothing is made. Raises one
    `ConfigError` with the mistakes of all runs, each said once.
    """
    raise NotImplementedError


def sweep_id(members: Sequence[Member]) -> str:
    """The same for the same runs in any order."""
    text = "\n".join(sorted(member.hash for member in members))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
