"""Values as annotation files spell them, read strictly: what is no number, no flag or no name is None, never a guess."""

from __future__ import annotations

import math
import re
import unicodedata
from pathlib import Path
from typing import Any, Final

_NUMBER: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf(?:inity)?|nan", re.IGNORECASE
)
_FLAGS: Final = {"0": False, "false": False, "no": False, "": False, "1": True, "true": True, "yes": True}


def number_of(text: str | None) -> float | None:
    """The number that a text spells in ASCII, which may be infinite or NaN; None for anything else, also `1_000`."""
    text = (text or "").strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def flag_of(text: str | None) -> bool | None:
    """A yes or no: 0, 1, true, false, yes, no in any case, and False where nothing is written; None for anything else."""
    return _FLAGS.get((text or "").strip().lower())


def real(value: Any) -> float | None:
    """A number of a JSON file, which may be infinite or NaN; None for anything else, also true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def whole(value: Any) -> int | None:
    """A whole number of a JSON file, also written as 96.0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def flag(value: Any) -> bool | None:
    """A flag of a JSON file: 0, 1, false, true; False for null. None for anything else, also "0" in quotes."""
    if value is None:
        return False
    number = float(value) if isinstance(value, bool) else real(value)
    return bool(number) if number in (0.0, 1.0) else None


def name_of(value: Any) -> str | None:
    """A name of a JSON file without the blanks around it; None for what is no text, is empty, or cannot be written in UTF-8."""
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value.strip()


def class_name(value: Any) -> str | None:
    """A `name_of` a class, its accents composed (NFC): programs and file systems write é as one character or as two.

    None also for control characters, which would break tables and terminals.
    """
    name = name_of(value)
    if name is None or any(unicodedata.category(letter) == "Cc" for letter in name):
        return None
    return unicodedata.normalize("NFC", name)


def shown(value: Any, most: int = 60) -> str:
    """A value of a JSON file for a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[:most]}…"


def as_stored(path: Path) -> Path:
    """The path of a file, or of the one beside it whose accents are encoded otherwise, where only that is there: macOS and its
    archives write é as two characters, lists of names as one."""
    if path.name.isascii() or is_file(path):
        return path
    others = (path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD"))
    return next((other for other in others if is_file(other)), path)


def is_file(path: Path) -> bool:
    """True for a file; False also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
