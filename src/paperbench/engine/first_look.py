"""The pictures of a run that its report opens with, the most urgent one first, each with a line of text.

`figures/first-look.json` lists them, as paths relative to the run. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from paperbench.engine.files import write_json

FILE = "figures/first-look.json"


@dataclass(frozen=True, kw_only=True)
class Look:
    """picture: relative to the run's folder. caption: a line of text."""

    picture: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """title: heading of the part of the report."""

    title: str
    looks: tuple[Look, ...] = ()


def write_first_look(run_dir: Path, title: str, looks: Sequence[Look]) -> None:
    """Write the list of a run."""
    write_json(run_dir / FILE, asdict(FirstLook(title=title, looks=tuple(looks))))


def read_first_look(run_dir: Path) -> FirstLook | None:
    """Return the list of a run; None where there is none, or a damaged one: a report is made of what can be read."""
    try:
        content = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        looks = tuple(Look(picture=str(look["picture"]), caption=str(look["caption"])) for look in content["looks"])
        return FirstLook(title=str(content["title"]), looks=looks)
    except (OSError, ValueError, KeyError, TypeError):
        return None
