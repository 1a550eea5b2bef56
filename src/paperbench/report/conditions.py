"""How a run departs from what a published number asks for: found in its configuration, and declared in words.

Nothing is taken on trust. The conditions of the published number are held against the resolved configuration, and so is what
the user changed on the command line, whether or not a condition speaks of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from paperbench.config.difference import ABSENT, difference
from paperbench.config.explain import look_up, show
from paperbench.config.validate import incidental
from paperbench.report.layoutfile import DeviationEntry
from paperbench.report.published import Published, equal
from paperbench.report.verdict import Departures


def departures(
    number: Published | None,
    config: Mapping[str, Any],
    *,
    when: Mapping[str, Any] | None = None,
    declared: Iterable[DeviationEntry] = (),
    asked: Mapping[str, Any] | None = None,
    left_to_user: Iterable[str] = (),
    samples: int | None = None,
) -> Departures:
    """What keeps a run with this resolved configuration from being a reproduction of `number`.

    `when` are conditions besides the number's own; `declared` what a file says in words; `asked` the configuration as the file
    alone would have it, so that what the user changed is seen, but for the keys of `left_to_user`. `samples`: the number is
    read when so many training samples had been seen, which then is the run's place on the number's axis.
    """
    data: list[str] = []
    settings = [item.text for item in declared if not unmet(item.when, config)]
    wanted = {**(when or {}), **(number.when if number is not None else {})}
    if number is not None and number.axis is not None:
        place = samples if samples is not None else look_up(config, number.axis.key)
        if place is not None and not equal(number.x, place):
            settings.append(_instead(number.axis.name, place, number.x))
    if number is not None and not wanted:
        settings.append("what the published number asks of a run is not stated, so nothing could be checked")
    other_data = "data.name" in unmet(wanted, config)
    for key, expected in unmet(wanted, config).items():
        if key == "scale" or (other_data and key.startswith("data.") and key != "data.name"):
            continue  # said once for all: the scale below, other data by their name
        (data if key.startswith("data.") else settings).append(_instead(key, look_up(config, key, ABSENT), expected))
    if asked is not None:
        settings += _changed(asked, config, spoken_of={*wanted, *left_to_user})
    if number is not None and number.note:
        settings.append(number.note)
    scale = look_up(config, "scale")
    return Departures(
        data=tuple(data),
        scale=() if scale in (None, "paper") else (f"scale={scale} instead of the published schedule",),
        settings=tuple(dict.fromkeys(settings)),
    )


def unmet(when: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions that do not hold, with the value that each asks for."""
    return {key: value for key, value in when.items() if not equal(value, look_up(config, key, ABSENT))}


def _changed(asked: Mapping[str, Any], config: Mapping[str, Any], spoken_of: Collection[str]) -> list[str]:
    """What the command line made different, without what conditions judge and what changes no number."""
    return [
        f"{_instead(key, after, before)} (asked for on the command line)"
        for key, before, after in difference(asked, config)
        if key not in spoken_of and not incidental(key)
    ]


def _instead(key: str, actual: Any, expected: Any) -> str:
    said = "absent" if actual is ABSENT else show(actual)
    return f"{key} {said} instead of {'none' if expected is ABSENT else show(expected)}"
