"""Numbers with their nouns, as messages have them."""

from __future__ import annotations

import re
from typing import Final

_NOUN: Final = re.compile(r"\b\w+s\b")
_VERB: Final = re.compile(r"\b(that|which) (are|have)\b")
_SINGULAR: Final = {"are": "is", "have": "has"}


def counted(count: int, nouns: str) -> str:
    """Return `1 image`, `0 images` or `1,200 images that are turned`.

    nouns: what is counted in the plural, the first word that ends in s being the noun; a clause behind it follows its number.
    """
    return f"{count:,} {_of_one(nouns) if count == 1 else nouns}"


def _of_one(nouns: str) -> str:
    head = _NOUN.sub(lambda found: _singular(found[0]), nouns, count=1)
    return _VERB.sub(lambda found: f"{found[1]} {_SINGULAR[found[2]]}", head)


def _singular(noun: str) -> str:
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    return noun[:-2] if noun.endswith(("sses", "xes", "ches")) else noun[:-1]
