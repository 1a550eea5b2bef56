"""The verdict on a measured value beside the published one, and the departures of its run from the published conditions.

Only a run that meets every condition of the published number is *within* or *outside its tolerance*. The same words with
*other settings* stand beside a run on the same data at the paper's scale that departs otherwise. On other data or at another
scale a number is *not comparable*, whatever it is.

Departures are computed, not declared alone: the conditions of the published number are compared with the resolved
configuration, and so is every key that the user changed on the command line, whether or not a condition names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from paperbench.config.difference import ABSENT, difference
from paperbench.config.explain import look_up, show
from paperbench.config.validate import incidental
from paperbench.report.layoutfile import DeviationEntry
from paperbench.report.published import Published, equal


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
class Departures:
    """The departures of a run from the conditions of a published number, in sentences; all empty where it has none."""

    data: tuple[str, ...] = ()
    scale: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        return (*self.data, *self.scale, *self.settings)

    @property
    def names(self) -> str:
        """Their kinds, `other data, other scale`."""
        kinds = (("other data", self.data), ("other scale", self.scale), ("other settings", self.settings))
        return ", ".join(name for name, sentences in kinds if sentences)

    def __or__(self, other: Departures) -> Departures:
        """Return both, each sentence once."""
        return Departures(
            data=tuple(dict.fromkeys((*self.data, *other.data))),
            scale=tuple(dict.fromkeys((*self.scale, *other.scale))),
            settings=tuple(dict.fromkeys((*self.settings, *other.settings))),
        )


def judge(published: Published | None, measured: float | None, departures: Departures) -> Verdict:
    """Return the verdict on `measured`, which is in the unit of `published` and None where it is missing."""
    if measured is None:
        return Verdict.MISSING
    if published is None:
        return Verdict.NOT_PUBLISHED
    if departures.data or departures.scale:
        return Verdict.NOT_COMPARABLE
    agrees = published.agrees(measured)
    if departures.settings:
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


# --- departures -------------------------------------------------------------------------------------------------------


def find_departures(
    number: Published | None,
    config: Mapping[str, Any],
    *,
    when: Mapping[str, Any] | None = None,
    declared: Iterable[DeviationEntry] = (),
    asked: Mapping[str, Any] | None = None,
    left_to_user: Iterable[str] = (),
    samples: int | None = None,
) -> Departures:
    """Return the departures of a run with the resolved configuration `config` from the conditions of `number`.

    `when` are conditions besides the number's own; `declared` the deviations that the layout's file states in words; `asked` the
    configuration of that file alone, by which the user's changes are found, except in the keys of `left_to_user`. `samples` is
    the number of training samples after which the metric is read: the run's place on the number's axis.
    """
    data: list[str] = []
    settings = [item.text for item in declared if not unmet(item.when, config)]
    wanted = {**(when or {}), **(number.when if number is not None else {})}
    if number is not None and number.axis is not None:
        place = samples if samples is not None else look_up(config, number.axis.key)
        if place is not None and not equal(number.x, place):
            settings.append(_instead(number.axis.name, place, number.x))
    if number is not None and not wanted:
        settings.append("the conditions of the published number are not stated, so nothing could be checked")
    other_data = "data.name" in unmet(wanted, config)
    for key, expected in unmet(wanted, config).items():
        if key == "scale" or (other_data and key.startswith("data.") and key != "data.name"):
            continue  # stated once: the scale below, other data by their name
        (data if key.startswith("data.") else settings).append(_instead(key, look_up(config, key, ABSENT), expected))
    if asked is not None:
        settings += _user_changes(asked, config, judged={*wanted, *left_to_user})
    if number is not None and number.note:
        settings.append(number.note)
    scale = look_up(config, "scale")
    return Departures(
        data=tuple(data),
        scale=() if scale in (None, "paper") else (f"scale={scale} instead of the published schedule",),
        settings=tuple(dict.fromkeys(settings)),
    )


def unmet(when: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions that do not hold, each with its expected value."""
    return {key: value for key, value in when.items() if not equal(value, look_up(config, key, ABSENT))}


def _user_changes(asked: Mapping[str, Any], config: Mapping[str, Any], judged: Collection[str]) -> list[str]:
    """Return the changes of the command line, without the keys that conditions judge and those that change no number."""
    return [
        f"{_instead(key, after, before)} (set on the command line)"
        for key, before, after in difference(asked, config)
        if key not in judged and not incidental(key)
    ]


def _instead(key: str, actual: Any, expected: Any) -> str:
    found = "absent" if actual is ABSENT else show(actual)
    return f"{key} {found} instead of {'none' if expected is ABSENT else show(expected)}"
