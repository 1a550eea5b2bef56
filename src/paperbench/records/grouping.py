"""Runs that differ in nothing but their seed are one setting measured several times. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paperbench.config.difference import ABSENT
from paperbench.records.comparison import compared_metrics
from paperbench.records.record import RunRecord
from paperbench.records.statistics import Paired, Summary, paired, summarise

SEED = "seed"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Runs that differ in their seed alone. `values` distinguish the setting from the others, `label` the same in one line."""

    label: str
    values: Mapping[str, str]
    runs: tuple[RunRecord, ...]

    @property
    def done(self) -> list[RunRecord]:
        return [run for run in self.runs if run.done]

    @cached_property
    def by_seed(self) -> dict[int, RunRecord]:
        """The finished runs in the order of their seeds; of a seed that was run twice, the first."""
        found: dict[int, RunRecord] = {}
        for run in self.done:
            found.setdefault(run.seed if isinstance(run.seed, int) else 0, run)
        return dict(sorted(found.items()))

    @property
    def overrides(self) -> str:
        """`optim.lr=0.1 data=voc`: what distinguishes the setting, as one would type it; `all` for a single one."""
        return " ".join(f"{key}={value}" for key, value in self.values.items() if value) or "all"

    @cached_property
    def values_by_seed(self) -> dict[str, dict[int, float]]:
        """Metric -> seed -> value, for the metrics that all finished runs have; `seconds` among them."""
        metrics = {seed: compared_metrics(run) for seed, run in self.by_seed.items()}
        names = next(iter(metrics.values()), {})
        shared = [name for name in names if all(name in found for found in metrics.values())]
        return {name: {seed: found[name] for seed, found in metrics.items()} for name in shared}

    def summaries(self) -> dict[str, Summary]:
        """Mean and interval over the seeds of each metric that all finished runs have."""
        return {name: summarise(list(values.values())) for name, values in self.values_by_seed.items()}

    def against(self, other: Setting) -> dict[str, Paired]:
        """The differences to another setting's metrics, seed by seed; none for a metric without a seed that both have."""
        both = {
            name: paired(values, other.values_by_seed[name])
            for name, values in self.values_by_seed.items()
            if name in other.values_by_seed
        }
        return {name: pair for name, pair in both.items() if pair.seeds}


def settings_of(runs: Sequence[RunRecord]) -> list[Setting]:
    """The settings of several runs, in the order of their first."""
    keys = [key for key in varied(runs) if key != SEED]
    # A run that has not started has no configuration yet: the sweep's labels say where it belongs.
    by_labels = {_identity(run.labels): _identity(run.flat_config) for run in runs if run.config and run.labels}
    together: dict[str, list[RunRecord]] = {}
    for run in runs:
        identity = (
            _identity(run.flat_config) if run.config else by_labels.get(_identity(run.labels), _identity(run.labels))
        )
        together.setdefault(identity, []).append(run)
    found = []
    for members in together.values():
        values = {key: typed_value(members[0], key) for key in keys}
        found.append(Setting(label=_label(values, members[0]), values=values, runs=tuple(members)))
    return _distinguished(found)


def repeated_settings(runs: Sequence[RunRecord]) -> list[Setting]:
    """The settings of the finished runs, if at least one of them has several seeds; else none: single runs are compared as
    they are."""
    found = settings_of([run for run in runs if run.done])
    return found if any(len(setting.by_seed) > 1 for setting in found) else []


def varied(runs: Sequence[RunRecord]) -> list[str]:
    """The keys that a sweep varied; where no sweep says so, those whose values differ between the runs."""
    labelled = list(dict.fromkeys(key for run in runs for key in run.labels))
    keys = labelled or differing_keys(runs)
    several = [key for key in keys if len({typed_value(run, key) for run in runs}) > 1]
    if len({run.experiment for run in runs if run.experiment}) > 1 and "experiment" not in several:
        several.insert(0, "experiment")
    return several


def differing_keys(runs: Sequence[RunRecord]) -> list[str]:
    """Dotted keys of the configurations whose values are not the same in all runs that have one."""
    configs = [run.flat_config for run in runs if run.config]
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({_comparable(config.get(key, ABSENT)) for config in configs}) > 1]


def typed_value(run: RunRecord, key: str) -> str:
    """The value of a key as it was typed, else as the configuration has it; empty where there is none."""
    if key in run.labels:
        return run.labels[key]
    if key == "experiment":
        return run.experiment
    value = run.flat_config.get(key, ABSENT)
    return "" if value is ABSENT else in_one_line(value)


def in_one_line(value: Any) -> str:
    """A value of a configuration on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _comparable(value: Any) -> str:
    return "absent" if value is ABSENT else f"={in_one_line(value)}"


def _identity(values: Mapping[str, Any]) -> str:
    """Equal for runs that differ in nothing but their seed."""
    return json.dumps({key: value for key, value in values.items() if key != SEED}, default=str, sort_keys=True)


def _label(values: Mapping[str, str], first: RunRecord) -> str:
    if not values:
        return first.experiment or first.name
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())


def _distinguished(settings: list[Setting]) -> list[Setting]:
    """Add the name of a run to labels that occur twice: what the sweep varied does not distinguish these."""
    labels = [setting.label for setting in settings]
    return [
        setting
        if labels.count(setting.label) == 1
        else Setting(label=f"{setting.label} ({setting.runs[0].name})", values=setting.values, runs=setting.runs)
        for setting in settings
    ]
