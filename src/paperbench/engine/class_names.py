"""The names of the classes that a run's net was trained on, in a file of the run: a folder of classes may change after it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from paperbench.engine.files import write_json
from paperbench.engine.run import Run
from paperbench.errors import CheckpointError, DataError

FILE = "classes.json"


def record_classes(run: Run, classes: Sequence[str]) -> None:
    """Write the names on the first process. Raises DataError where the run began with other ones."""
    before = read_classes(run.directory.path)
    if before is not None and before != tuple(classes):
        changed = sorted(set(before) ^ set(classes)) or list(classes)
        raise DataError(
            f"{run.directory.path}: the classes of the data have changed since the run began ({', '.join(changed[:8])}); put them "
            "back, or start a new run"
        )
    if before is None and run.ranks.is_main:
        write_json(run.directory.path / FILE, list(classes))


def read_classes(run_dir: Path) -> tuple[str, ...] | None:
    """Return the names; None for a run that has recorded none. Raises CheckpointError for a damaged file."""
    path = run_dir / FILE
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: holds no list of names")
    return tuple(names)
