"""What a run's net was trained on, in a file of the run: a folder of pictures may change after it, or before it is resumed.

`classes.json` holds the names of the classes in their order and, where the data are a folder, a digest of its list of files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paperbench.engine.files import write_json
from paperbench.engine.run import Run
from paperbench.errors import CheckpointError, DataError

FILE = "classes.json"


def record_classes(run: Run, classes: Sequence[str], *, listing: str = "") -> None:
    """Write names and digest on the first process. Raises DataError where the run began with other ones."""
    content = {"classes": list(classes), "listing": listing}
    before = _read(run.directory.path)
    remedy = "put them back, or start a new run"
    if before is not None and before["classes"] != content["classes"]:
        changed = sorted(set(before["classes"]) ^ set(classes)) or list(classes)
        raise DataError(
            f"{run.directory.path}: the classes of the data have changed since the run began ({', '.join(changed[:8])}); {remedy}"
        )
    if before is not None and before["listing"] != listing:
        raise DataError(f"{run.directory.path}: the files of the data have changed since the run began; {remedy}")
    if before is None and run.ranks.is_main:
        write_json(run.directory.path / FILE, content)


def read_classes(run_dir: Path) -> tuple[str, ...] | None:
    """Return the names; None for a run that has recorded none. Raises CheckpointError for a damaged file."""
    content = _read(run_dir)
    return None if content is None else tuple(content["classes"])


def _read(run_dir: Path) -> dict[str, Any] | None:
    path = run_dir / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"classes": [str(name) for name in content["classes"]], "listing": str(content["listing"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error!r}") from error
