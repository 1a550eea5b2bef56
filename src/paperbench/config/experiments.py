"""What each experiment file says about itself. Reads YAML and comments, composes nothing: listings are quick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paperbench.config.paths import installed_confs, options

HEADER = ("about", "paper", "command", "expected", "time")
"""What the comment at the head of every experiment file says, in this order."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One file of `conf/experiment`. `task` is empty if neither it nor the experiments it builds on name one."""

    name: str
    task: str
    file: Path
    shipped: bool
    about: str = ""
    paper: str = ""
    command: str = ""
    expected: str = ""
    time: str = ""


def list_experiments(folders: Sequence[Path]) -> list[Experiment]:
    """All experiments that can be named, the user's own shadowing shipped ones."""
    files = options("experiment", folders)
    installed = installed_confs()
    return [
        Experiment(
            name=name,
            task=_task(name, files),
            file=file,
            shipped=any(file.is_relative_to(folder) for folder in installed),
            **read_header(file),
        )
        for name, file in files.items()
    ]


def read_header(file: Path) -> dict[str, str]:
    """The entries of the comment at the head of a file; an entry goes on over indented comment lines."""
    entries: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in _text(file).splitlines():
        if not line.startswith("#"):
            break
        body = line[1:].strip()
        name, colon, rest = body.partition(":")
        if colon and name in HEADER:
            current = entries.setdefault(name, [])
            current.append(rest.strip())
        elif current is not None and body:
            current.append(body)
    return {name: "\n".join(lines) for name, lines in entries.items()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _load(file: Path) -> Mapping[str, Any]:
    try:
        value = yaml.safe_load(_text(file))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _task(name: str, files: Mapping[str, Path], depth: int = 0) -> str:
    """The task, found in the file itself or in an experiment among its `defaults`."""
    content = _load(files[name])
    if isinstance(task := content.get("task"), str):
        return task
    for entry in content.get("defaults") or () if depth < 8 else ():
        parent = entry.removeprefix("/experiment/") if isinstance(entry, str) else ""
        if parent in files and (task := _task(parent, files, depth + 1)):
            return task
    return ""
