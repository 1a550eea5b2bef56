"""Which runs belong together: those that differ in nothing but their seed. And what tells the others apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paperbench.config.difference import ABSENT
from paperbench.report.comparison import environment_facts
from paperbench.runs.record import RunRecord

SEED = "seed"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Runs that differ in their seed alone. `values` are what tells the setting apart, `label` the same in one line."""

    label: str
    values: Mapping[str, str]
    runs: tuple[RunRecord, ...]

    @property
    def done(self) -> list[RunRecord]:
        return [run for run in self.runs if run.done]


def settings_of(runs: Sequence[RunRecord]) -> list[Setting]:
    """The settings of several runs, in the order of their first."""
    keys = [key for key in varied(runs) if key != SEED]
    # A run that has not started has no configuration yet: what the sweep says of it tells where it belongs.
    by_labels = {_identity(run.labels): _identity(run.flat_config) for run in runs if run.config and run.labels}
    together: dict[str, list[RunRecord]] = {}
    for run in runs:
        identity = (
            _identity(run.flat_config) if run.config else by_labels.get(_identity(run.labels), _identity(run.labels))
        )
        together.setdefault(identity, []).append(run)
    found = []
    for members in together.values():
        values = {key: value_of(members[0], key) for key in keys}
        found.append(Setting(label=_label(values, members[0]), values=values, runs=tuple(members)))
    return _told_apart(found)


def varied(runs: Sequence[RunRecord]) -> list[str]:
    """The keys that a sweep varied; where no sweep says so, those whose values differ between the runs."""
    labelled = list(dict.fromkeys(key for run in runs for key in run.labels))
    keys = labelled or differing_keys(runs)
    several = [key for key in keys if len({value_of(run, key) for run in runs}) > 1]
    if len({run.experiment for run in runs if run.experiment}) > 1 and "experiment" not in several:
        several.insert(0, "experiment")
    return several


def differing_keys(runs: Sequence[RunRecord]) -> list[str]:
    """Dotted keys of the configurations whose values are not the same in all runs that have one."""
    configs = [run.flat_config for run in runs if run.config]
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({_comparable(config.get(key, ABSENT)) for config in configs}) > 1]


def value_of(run: RunRecord, key: str) -> str:
    """The value of a key as it was typed, else as the configuration has it; empty where there is none."""
    if key in run.labels:
        return run.labels[key]
    if key == "experiment":
        return run.experiment
    value = run.flat_config.get(key, ABSENT)
    return "" if value is ABSENT else shown(value)


def shown(value: Any) -> str:
    """A value of a configuration on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def environment(run: RunRecord) -> dict[str, str]:
    """Facts of `env.json`, readable: `environment_facts` with host and platform."""
    facts = environment_facts(run.environment, run.results)
    return {
        **{
            key: str(run.environment[key])
            for key in ("host", "platform", "cores")
            if run.environment.get(key) is not None
        },
        **facts,
    }


def shared_and_differing(
    facts: Sequence[Mapping[str, str]],
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Facts that all of several mappings have in common; and of the others, how often each value occurs."""
    shared: dict[str, str] = {}
    differing: dict[str, dict[str, int]] = {}
    for key in dict.fromkeys(key for mapping in facts for key in mapping):
        counts: dict[str, int] = {}
        for mapping in facts:
            value = mapping.get(key, "")
            counts[value] = counts.get(value, 0) + 1
        if len(counts) == 1:
            shared[key] = next(iter(counts))
        else:
            differing[key] = counts
    return shared, differing


def _comparable(value: Any) -> str:
    return "absent" if value is ABSENT else f"={shown(value)}"


def _identity(values: Mapping[str, Any]) -> str:
    """Equal for runs that differ in nothing but their seed."""
    return json.dumps({key: value for key, value in values.items() if key != SEED}, default=str, sort_keys=True)


def _label(values: Mapping[str, str], first: RunRecord) -> str:
    if not values:
        return first.experiment or first.name
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())


def _told_apart(settings: list[Setting]) -> list[Setting]:
    """Labels that occur twice get the name of a run: what the sweep was told to vary does not tell these apart."""
    labels = [setting.label for setting in settings]
    return [
        setting
        if labels.count(setting.label) == 1
        else Setting(label=f"{setting.label} ({setting.runs[0].name})", values=setting.values, runs=setting.runs)
        for setting in settings
    ]
