"""Runs that differ in nothing but their seed are one method measured several times. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paperbench.config.difference import ABSENT
from paperbench.report.comparison import Subject, compared_config
from paperbench.runs.statistics import Paired, Summary, paired, summarise

SEED = "seed"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One configuration with its finished seeds.

    `metrics` are those that every one of its runs has; `against_first` the differences of these to the first method's, seed
    by seed, empty for the first itself and where no seed is in both.
    """

    label: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: Mapping[str, Summary]
    against_first: Mapping[str, Paired]


def methods(subjects: Sequence[Subject]) -> tuple[Method, ...]:
    """The finished runs by what they differ in beside the seed, in order of appearance; a seed that appears twice counts once.

    Empty unless some method has at least two seeds: single runs are compared as they are.
    """
    groups: dict[str, dict[int, Subject]] = {}
    for subject in subjects:
        if not subject.progress:
            identity = json.dumps(_identity(subject), sort_keys=True, default=str)
            groups.setdefault(identity, {}).setdefault(int(subject.config.get(SEED) or 0), subject)
    found = [dict(sorted(group.items())) for group in groups.values()]
    if all(len(group) < 2 for group in found):
        return ()
    labels = _labels([_identity(next(iter(group.values()))) for group in found])
    values = [_values(group) for group in found]
    return tuple(
        Method(
            label=label,
            runs=tuple(subject.name for subject in group.values()),
            seeds=tuple(group),
            metrics={name: summarise(list(by_seed.values())) for name, by_seed in own.items()},
            against_first=_against(own, values[0]) if own is not values[0] else {},
        )
        for label, group, own in zip(labels, found, values, strict=True)
    )


def _identity(subject: Subject) -> dict[str, Any]:
    return {key: value for key, value in compared_config(subject).items() if key != SEED}


def _values(group: Mapping[int, Subject]) -> dict[str, dict[int, float]]:
    """Metric -> seed -> value, for the metrics that all of the group have."""
    first, *others = group.values()
    shared = [name for name in first.metrics if all(name in subject.metrics for subject in others)]
    return {name: {seed: subject.metrics[name] for seed, subject in group.items()} for name in shared}


def _against(own: Mapping[str, Mapping[int, float]], first: Mapping[str, Mapping[int, float]]) -> dict[str, Paired]:
    both = {name: paired(own[name], first[name]) for name in own if name in first}
    return {name: pair for name, pair in both.items() if pair.seeds}


def _labels(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """What sets each method apart, as overrides; `all` for a single one."""
    keys = dict.fromkeys(key for identity in identities for key in identity)
    apart = [key for key in keys if any(i.get(key, ABSENT) != identities[0].get(key, ABSENT) for i in identities)]
    return [" ".join(f"{key}={identity[key]}" for key in apart if key in identity) or "all" for identity in identities]
