"""Orders of a sweep to a job that works elsewhere: a file on the file system that all machines share.

A signal from the scheduler could mean anything, and can be lost; the file stands until somebody has read it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from paperbench.sweeps.launchers.base import Job

STOP, KILL = "stop", "kill"
"""Contents of the file: save and end, or end at once."""


def order_file(folder: Path, job: Job) -> Path:
    """Return the file in `folder` for the job: the same for every sweep that has these runs."""
    name = hashlib.sha256("\0".join(map(str, job.directories)).encode()).hexdigest()[:16]
    return folder / f"{name}.order"


def read_order(file: Path) -> str:
    """Return the order that was given, or the empty string."""
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
