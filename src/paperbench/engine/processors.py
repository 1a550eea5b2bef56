"""The processor's cores that this process may use. Imports no torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the cores that this process may use, at least 1: under taskset or in a container fewer than the machine has.

    A container's limit of, say, 1.5 processors counts as 2 cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit()
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def _limit() -> float | None:
    """Return the processors that Linux grants the group of this process, or the narrowest group around it; None for no limit."""
    limits = []
    for folder in _folders():
        try:
            limit = _of_version_2(folder) if (folder / "cpu.max").exists() else _of_version_1(folder)
        except (OSError, ValueError):  # no group with a limit, or a file that is not as Linux writes it
            continue
        if limit is not None:
            limits.append(limit)
    return min(limits, default=None)


def _folders() -> list[Path]:
    """Return the folders of the groups around this process. In a container its own group is the root of what it sees."""
    try:
        lines = _OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, colon, group = rest.partition(":")
        if not colon or (controllers and "cpu" not in controllers.split(",")):
            continue
        for base in (_CGROUPS / controllers, _CGROUPS / "cpu") if controllers else (_CGROUPS,):
            own = base / group.lstrip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(base))]
    return list(dict.fromkeys(folders))


def _of_version_2(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    return None if quota == "max" else int(quota) / int(period)


def _of_version_1(folder: Path) -> float | None:
    quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
    return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
