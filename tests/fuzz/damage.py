"""Seeded damage: what half-written files, other programs and hands make of bytes, text, numbers and nested values."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

Rng = np.random.Generator

NUMBERS: Final = (
    "nan", "NaN", "inf", "-inf", "Infinity", "1e308", "-1e308", "1e-320", "1e999", "0", "-0.0", "-1", "1", "0.5",
    "2147483648", "-2147483649", "9223372036854775808", "1" + "0" * 400, "9" * 5000, "1_000", "1,5", "0x10",
    "\u0661\u0662", "\uff11\uff12", "", " ", "one", "None", "null", "true", "--3", "+4", "1.2.3", "1e", "%", "3;4",
)  # fmt: skip
"""Spellings of numbers, and of what is none."""

VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 0.0, -0.0, 0.5, 96.0, math.nan, math.inf, -math.inf, 1e308, 2**31, 2**63, -(2**63), 10**400,
    "", " ", "0", "1", "nan", "cat", "n/a", "\x00", "é", "\ud800", "x" * 5000, "../..", "a\\b",
    [], [[]], [1], [0, 0, 0, 0], [1, "2", None, {}], [[1.0, 2.0]], [["a"]], {}, {"id": 1}, {"counts": [1], "size": [1, 1]},
)  # fmt: skip
"""Values of a JSON or YAML file in place of one that belongs there."""

LETTERS: Final = ("\x00", "\ufeff", "\r", "\t", "\x0b", "\x85", "\u2028", "é", "车", *"\\/\"'<>&%#,;:=")
_NUMBER: Final = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")


def pick(rng: Rng, options: Sequence[Any]) -> Any:
    """One of `options`, whatever their types."""
    return options[int(rng.integers(len(options)))]


def damaged_bytes(content: bytes, rng: Rng) -> bytes:
    """`content` with one to three spans cut, repeated, overwritten, inserted or exchanged, or bits flipped."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break
        start = int(rng.integers(len(data)))
        end = min(len(data), start + int(rng.integers(1, max(2, len(data) // 4))))
        kind = int(rng.integers(8))
        if kind == 0:
            del data[start:]
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = data[start:end]
        elif kind == 3:
            data[start:end] = bytes(end - start)
        elif kind == 4:
            data[start:end] = rng.bytes(end - start)
        elif kind == 5:
            data[start:start] = rng.bytes(int(rng.integers(1, 20)))
        elif kind == 6:
            for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
                data[place] ^= 1 << int(rng.integers(8))
        else:
            data[:4] = rng.bytes(4)
    return bytes(data)


def damaged_numbers(text: str, rng: Rng) -> str:
    """`text` with one to three of its numbers replaced by other spellings, and what is no number at all."""
    for _ in range(int(rng.integers(1, 4))):
        found = list(_NUMBER.finditer(text))
        if not found:
            break
        number = pick(rng, found)
        text = text[: number.start()] + pick(rng, NUMBERS) + text[number.end() :]
    return text


def damaged_text(text: str, rng: Rng) -> str:
    """`text` with lines or letters lost, repeated, exchanged or inserted, numbers replaced, or other ends of lines."""
    kind = int(rng.integers(8))
    lines = text.split("\n")
    place, other = (int(rng.integers(len(lines))) for _ in range(2))
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[other])
    elif kind == 2:
        lines[place], lines[other] = lines[other], lines[place]
    elif kind == 3:
        return text.replace("\n", pick(rng, ["\r\n", "\r", " ", "\n\n"]))
    elif kind == 4:
        return pick(rng, ["\ufeff", " ", "\n", "#"]) + text
    elif kind == 5:
        at = int(rng.integers(len(text) + 1))
        return text[:at] + pick(rng, LETTERS) * int(rng.integers(1, 4)) + text[at:]
    elif kind == 6:
        return damaged_numbers(text, rng)
    else:
        start = int(rng.integers(len(text) + 1))
        return text[:start] + text[start + int(rng.integers(1, 12)) :]
    return "\n".join(lines)


def damaged_structure(value: Any, rng: Rng) -> Any:
    """A copy of nested lists and dicts with one to three of their values replaced, lost, repeated, renamed or nested."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(value))
        if not places:
            return pick(rng, VALUES)
        holder, key = pick(rng, places)
        kind = int(rng.integers(6))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 2 and isinstance(holder, dict):
            holder[pick(rng, [str(key).upper(), f"{key}s", "", "id", "name"])] = holder.pop(key)
        elif kind == 3:
            holder[key] = [holder[key]]
        elif kind == 4:
            holder[key] = copy.deepcopy(pick(rng, VALUES))
        else:
            other, where = pick(rng, places)
            try:
                holder[key] = copy.deepcopy(other[where])
            except (KeyError, IndexError):
                holder[key] = copy.deepcopy(pick(rng, VALUES))
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) below a value."""
    found: list[tuple[Any, Any]] = []
    below = [value]
    while below:
        holder = below.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            below.append(holder[key])
    return found


def one_of(rng: Rng, *functions: Callable[[], Any]) -> Any:
    """The answer of one of several ways to damage an input."""
    return pick(rng, functions)()
