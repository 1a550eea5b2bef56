"""The word that stands beside a number: what a measured value says about the published one.

Three families, and no word is shared between them. Only a run that meets every condition of the published number is *within*
or *outside its tolerance*. One that keeps to data and scale and departs otherwise *deviates*, near or apart. On other data
or at another scale a number is *not comparable*, whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from paperbench.report.published import Published


class Verdict(StrEnum):
    """The text is what tables print and `reproduction.json` holds."""

    WITHIN = "within tolerance"
    BETTER = "outside tolerance, better"
    WORSE = "outside tolerance, worse"
    OUTSIDE = "outside tolerance"
    NO_TOLERANCE = "no tolerance stated"
    DEVIATES_NEAR = "deviates, near"
    DEVIATES_APART = "deviates, apart"
    DEVIATES = "deviates"
    NOT_COMPARABLE = "not comparable"
    NOT_PUBLISHED = "not published"
    MISSING = "missing"

    @property
    def of_reproduction(self) -> bool:
        """Whether the number was made as the published one was."""
        return self in _REPRODUCTIONS


_REPRODUCTIONS = frozenset({Verdict.WITHIN, Verdict.BETTER, Verdict.WORSE, Verdict.OUTSIDE, Verdict.NO_TOLERANCE})


@dataclass(frozen=True, kw_only=True)
class Departures:
    """How a run departs from what a published number asks for, in sentences; all empty: not at all."""

    data: tuple[str, ...] = ()
    scale: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        return (*self.data, *self.scale, *self.settings)

    @property
    def names(self) -> str:
        """`other data, other scale`: what fits beside a verdict."""
        kinds = (("other data", self.data), ("other scale", self.scale), ("other settings", self.settings))
        return ", ".join(name for name, sentences in kinds if sentences)

    def __or__(self, other: Departures) -> Departures:
        """Both, each sentence once."""
        return Departures(
            data=tuple(dict.fromkeys((*self.data, *other.data))),
            scale=tuple(dict.fromkeys((*self.scale, *other.scale))),
            settings=tuple(dict.fromkeys((*self.settings, *other.settings))),
        )


def judge(published: Published | None, measured: float | None, departures: Departures) -> Verdict:
    """The verdict on `measured`, in the unit of `published`; None is a number that is missing."""
    if measured is None:
        return Verdict.MISSING
    if published is None:
        return Verdict.NOT_PUBLISHED
    if departures.data or departures.scale:
        return Verdict.NOT_COMPARABLE
    agrees = published.agrees(measured)
    if departures.settings:
        return {True: Verdict.DEVIATES_NEAR, False: Verdict.DEVIATES_APART, None: Verdict.DEVIATES}[agrees]
    if agrees is None:
        return Verdict.NO_TOLERANCE
    if agrees:
        return Verdict.WITHIN
    if published.direction == "same":
        return Verdict.OUTSIDE
    return Verdict.BETTER if (measured > published.value) == (published.direction == "higher") else Verdict.WORSE
