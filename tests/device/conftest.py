"""The compiled guard and the rehearsals that the tests of this folder read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.device import guard

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guard, compiled; skips where no device can be pretended."""
    reason = guard.why_not()
    if reason is not None:
        pytest.skip(f"no device can be pretended: {reason}")
    target = tmp_path_factory.mktemp("guard") / "guard.so"
    guard.build(target)
    return target


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def child() -> Callable[..., str]:
    """Runs a module of this folder and returns what it prints."""

    def run(module: str, *arguments: str) -> str:
        command = [sys.executable, "-m", f"tests.device.{module}", *arguments]
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


class Rehearsals:
    """Commands on a pretended device of one kind, all begun by one process; each is run once."""

    def __init__(self, kind: str, library: Path, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self._log = (folder / "server.log").open("w+", encoding="utf-8")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.device.rehearse", kind, str(library), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
            text=True,
            cwd=folder,  # what earlier runs left in `outputs` of another folder would be taken over, and trained by none of these
        )
        self._done: dict[str, dict[str, Any]] = {}

    def run(self, name: str, *words: str) -> dict[str, Any]:
        """Return the record of `paperbench WORDS` (record.py) and what it printed, under `log`."""
        return self._ask(name, *words, f"device={self.kind}", "--debug", "--run-dir", str(self.folder / "runs" / name))

    def stacked(self, name: str, experiment: str, *overrides: str) -> dict[str, Any]:
        """Return the same of the runs of a sweep of two seeds with `--smoke --stacked`, trained as one."""
        folder = str(self.folder / "runs" / name)
        return self._ask(name, "stacked", experiment, folder, *overrides, f"device={self.kind}", "scale=smoke")

    def _ask(self, name: str, *arguments: str) -> dict[str, Any]:
        if name not in self._done:
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.write(json.dumps([name, arguments]) + "\n")
            self._server.stdin.flush()
            answer = self._server.stdout.readline()
            assert answer.strip() == name, (self.folder / "server.log").read_text(encoding="utf-8")
            record = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            self._done[name] = {**record, "log": log}
        return self._done[name]

    def close(self) -> None:
        """End the process."""
        with self._server:
            assert self._server.stdin is not None
            self._server.stdin.close()
        self._log.close()


@pytest.fixture(scope="module")
def on_cuda(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsals]:
    """Rehearsals on a pretended CUDA device."""
    with closing(Rehearsals("cuda", library, tmp_path_factory.mktemp("cuda"))) as rehearsals:
        yield rehearsals


@pytest.fixture(scope="module")
def on_mps(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsals]:
    """Rehearsals on a pretended Apple GPU, which has no float64."""
    with closing(Rehearsals("mps", library, tmp_path_factory.mktemp("mps"))) as rehearsals:
        yield rehearsals
