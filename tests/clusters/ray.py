"""A Ray of one machine: a head of two CPUs, and further nodes, in a network namespace that has nothing but the loopback."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROGRAM = Path(sys.executable).parent / "ray"
_NODE = ("--num-gpus=0", "--object-store-memory=100000000", "--disable-usage-stats")
_LIST = """
import ray
ray.init(address="auto", log_to_driver=False, logging_level="error")
alive = [node for node in ray.nodes() if node["Alive"]]
print(*(node["NodeID"] for node in sorted(alive, key=lambda node: "node:__internal_head__" not in node["Resources"])))
"""


class Ray:
    """Started by entering it, inside `tests.loopback.loopback_only`, and ended by leaving it."""

    def __init__(self) -> None:
        self.run = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets lie there, whose paths must be short
        # Ray refuses one that any head on this machine has, in whatever network namespace.
        self.port = random.randint(20_000, 30_000)
        self.environment = {
            "RAY_TMPDIR": str(self.run),
            "RAY_memory_monitor_refresh_ms": "0",
        }

    def __enter__(self) -> Ray:
        self.start_head()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        shutil.rmtree(self.run, ignore_errors=True)

    def end(self) -> None:
        """End the head, its nodes and what they run."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids(""):
                with suppress(OSError):
                    os.kill(pid, number)
            time.sleep(0.5)

    def start_head(self) -> None:
        self._start("--head", f"--port={self.port}", "--include-dashboard=false", "--num-cpus=2")

    def add_node(self, *, cpus: int = 2) -> None:
        """Start one more node, in another working directory than everything else."""
        self._start("--address=auto", f"--num-cpus={cpus}")

    def nodes(self) -> list[str]:
        """The ids of the nodes that are alive, the head first."""
        listing = subprocess.run(
            [sys.executable, "-c", _LIST], env={**os.environ, **self.environment},
            check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip
        return listing.split()

    def pids(self, name: str) -> list[int]:
        """The processes of this cluster whose command line has `name`."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self.run) in command and name in command and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
        return sorted(found)

    def kill(self, name: str) -> None:
        """SIGKILL to the newest such process."""
        os.kill(self.pids(name)[-1], signal.SIGKILL)

    def _start(self, *arguments: str) -> None:
        elsewhere = self.run / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        subprocess.run(
            [str(PROGRAM), "start", *_NODE, *arguments],
            cwd=elsewhere,
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
            timeout=120,
        )


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
