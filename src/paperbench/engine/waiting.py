"""The way in which OpenMP's threads wait for each other. Imports no torch: once torch is loaded, the choice is made."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

POLICY = "OMP_WAIT_POLICY"
_SAME_CHOICE = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_STATISTICS = Path("/proc/stat")
_READINGS = 3
_SECONDS_BETWEEN = 0.005


def let_threads_yield(environment: MutableMapping[str, str] = os.environ, statistics: Path = _STATISTICS) -> bool:
    """Have OpenMP's threads sleep at barriers if other processes keep this machine's cores busy. Return whether they will.

    By default a thread that waits keeps its core. That is the fastest where each thread has a core of its own. Where it has none, a
    thread spins on the core that the last one needs, and training takes several times as long. What the user has set is left alone.
    Neither choice changes a number. Has no effect where the system does not count its running processes (`/proc/stat`).
    """
    if not any(name in environment for name in _SAME_CHOICE) and _is_busy(statistics):
        environment[POLICY] = "PASSIVE"
    return is_passive(environment)


def is_passive(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether waiting threads sleep, as far as the environment says."""
    return environment.get(POLICY, "").lower() == "passive"


def _is_busy(statistics: Path) -> bool:
    """Several readings: a process that wakes up for a moment is no competitor."""
    for reading in range(_READINGS):
        if reading:
            time.sleep(_SECONDS_BETWEEN)
        if _running(statistics) < 2:  # one is this process
            return False
    return True


def _running(statistics: Path) -> int:
    try:
        for row in statistics.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, count = row.partition(" ")
            if name == "procs_running" and count.strip().isdecimal():
                return int(count)
    except OSError:
        pass
    return 0
