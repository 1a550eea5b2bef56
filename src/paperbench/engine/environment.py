"""The environment of a run: versions, machine, and the state of the source that it was started from. Imports no torch."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from paperbench import __version__

_PACKAGES = ("torch", "torchvision", "numpy", "pycocotools", "pillow", "hydra-core", "pydantic")
_LONGEST_DIFF = 1 << 20

ENV_ARGV = "PAPERBENCH_ARGV"
"""Holds, as JSON, the command that the user typed, for the workers of a run."""


def describe_environment(
    *,
    device: str,
    threads: int,
    world: int,
    gpu: Mapping[str, Any] | None = None,
    numerics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of env.json, for a process about to work on `device` as one of `world`.

    gpu: its name and the versions of what drives it, None without one. numerics: torch's switches for the types computed in.
    """
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "paperbench": __version__,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "processes": world,
        "device": device,
        **({"gpu": dict(gpu)} if gpu else {}),
        **({"numerics": dict(numerics)} if numerics else {}),
        "argv": json.loads(os.environ.get(ENV_ARGV, "null")) or list(sys.argv),
        "directory": str(Path.cwd()),
        "git": git_state(Path.cwd()),
    }


def cpu_name() -> str:
    """The processor's model, as its manufacturer calls it, where the system says."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_state(directory: Path) -> dict[str, str] | None:
    """Commit and uncommitted changes of the checkout around `directory`; None where there is none, or no git.

    A diff of more than a mebibyte is cut.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit.strip(), "diff": (_git(directory, "diff", "HEAD") or "")[:_LONGEST_DIFF]}


def _git(directory: Path, *arguments: str) -> str | None:
    command: Sequence[str] = ("git", "--no-optional-locks", "-C", str(directory), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
