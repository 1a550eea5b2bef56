"""How a run ended. No torch here: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """`status` is `done` or `stopped`; a run that failed raises instead. `exit_code` is what the program leaves with."""

    directory: Path
    results: dict[str, Any] | None
    """The content of results.json; None for a run that was stopped."""
    status: str
    exit_code: int
    message: str = ""
