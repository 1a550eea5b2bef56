"""Text between quotes: a shell's, and those of Hydra's grammar. Imports nothing of either."""

from __future__ import annotations

import os
import re
import shlex
import sys

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./~-]*")
"""Text that Hydra's grammar reads as itself, whatever stands around it."""
_SAFE_ON_WINDOWS = re.compile(r"[A-Za-z0-9_.:/\\=+-]+")
_WORDS = frozenset({"null", "none", "true", "false", "nan", "inf"})


def quoted(*words: str | os.PathLike[str]) -> str:
    """Return words of a command, such as overrides, as one pastes them into a shell. A path is never read as an option.

    On Windows the quotes are double, which both cmd and PowerShell read.
    """
    if sys.platform == "win32":
        return " ".join(map(_windows_word, map(_word, words)))
    return shlex.join(map(_word, words))


def _windows_word(word: str) -> str:
    """Return one word in double quotes where it needs any; the escapes are those by which a program takes its line apart."""
    if _SAFE_ON_WINDOWS.fullmatch(word):
        return word
    inner = re.sub(r'(\\*)"', r'\1\1\\"', word)
    trailing = len(inner) - len(inner.rstrip("\\"))
    return '"' + inner + "\\" * trailing + '"'


def _word(word: str | os.PathLike[str]) -> str:
    text = os.fspath(word)
    return f"./{text}" if not isinstance(word, str) and text.startswith(("-", "~")) else text


def is_plain(value: str) -> bool:
    """Return True for text that needs no quotes behind `KEY=`."""
    return bool(_PLAIN.fullmatch(value)) and value.lower() not in _WORDS


def hydra_text(value: str) -> str:
    """Return text as it is typed behind `KEY=`, in quotes unless it plainly needs none."""
    return value if is_plain(value) else in_quotes(value, "'")


def in_quotes(value: str, quote: str) -> str:
    """Return text between Hydra's quotes `quote`, those in it escaped."""
    # Hydra's grammar: backslashes count only in front of a quote, or of another backslash in front of one.
    escaped = re.sub(rf"(\\*){quote}", lambda found: found[1] * 2 + "\\" + quote, value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return quote + escaped + "\\" * trailing + quote
