"""Which runs, and in which order: `paperbench runs --filter … --sort …`. Imports no torch.

A key is a fact of the run (`state`, `seed`, `seconds`, …), a dotted key of its configuration, the name of a section that has
a `name` (`data`, `model`), or a metric of its results. A run that lacks the key fits no filter on it and is sorted last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any

from paperbench.cli.history import STATES, RunInfo
from paperbench.cli.output import scalar
from paperbench.config.difference import ABSENT, flatten
from paperbench.config.suggest import nearest_keys
from paperbench.errors import ConfigError
from paperbench.report.metrics import direction

RESULT = "metric"
"""The key that stands for the first metric of a run's results, whatever its name."""

_FILTER = re.compile(r"\s*(?P<key>[^=<>!]*[^=<>!\s])\s*(?P<operator>>=|<=|!=|==|=|>|<)\s*(?P<value>.*?)\s*", re.DOTALL)
_ORDERING: dict[str, Callable[[Any, Any], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The runs that fit, in order; the keys that were asked about; and in words what was done, empty if nothing was."""

    runs: tuple[RunInfo, ...]
    keys: tuple[str, ...]
    said: str

    def values(self, info: RunInfo) -> dict[str, Any]:
        """The run's values of those keys that it has."""
        return {key: value for key in self.keys if (value := look(info, key)) is not ABSENT}


def select(
    found: Sequence[RunInfo],
    *,
    filters: Sequence[str] = (),
    sort: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
    root: Path,
) -> Selection:
    """The runs of `found` that fit all `filters`, sorted by `sort` (default: as they come), the first `limit` of them.

    Raises `ConfigError` naming every filter that cannot be read and every key that no run below `root` has.
    """
    mistakes: list[str] = []
    if reverse and sort is None:
        mistakes.append("--reverse: turns the order of --sort KEY around, which is not given")
    conditions = [condition for text in filters if (condition := _condition(text, found, root, mistakes))]
    if sort is not None:
        _refuse_unknown(sort, f"--sort {sort}", found, root, mistakes)
    if mistakes:
        raise ConfigError(*mistakes)
    fitting = [info for info in found if all(condition(info) for condition in conditions)]
    words = []
    if sort is not None:
        fitting, order = in_order(fitting, sort, reverse=reverse)
        words.append(f"sorted by {'result' if sort == RESULT else sort}, {order}")
    shown = fitting[:limit]
    if filters or len(shown) < len(fitting):
        words.append(f"{len(shown)} of {len(found)} runs")
    keys = [*([sort] if sort else []), *(condition.key for condition in conditions)]
    return Selection(runs=tuple(shown), keys=tuple(dict.fromkeys(keys)), said="; ".join(words))


# --- keys -------------------------------------------------------------------------------------------------------------


def look(info: RunInfo, key: str) -> Any:
    """The value of a key; `ABSENT` if the run has none."""
    facts = _facts(info)
    if key in facts:
        return ABSENT if facts[key] is None else facts[key]
    if key in info.metrics:
        return info.metrics[key]
    config = dict(flatten(info.config))
    return config.get(key, config.get(f"{key}.name", ABSENT))


def _facts(info: RunInfo) -> dict[str, Any]:
    return {**info.facts(), RESULT: info.value}


def _known(found: Iterable[RunInfo]) -> list[str]:
    names = (name for info in found for name in (*_facts(info), *info.metrics, *dict(flatten(info.config))))
    sections = (
        name for info in found for name, value in info.config.items() if isinstance(value, dict) and "name" in value
    )
    return list(dict.fromkeys([*names, *sections]))


def _refuse_unknown(key: str, given: str, found: Sequence[RunInfo], root: Path, mistakes: list[str]) -> bool:
    known = _known(found)
    if key in known:
        return False
    near = nearest_keys(key, known)
    guess = f". Nearest: {', '.join(near)}" if near else f". Facts: {', '.join(_facts(found[0]))}"
    mistakes.append(f"{given}: no run below {root} has such a key or metric{guess}")
    return True


# --- filters ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """One filter."""

    key: str
    operator: str
    wanted: str

    def __call__(self, info: RunInfo) -> bool:
        value = look(info, self.key)
        if value is ABSENT:
            return False
        if self.operator in ("=", "=="):
            return _same(value, self.wanted)
        if self.operator == "!=":
            return not _same(value, self.wanted)
        if _is_number(value):
            return _ORDERING[self.operator](value, float(self.wanted))
        return isinstance(value, str) and _ORDERING[self.operator](value, self.wanted)


def _condition(text: str, found: Sequence[RunInfo], root: Path, mistakes: list[str]) -> Condition | None:
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
    values = [value for info in found if (value := look(info, condition.key)) is not ABSENT]
    if values and all(map(_is_number, values)) and _number(condition.wanted) is None:
        mistakes.append(f"--filter {text}: {condition.key} is a number, {condition.wanted or 'nothing'} is none")
        return None
    if condition.operator in _ORDERING and _number(condition.wanted) is None and any(map(_is_number, values)):
        mistakes.append(
            f"--filter {text}: {condition.key} is a number in some runs, {condition.wanted or 'nothing'} is none"
        )
        return None
    return condition


def _states(wanted: str) -> list[str]:
    return [state for state in STATES if _same(state, wanted)]


def _same(value: Any, wanted: str) -> bool:
    """Whether a value is the one that was typed: numbers by value, text also by the wildcards * and ?."""
    if _is_number(value):
        return value == _number(wanted)
    if isinstance(value, str):
        return fnmatchcase(value, wanted.replace("[", "[[]")) if set(wanted) & set("*?") else value == wanted
    return scalar(value).replace(" ", "") == wanted.replace(" ", "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# --- order ------------------------------------------------------------------------------------------------------------


def in_order(runs: Sequence[RunInfo], key: str, *, reverse: bool) -> tuple[list[RunInfo], str]:
    """The runs sorted by `key`, those without it last, and the order in words.

    Metrics have their best value first, times of day the latest, everything else the smallest; `reverse` turns that around.
    Results of different metrics cannot be compared: `metric` sorts those of each metric among themselves.
    """
    present = [info for info in runs if look(info, key) is not ABSENT]
    absent = [info for info in runs if look(info, key) is ABSENT]
    if key != RESULT:
        descending = _descending(key, present) != reverse
        ordered = sorted(present, key=lambda info: _sortable(look(info, key)), reverse=descending)
        return [*ordered, *absent], _order_in_words(key, present, descending=descending)
    ordered = []
    words = []
    for name in sorted({info.metric for info in present}):
        descending = (direction(name) != "lower") != reverse
        group = (info for info in present if info.metric == name)
        ordered += sorted(group, key=lambda info: info.value or 0.0, reverse=descending)
        words.append(f"{name} {'highest' if descending else 'lowest'} first")
    return [*ordered, *absent], ", ".join(words) or "of which there are none yet"


def _descending(key: str, present: Sequence[RunInfo]) -> bool:
    """Whether the largest comes first without `--reverse`."""
    if key in ("updated", "best"):
        return True
    return any(key in info.metrics for info in present) and direction(key) != "lower"


def _order_in_words(key: str, present: Sequence[RunInfo], *, descending: bool) -> str:
    if key == "updated":
        return "newest first" if descending else "oldest first"
    if all(_is_number(look(info, key)) for info in present):
        return "highest first" if descending else "lowest first"
    return "from z to a" if descending else "from a to z"


def _sortable(value: Any) -> tuple[bool, float, str]:
    """Numbers before text."""
    return (False, value, "") if _is_number(value) else (True, 0.0, value if isinstance(value, str) else scalar(value))
