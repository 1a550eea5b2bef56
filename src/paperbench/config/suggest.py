"""The nearest names to one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_ENOUGH = 0.6


def _likeness(word: str, candidate: str) -> float:
    """Between 0 and 1. One being the start of the other counts for much: `vgg` means `vgg16`."""
    word, candidate = word.lower(), candidate.lower()
    ratio = SequenceMatcher(None, word, candidate).ratio()
    if word and candidate and (candidate.startswith(word) or word.startswith(candidate)):
        ratio = max(ratio, 0.75)
    return ratio


def nearest(word: str, candidates: Iterable[str], *, count: int = 3) -> list[str]:
    """Up to `count` of `candidates`, best first; empty if none is near enough to be what was meant."""
    scored = [(_likeness(word, candidate), candidate) for candidate in candidates]
    good = sorted((-score, candidate) for score, candidate in scored if score >= _ENOUGH)
    return [candidate for _, candidate in good[:count]]


def nearest_keys(path: str, candidates: Iterable[str], *, count: int = 3) -> list[str]:
    """Like `nearest`, for dotted keys: a slip in the last name, the right name in the wrong section, a slip in both."""
    section, _, name = path.rpartition(".")

    def score(candidate: str) -> float:
        other_section, _, other_name = candidate.rpartition(".")
        likeness = _likeness(name, other_name)
        if other_section == section:
            return likeness
        if other_name == name:
            # Nearer sections first: `modl.rpn.sigma` means `model.rpn.sigma` before `model.head.sigma`.
            return 0.7 + 0.3 * SequenceMatcher(None, section, other_section).ratio()
        both = likeness * SequenceMatcher(None, section, other_section).ratio()
        return both if section else 0.8 * likeness

    good = sorted((-score(candidate), candidate) for candidate in candidates if score(candidate) >= _ENOUGH)
    return [candidate for _, candidate in good[:count]]
