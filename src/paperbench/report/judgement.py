"""A run's numbers beside the published ones, judged against the shipped configuration that makes each, whoever shows it.

`train`, `report` and `reproduce` all judge a number through here, so that it has one verdict. The user's own `./conf` takes no part
in a reference: a file there that shadows a shipped one changes the run, and is a deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from paperbench.config.former import modernised
from paperbench.config.paths import installed_confs
from paperbench.config.validate import dump, load_file, schema_of, task_named, validate
from paperbench.errors import ConfigError, DataError
from paperbench.report.layout import Cell, Layout, merged, names, read
from paperbench.report.published import Place, Published, matching
from paperbench.report.verdict import Conditions, Verdict, compare, judge, worded

PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A metric of a run, `value`, beside the published number."""

    published: Published
    value: float
    conditions: Conditions
    verdict: Verdict

    @property
    def text(self) -> str:
        """The verdict with the seeds and choices that travel with it."""
        return worded(self.verdict, seeds=1, published_seeds=self.published.seeds, choices=len(self.conditions.choices))


class Reference(NamedTuple):
    """The cell of a shipped layout that stands for a published number, with its layout."""

    layout: Layout
    cell: Cell


def judge_run(
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    *,
    precision: str | None = None,
    departures: Sequence[str] = (),
) -> dict[str, Judged]:
    """Return the judgement of each metric of a run that has a published counterpart under the run's conditions.

    `config` is the run's resolved configuration, `precision` the type it computed in, `departures` what the files of its data set
    had other than the published ones. Raises `DataError` when a file of published numbers is faulty.
    """
    judged = {}
    read = Conditions(data=tuple(departures))
    for number in matching(config):
        value = metrics.get(number.metric or "")
        if value is None or number.metric is None:
            continue
        conditions = conditions_of_run(number, config, precision=precision) | read
        judged[number.metric] = Judged(
            published=number, value=value, conditions=conditions, verdict=judge(number, value, conditions)
        )
    return judged


def reference(number: Published, scale: str, *, layout: str = "") -> Reference | None:
    """Return the shipped cell for `number` at `scale`, that of the layout of this name if it has one; None where there is none."""
    found = [item for item in _shipped(number.paper) if scale in item.scales]
    for item in sorted(found, key=lambda item: item.name != layout):
        cell = _cells(item.name, scale).get(number.place)
        if cell is not None:
            return Reference(item, cell)
    return None


def shipped_config(cell: Cell, overrides: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return the resolved configuration of a cell, composed without the user's folder. Raises `ConfigError` where it cannot be."""
    return _composed(cell.experiment, merged(cell.overrides, overrides))


def conditions_of_run(number: Published, config: Mapping[str, Any], *, precision: str | None = None) -> Conditions:
    """Return the conditions of a run at the paper's scale, whose `config.yaml` is `config`, beside those of `number`.

    An evaluation is judged with the training of its checkpoint.
    """
    whole = _with_training(config)
    if whole is None:
        return compare(number, config, precision=precision) | Conditions(
            settings=("how its checkpoint was trained is not known here",)
        )
    found = reference(number, PAPER)
    if found is None:
        return compare(number, whole, precision=precision) | Conditions(
            settings=("no shipped table makes this number, so that its settings could not be checked",)
        )
    layout, cell = found
    try:
        shipped = shipped_config(cell)
    except (ConfigError, DataError) as error:
        return compare(number, whole, precision=precision) | Conditions(
            settings=(f"the shipped configuration could not be composed, so that nothing was compared: {error}",)
        )
    return compare(
        number,
        whole,
        when=layout.when,
        declared=cell.deviations,
        shipped=shipped,
        left_to_user=layout.entry.left_to_user,
        precision=precision,
    )


def _with_training(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the configuration of a training; of an evaluation, that of its checkpoint's with the evaluation's values over it."""
    checkpoint = config.get("checkpoint")
    if not checkpoint:
        return _complete(config)
    from paperbench.records.launch import run_of  # with Hydra, which is loaded only where there is something to compare

    try:
        _, _, trained = load_file(run_of(str(checkpoint)) / "config.yaml")
    except (ConfigError, DataError):
        return None
    return _over(trained, {key: value for key, value in config.items() if key not in ("checkpoint", "task")})


def _complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration with today's names and every key; as it is where this version cannot read it."""
    try:
        task = task_named(config.get("task"))
        return dump(validate(task, modernised(schema_of(task), config)))
    except ConfigError:
        return config


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        before = result.get(key)
        result[key] = _over(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return result


# --- what comes with the program --------------------------------------------------------------------------------------


@cache
def _shipped(paper: str) -> tuple[Layout, ...]:
    """Return the readable layouts of a paper; a fault in one is said where it is made."""
    found = []
    for name, file in names(installed_confs()).items():
        try:
            layout = read(name, file) if name.startswith(f"{paper}/") else None
        except ConfigError:
            continue
        if layout is not None and layout.paper == paper:
            found.append(layout)
    return tuple(found)


@cache
def _cells(name: str, scale: str) -> Mapping[Place, Cell]:
    layout = read(name, names(installed_confs())[name])
    return {cell.published.place: cell for cell in layout.cells(scale) if cell.published is not None}


@cache
def _composed(experiment: str, overrides: tuple[str, ...]) -> Mapping[str, Any]:
    # Loads Hydra, which a report of runs without published numbers does not need.
    from paperbench.config.compose import compose

    return compose(experiment, overrides, installed_only=True).resolved
