"""The verdict on a measured value beside the published one, and the conditions of its run held against the published ones.

Three kinds of statement are kept apart. A *deviation*: the paper says one thing and the run did another. A *choice*: the paper does
not say, and what was taken is named. A *remark* is about what is printed. Only deviations take the word reproduction away: on other
data, at another scale or by another schedule (how long, with which batches and rates is trained) a number is *not comparable*,
whatever it is; with other settings the verdict says so. Choices travel with the verdict.

Deviations are computed, not declared alone: the conditions of the published number are compared with the resolved configuration,
and so is every key of the shipped configuration that makes the number, whether or not a condition names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Literal

from paperbench.config.difference import ABSENT, difference
from paperbench.config.explain import look_up, show
from paperbench.config.validate import incidental
from paperbench.report import published as papers
from paperbench.report.layoutfile import DeviationEntry
from paperbench.report.published import Published, equal, holds
from paperbench.report.published_form import ChoiceForm

Kind = Literal["data", "schedule", "settings"]
"""What a deviation is about."""


class Verdict(StrEnum):
    """The text stands in tables and in `reproduction.json`."""

    WITHIN = "within tolerance"
    BETTER = "outside tolerance, better"
    WORSE = "outside tolerance, worse"
    OUTSIDE = "outside tolerance"
    NO_TOLERANCE = "no tolerance stated"
    WITHIN_OTHER_SETTINGS = "within tolerance, other settings"
    OUTSIDE_OTHER_SETTINGS = "outside tolerance, other settings"
    NO_TOLERANCE_OTHER_SETTINGS = "no tolerance stated, other settings"
    NOT_COMPARABLE = "not comparable"
    NOT_PUBLISHED = "not published"
    MISSING = "missing"

    @property
    def of_reproduction(self) -> bool:
        """True where the run meets every condition of the published number."""
        return self in _REPRODUCTIONS


_REPRODUCTIONS = frozenset({Verdict.WITHIN, Verdict.BETTER, Verdict.WORSE, Verdict.OUTSIDE, Verdict.NO_TOLERANCE})


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of a run beside those of a published number, in sentences.

    `data`, `scale` (or schedule) and `settings` are the deviations by kind; all empty where the run meets every condition.
    """

    data: tuple[str, ...] = ()
    scale: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def deviations(self) -> tuple[str, ...]:
        return (*self.data, *self.scale, *self.settings)

    @property
    def departs(self) -> str:
        """The kinds of deviations, `other data, other scale`."""
        scale = "other scale" if any(text.startswith("scale=") for text in self.scale) else "other schedule"
        kinds = (("other data", self.data), (scale, self.scale), ("other settings", self.settings))
        return ", ".join(name for name, sentences in kinds if sentences)

    def __or__(self, other: Conditions) -> Conditions:
        """Return both, each sentence once."""
        return Conditions(
            **{
                item.name: tuple(dict.fromkeys((*getattr(self, item.name), *getattr(other, item.name))))
                for item in fields(self)
            }
        )


def judge(published: Published | None, measured: float | None, conditions: Conditions) -> Verdict:
    """Return the verdict on `measured`, which is in the unit of `published` and None where it is missing."""
    if measured is None:
        return Verdict.MISSING
    if published is None:
        return Verdict.NOT_PUBLISHED
    if conditions.data or conditions.scale:
        return Verdict.NOT_COMPARABLE
    agrees = published.agrees(measured)
    if conditions.settings:
        return {
            True: Verdict.WITHIN_OTHER_SETTINGS,
            False: Verdict.OUTSIDE_OTHER_SETTINGS,
            None: Verdict.NO_TOLERANCE_OTHER_SETTINGS,
        }[agrees]
    if agrees is None:
        return Verdict.NO_TOLERANCE
    if agrees:
        return Verdict.WITHIN
    if published.direction == "same":
        return Verdict.OUTSIDE
    return Verdict.BETTER if (measured > published.value) == (published.direction == "higher") else Verdict.WORSE


def worded(verdict: Verdict | str, *, seeds: int, published_seeds: int | None, choices: int) -> str:
    """Return the verdict with what travels with it: `within tolerance, 1 of the paper's 3 seeds, with 3 choices`.

    Only a verdict about the paper's conditions carries it; of another number it would say nothing.
    """
    text = str(verdict)
    if verdict not in _REPRODUCTIONS:
        return text
    if published_seeds is not None and seeds < published_seeds:
        text += f", {seeds} of the paper's {published_seeds} seeds"
    if choices:
        text += f", with {choices} choice{'' if choices == 1 else 's'}"
    return text


def sentences(conditions: Conditions) -> Iterator[str]:
    """Yield everything that is said of a number, in the order in which it weighs: deviations, choices, remarks."""
    yield from conditions.deviations
    yield from (f"choice: {text}" for text in conditions.choices)
    yield from conditions.remarks


# --- conditions -------------------------------------------------------------------------------------------------------


def compare(
    number: Published | None,
    config: Mapping[str, Any],
    *,
    when: Mapping[str, Any] | None = None,
    declared: Iterable[DeviationEntry] = (),
    shipped: Mapping[str, Any] | None = None,
    left_to_user: Iterable[str] = (),
    samples: int | None = None,
    precision: str | None = None,
) -> Conditions:
    """Return the conditions of a run with the resolved configuration `config` beside those of `number`.

    `when` are conditions besides the number's own; `declared` the deviations that the layout's file states in words; `shipped` the
    configuration that makes the number as it comes with the program: what differs from it is a deviation, except in the keys of
    `left_to_user`. `samples` is the number of training samples after which the metric is read: the run's place on the number's
    axis. `precision` is the type that the run computed in, where it is known.
    """
    said = papers.statements(number.paper) if number is not None else papers.PaperStatements()
    data = [item.text for item in declared if item.kind == "data" and not unmet(item.when, config)]
    settings = [item.text for item in declared if item.kind == "settings" and not unmet(item.when, config)]
    settings += [item.text for item in said.deviations if not unmet(item.when, config)]
    schedule: list[str] = []
    kinds: dict[Kind, list[str]] = {"data": data, "schedule": schedule, "settings": settings}
    wanted = {**(when or {}), **(number.when if number is not None else {})}
    judged = {*wanted, *left_to_user}
    if number is not None and number.axis is not None:
        place = samples if samples is not None else look_up(config, number.axis.key)
        if place is not None and not equal(number.x, place):
            settings.append(_instead(number.axis.name, place, number.x))
        if look_up(config, "optim.schedule") == "constant":
            # The length of a run moves no point that it has passed, unless the rate follows the length.
            judged.add(number.axis.key)
    if number is not None and not wanted:
        settings.append("the conditions of the published number are not stated, so nothing could be checked")
    missed = unmet(wanted, config)
    for key, expected in missed.items():
        if key == "scale" or ("data.name" in missed and key.startswith("data.") and key != "data.name"):
            continue  # stated once: the scale below, other data by their name
        kinds[kind_of(key)].append(_instead(key, look_up(config, key, ABSENT), expected))
    for key, text in _changes(shipped, config, judged) if shipped is not None else ():
        if not (key.startswith("data.") and "data.name" in missed):
            kinds[kind_of(key)].append(text)
    if number is not None and number.deviation:
        settings.append(number.deviation)
    scale = look_up(config, "scale")
    if scale not in (None, "paper"):
        schedule.insert(0, f"scale={scale} instead of the published schedule")
    return Conditions(
        data=tuple(dict.fromkeys(data)),
        scale=tuple(dict.fromkeys(schedule)),
        settings=tuple(dict.fromkeys(settings)),
        choices=tuple(_choices(said.choices, config, precision)),
        remarks=(number.remark,) if number is not None and number.remark else (),
    )


def unmet(when: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions that do not hold, each with its expected value."""
    return {key: value for key, value in when.items() if not holds(value, config, key)}


def _choices(stated: Iterable[ChoiceForm], config: Mapping[str, Any], precision: str | None) -> Iterator[str]:
    for choice in stated:
        if not unmet(choice.when, config):
            moves = f"; {choice.moves}" if choice.moves else ""
            yield f"{choice.text} ({choice.reason}{moves})"
    used = precision_choice(precision or look_up(config, "precision"))
    if used:
        yield used


def precision_choice(precision: str | None) -> str:
    """Return the choice of a type to compute in as a sentence; empty for float32, in which the papers' libraries computed."""
    if precision in (None, "float32"):
        return ""
    return f"precision={precision} (the paper names no type; its libraries computed in float32)"


def kind_of(key: str) -> Kind:
    """Return what a key is about: the data, how long and at which rates is trained (its schedule), or anything else."""
    parts = key.split(".")
    if parts[0] == "data":
        return "data"
    trains = parts[0] == "train" or (parts[0] in _TRAININGS and parts[-1] in _LENGTHS)
    return "schedule" if trains or "optim" in parts else "settings"


_TRAININGS = ("teaching", "specialists")
"""Sections of further trainings of a run."""
_LENGTHS = ("samples", "batch_size", "steps", "epochs")


def _changes(shipped: Mapping[str, Any], config: Mapping[str, Any], judged: Collection[str]) -> list[tuple[str, str]]:
    """Return what differs from the shipped configuration by key, but for keys that conditions judge and those that change no
    number."""
    return [
        (key, f"{_instead(key, after, before)}, as shipped")
        for key, before, after in difference(shipped, config)
        if key not in judged and not incidental(key)
    ]


def _instead(key: str, actual: Any, expected: Any) -> str:
    found = "absent" if actual is ABSENT else show(actual)
    return f"{key} {found} instead of {'none' if expected is ABSENT else show(expected)}"
