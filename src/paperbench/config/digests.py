"""What the files hold that a configuration names, where results depend on it: keys marked `CONTENT_COUNTS`.

Two files at the same path are told apart, and so are the runs that read them. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from paperbench.config.explain import look_up
from paperbench.config.fields import walk
from paperbench.config.marks import ContentCounts, mark
from paperbench.errors import ConfigError

MOST_BYTES: Final = 256 * 2**20
"""Of a file that is read; a larger one is known by its path alone."""
_MANIFEST = "manifest.json"
_BEST_FIRST = ("best.pt", "last.pt", "previous.pt")


def digests_of(schema: type, mapping: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 by dotted key, of the keys whose content counts. `mapping` has its paths settled (`paths.settle_paths`).

    A key is left out where nothing of that name exists, for the task to complain about, and where a file is larger than
    `MOST_BYTES`.
    """
    found: dict[str, str] = {}
    for key, known in walk(schema, mapping):
        if mark(known.annotation, ContentCounts) is None:
            continue
        value = look_up(mapping, key)
        places = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        wanted = [place for place in places if isinstance(place, str) and place]
        parts = [part for place in wanted if (part := digest(Path(place))) is not None]
        if parts and len(parts) == len(wanted):
            found[key] = parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()
    return found


def check(schema: type, mapping: Mapping[str, Any], where: Path) -> None:
    """Raises `ConfigError` if a file that the configuration in `where` names holds something else than when it was composed."""
    recorded = mapping.get("digests") or {}
    now = digests_of(schema, mapping) if recorded else {}
    changed = [key for key, text in recorded.items() if now.get(key) not in (None, text)]
    if changed:
        raise ConfigError(
            *(
                f"{key}: {look_up(mapping, key)} has changed since the run began ({where}); put the old file back, or start a "
                "new run"
                for key in changed
            )
        )


def changed_since_training(trained: Mapping[str, Any], where: Path | None, evaluation: Mapping[str, Any]) -> list[str]:
    """Name the files that an evaluation takes over from the run trained with the configuration in `where`, and that have changed.

    A key that an override sets to another file is the evaluation's own.
    """
    recorded, now = trained.get("digests") or {}, evaluation.get("digests") or {}
    return [
        f"{key}: {look_up(evaluation, key)} has changed since the run was trained"
        + (f" ({where})" if where else "")
        + f"; put the old file back, or name another one with {key}="
        for key, text in recorded.items()
        if now.get(key) not in (None, text) and look_up(evaluation, key) == look_up(trained, key)
    ]


def digest(path: Path) -> str | None:
    """Of a file, or of the checkpoints of a run, which their manifests know; None for what is absent or too large."""
    try:
        state = path.stat()
        if path.is_dir():
            return _of_checkpoints(path)
        return _of_file(path, state.st_mtime_ns, state.st_size) if state.st_size <= MOST_BYTES else None
    except OSError:
        return None


@lru_cache(maxsize=256)
def _of_file(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_checkpoints(folder: Path) -> str | None:
    """Of the best checkpoint of each stage, by the hashes in the manifests of a run, or of a folder of its checkpoints."""
    manifests = sorted({*folder.glob(_MANIFEST), *folder.glob(f"checkpoints/**/{_MANIFEST}")})
    known = {manifest.parent.relative_to(folder).as_posix(): _best(manifest) for manifest in manifests}
    if not known or None in known.values():
        return None
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _best(manifest: Path) -> str | None:
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return next((str(files[name][-1]["sha256"]) for name in _BEST_FIRST if files.get(name)), None)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
