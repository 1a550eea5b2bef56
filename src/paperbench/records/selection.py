"""Finding, filtering and sorting runs. Imports no torch.

A key is a fact of the run (`state`, `seed`, `seconds`, …), a dotted key of its configuration, the name of a section that has
a `name` (`data`, `model`), or a metric of its results. A run that lacks the key fits no filter on it and is sorted last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

from paperbench.catalog import TASKS
from paperbench.config.difference import ABSENT, flatten
from paperbench.config.explain import show
from paperbench.config.former import todays_key
from paperbench.config.suggest import nearest_keys
from paperbench.config.validate import schema_of
from paperbench.errors import ConfigError
from paperbench.records.metrics import metrics_of
from paperbench.records.record import STATES, RunRecord, is_number, read_run

RESULT = "metric"
"""The key that stands for the first metric of a run's results, whatever its name."""

_DEPTH = 4
_FILTER = re.compile(r"\s*(?P<key>[^=<>!]*[^=<>!\s])\s*(?P<operator>>=|<=|!=|==|=|>|<)\s*(?P<value>.*?)\s*", re.DOTALL)
_ORDERING: dict[str, Callable[[Any, Any], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt}

# --- finding ----------------------------------------------------------------------------------------------------------


def find_runs(root: Path) -> list[RunRecord]:
    """Read all runs below `root`, the most recently active first; a folder without a readable configuration is none."""
    found = [run for folder in _folders(root, _DEPTH) if (run := read_run(folder)).config]
    return sorted(found, key=lambda run: (run.updated, str(run.directory)), reverse=True)


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders with both files that every run has. Runs do not hold runs, so a run's own folders are not searched."""
    if (root / "config.yaml").is_file() and (root / "status.json").is_file():
        yield root
        return
    if depth == 0:
        return
    try:
        children = sorted(child for child in root.iterdir() if child.is_dir() and not child.is_symlink())
    except OSError:
        return
    for child in children:
        yield from _folders(child, depth - 1)


# --- selecting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The runs that fit, in order; the keys that were asked about; and a summary in words, empty if nothing was selected."""

    runs: tuple[RunRecord, ...]
    keys: tuple[str, ...]
    summary: str

    def values(self, run: RunRecord) -> dict[str, Any]:
        """The run's values of those keys that it has."""
        return {key: value for key in self.keys if (value := value_of(run, key)) is not ABSENT}


def select(
    found: Sequence[RunRecord],
    *,
    filters: Sequence[str] = (),
    sort: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
    root: Path,
) -> Selection:
    """Select the runs of `found` that fit all `filters`, sorted by `sort` (default: as they come), the first `limit` of them.

    Raises `ConfigError` naming every filter that cannot be read and every key that no run below `root` has.
    """
    mistakes: list[str] = []
    if reverse and sort is None:
        mistakes.append("--reverse: reverses the order of --sort KEY, which is not given")
    conditions = [condition for text in filters if (condition := _condition(text, found, root, mistakes))]
    if sort is not None:
        _refuse_unknown(sort, f"--sort {sort}", found, root, mistakes)
    if mistakes:
        raise ConfigError(*mistakes)
    fitting = [run for run in found if all(condition(run) for condition in conditions)]
    words = []
    if sort is not None:
        fitting, order = in_order(fitting, sort, reverse=reverse)
        words.append(f"sorted by {'result' if sort == RESULT else sort}, {order}")
    shown = fitting[:limit]
    if filters or len(shown) < len(fitting):
        words.append(f"{len(shown)} of {len(found)} runs")
    keys = [*([sort] if sort else []), *(condition.key for condition in conditions)]
    return Selection(runs=tuple(shown), keys=tuple(dict.fromkeys(keys)), summary="; ".join(words))


# --- keys -------------------------------------------------------------------------------------------------------------


def value_of(run: RunRecord, key: str) -> Any:
    """The value of a key; `ABSENT` if the run has none."""
    facts = _facts(run)
    if key in facts:
        return ABSENT if facts[key] is None else facts[key]
    if key in run.metrics:
        return run.metrics[key]
    config = dict(flatten(run.config))
    return config.get(key, config.get(f"{key}.name", ABSENT))


def _facts(run: RunRecord) -> dict[str, Any]:
    facts = run.facts()
    return {**facts, RESULT: facts["value"]}


def _known(found: Iterable[RunRecord]) -> list[str]:
    names = (name for run in found for name in (*_facts(run), *run.metrics, *dict(flatten(run.config))))
    sections = (
        name for run in found for name, value in run.config.items() if isinstance(value, dict) and "name" in value
    )
    return list(dict.fromkeys([*names, *sections]))


def _refuse_unknown(key: str, given: str, found: Sequence[RunRecord], root: Path, mistakes: list[str]) -> bool:
    known = _known(found)
    if key in known:
        return False
    todays = next((name for run in found if (name := _todays_name(run, key)) is not None), None)
    near = nearest_keys(key, known)
    guess = (
        f"; it is called {todays} now"
        if todays
        else f". Nearest: {', '.join(near)}"
        if near
        else f". Facts: {', '.join(_facts(found[0]))}"
    )
    mistakes.append(f"{given}: no run below {root} has such a key or metric{guess}")
    return True


def _todays_name(run: RunRecord, key: str) -> str | None:
    """Return what a key of an earlier version is called now, by the task of a run."""
    task = TASKS.get(run.task)
    return todays_key(schema_of(task), run.config, key) if task is not None else None


# --- filters ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """One filter."""

    key: str
    operator: str
    wanted: str

    def __call__(self, run: RunRecord) -> bool:
        value = value_of(run, self.key)
        if value is ABSENT:
            return False
        if self.operator in ("=", "=="):
            return _equals(value, self.wanted)
        if self.operator == "!=":
            return not _equals(value, self.wanted)
        if is_number(value):
            return _ORDERING[self.operator](value, float(self.wanted))
        return isinstance(value, str) and _ORDERING[self.operator](value, self.wanted)


def _condition(text: str, found: Sequence[RunRecord], root: Path, mistakes: list[str]) -> Condition | None:
    match = _FILTER.fullmatch(text)
    if match is None:
        mistakes.append(f"--filter {text}: give KEY=VALUE, or != < <= > >= in place of =, such as 'coco/AP50>=80'")
        return None
    condition = Condition(match["key"], match["operator"], match["value"])
    if _refuse_unknown(condition.key, f"--filter {text}", found, root, mistakes):
        return None
    if condition.key == "state" and condition.operator in ("=", "==", "!=") and not _states(condition.wanted):
        mistakes.append(f"--filter {text}: no run can be in that state. States: {', '.join(STATES)}")
        return None
    values = [value for run in found if (value := value_of(run, condition.key)) is not ABSENT]
    if values and all(map(is_number, values)) and _number(condition.wanted) is None:
        mistakes.append(f"--filter {text}: {condition.key} is a number, {condition.wanted or 'nothing'} is none")
        return None
    if condition.operator in _ORDERING and _number(condition.wanted) is None and any(map(is_number, values)):
        mistakes.append(
            f"--filter {text}: {condition.key} is a number in some runs, {condition.wanted or 'nothing'} is none"
        )
        return None
    return condition


def _states(wanted: str) -> list[str]:
    return [state for state in STATES if _equals(state, wanted)]


def _equals(value: Any, wanted: str) -> bool:
    """Compare a value with the one that was typed: numbers by value, text also by the wildcards * and ?."""
    if is_number(value):
        return value == _number(wanted)
    if isinstance(value, str):
        return fnmatchcase(value, wanted.replace("[", "[[]")) if set(wanted) & set("*?") else value == wanted
    return show(value).replace(" ", "") == wanted.replace(" ", "")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# --- order ------------------------------------------------------------------------------------------------------------


def in_order(runs: Sequence[RunRecord], key: str, *, reverse: bool) -> tuple[list[RunRecord], str]:
    """Sort the runs by `key`, those without it last; returns them and the order in words.

    Metrics have their best value first, as their package declares it, times of day the latest, everything else the smallest;
    `reverse` turns that around. Results of different metrics cannot be compared: `metric` sorts those of each metric among
    themselves.
    """
    present = [run for run in runs if value_of(run, key) is not ABSENT]
    absent = [run for run in runs if value_of(run, key) is ABSENT]
    if key != RESULT:
        descending = _descending(key, present) != reverse
        ordered = sorted(present, key=lambda run: _sortable(value_of(run, key)), reverse=descending)
        return [*ordered, *absent], _order_in_words(key, present, descending=descending)
    ordered = []
    words = []
    for name in sorted({run.headline[0] for run in present}):
        group = [run for run in present if run.headline[0] == name]
        descending = _best_is_highest(name, group) != reverse
        ordered += sorted(group, key=lambda run: run.headline[1] or 0.0, reverse=descending)
        words.append(f"{name} {'highest' if descending else 'lowest'} first")
    return [*ordered, *absent], ", ".join(words) or "of which there are none yet"


def _descending(key: str, present: Sequence[RunRecord]) -> bool:
    """True if the largest comes first without `--reverse`."""
    if key in ("updated", "best"):
        return True
    having = [run for run in present if key in run.metrics]
    return bool(having) and _best_is_highest(key, having)


def _best_is_highest(metric: str, runs: Sequence[RunRecord]) -> bool:
    """True unless low values of the metric are better: a quantity without a direction has its largest values first."""
    return metrics_of(runs[0].task).direction(metric) != "lower"


def _order_in_words(key: str, present: Sequence[RunRecord], *, descending: bool) -> str:
    if key == "updated":
        return "newest first" if descending else "oldest first"
    if all(is_number(value_of(run, key)) for run in present):
        return "highest first" if descending else "lowest first"
    return "from z to a" if descending else "from a to z"


def _sortable(value: Any) -> tuple[bool, float, str]:
    """Numbers before text."""
    return (False, value, "") if is_number(value) else (True, 0.0, value if isinstance(value, str) else show(value))
