"""Where the job of a run is while it waits for a cluster, or runs there: `.job.json` in the run's directory.

The sweep that watches the job keeps it up to date and removes it when the job has ended. If the sweep is killed, it says what was
last seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from paperbench.engine.files import replace_file

FILE = ".job.json"

QUEUED, REQUEUED = "queued", "requeued"
PlaceState = Literal["queued", "running", "requeued"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A job that has not ended, as its scheduler sees it.

    `queued`: it waits for its turn; `requeued`: it has run already and waits again; `running`: a node works on it.
    """

    state: PlaceState
    job: str = ""
    """The scheduler's name of the job: `1234_5`."""
    node: str = ""
    """The machine that runs it."""
    reason: str = ""
    """Why it waits, in the scheduler's own word (`Resources`, `JobHeldUser`) or in ours."""

    def describe(self) -> str:
        """Return `job 1234_5, JobHeldUser` or `job 1234_5 on node7`."""
        parts = (f"job {self.job}" if self.job else "", f"on {self.node}" if self.node else "")
        return ", ".join(part for part in (" ".join(part for part in parts if part), self.reason) if part)


def write_place(directory: Path, place: Place | None) -> None:
    """Write where the job is, or remove the file for None. Never fails: the run does not need it."""
    file = directory / FILE
    with suppress(OSError):
        if place is None:
            file.unlink(missing_ok=True)
            return
        temporary = file.with_name(f"{FILE}.tmp")
        temporary.write_text(json.dumps(asdict(place)), encoding="utf-8")
        replace_file(temporary, file)


def read_place(directory: Path) -> Place | None:
    """Read where the job was last seen; None where there is none."""
    try:
        content: Any = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, Mapping) or content.get("state") not in ("queued", "running", "requeued"):
        return None
    job, node, reason = (str(content.get(key) or "") for key in ("job", "node", "reason"))
    return Place(state=content["state"], job=job, node=node, reason=reason)
