"""Many damaged inputs of a target, and what became of each."""

from __future__ import annotations

import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paperbench.errors import PaperbenchError
from tests.fuzz.damage import Rng

Read = Callable[[Rng, Path], None]
"""A target: it makes a damaged input in an empty folder from the generator, reads it as the program does, and looks at what was
read with `assert`. It raises `PaperbenchError` for input that is refused."""

SECONDS = 20
"""Time that one input may take."""


@dataclass
class Outcome:
    """What became of the inputs of one target. `failures`: (seed, what happened) of each that is a defect."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)


class HangError(Exception):
    """An input that took too long."""


def fuzz(read: Read, folder: Path, *, count: int, seed: int = 0) -> Outcome:
    """Give `read` so many damaged inputs, number k with a generator of (seed, k), each in a folder of its own that is emptied."""
    outcome = Outcome()
    for number in range(seed, seed + count):
        outcome.inputs += 1
        place = folder / "input"
        place.mkdir()
        try:
            with _limited():
                read(np.random.default_rng(number), place)
            outcome.read += 1
        except PaperbenchError as error:
            outcome.refused += 1
            fault = _unsayable(str(error))
            if fault:
                outcome.failures.append((number, fault))
        except BaseException as error:  # whatever a reader lets through is a defect, `SystemExit` too
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome.failures.append((number, "".join(traceback.format_exception(error)[-4:])))
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return outcome


def _unsayable(message: str) -> str:
    """Return what is wrong with a message: it must say something, be short enough to be read, and be printable."""
    try:
        message.encode()
    except UnicodeEncodeError:
        return f"a message that cannot be printed: {message!r}"
    return "" if 10 < len(message) < 20_000 else f"a message of {len(message)} letters: {message[:200]!r}"


@contextmanager
def _limited() -> Iterator[None]:
    if not hasattr(signal, "SIGALRM"):  # Windows: the run itself has a limit
        yield
        return

    def stop(*_: Any) -> None:
        raise HangError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Inputs by target: read, refused, failed."""
    lines = ["target            inputs   read  refused  failed"]
    for name, outcome in outcomes.items():
        lines.append(f"{name:16} {outcome.inputs:7} {outcome.read:6} {outcome.refused:8} {len(outcome.failures):7}")
    return "\n".join(lines)
