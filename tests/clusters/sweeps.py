"""A sweep of the counter as somebody types it: the program in a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters.slurm import Slurm
from tests.engine import toy
from tests.sweeps.launchers import counter

SMALL = ("launcher.threads=1", "launcher.poll_seconds=0.5", "launcher.minutes=10")
"""What a sweep of the counter asks of Slurm."""


class Folder:
    """A folder with the experiment `counter`, in which commands are given."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        file = path / "conf" / "experiment" / "counter.yaml"
        file.parent.mkdir(parents=True)
        values = {key: value for key, value in counter.config().items() if key not in ("experiment", "seed")}
        file.write_text("# @package _global_\n" + yaml.safe_dump(values), encoding="utf-8")
        self.commands: list[Command] = []
        self.gate = path / "gate"
        """The runs that were given it (`gate=…`) do not end before it is there."""
        self.environment = {**os.environ, **toy.site(path / "site", counter.SPEC), **environment}

    def start(self, *arguments: str) -> Command:
        """Begin `paperbench ARGUMENTS --conf-dir …`."""
        self.commands.append(Command(self, arguments))
        return self.commands[-1]

    def close(self) -> None:
        """End what a failed test left."""
        for command in self.commands:
            if command.process.poll() is None:
                command.kill()

    def run(self, *arguments: str, seconds: float = 240) -> tuple[int, str]:
        """The exit code and all output of a command."""
        command = self.start(*arguments)
        return command.end(seconds), command.output

    def sweep(self, *arguments: str, launcher: str = "slurm") -> Command:
        return self.start("sweep", "counter", *arguments, "--launcher", launcher, "--conf-dir", "conf")

    def runs(self) -> list[dict[str, Any]]:
        """What `paperbench runs --json` says."""
        output = subprocess.run(
            [sys.executable, "-m", "paperbench", "runs", "--json"],
            cwd=self.path, env=self.environment, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        return json.loads(output)

    def run_dirs(self) -> list[Path]:
        return sorted(file.parent for file in (self.path / "outputs" / "counter").glob("*/config.yaml"))

    def steps(self) -> dict[str, list[int]]:
        """The steps that each run did, in order, by its hash."""
        return {path.name: counter.steps_done(path) for path in self.run_dirs() if (path / "steps.txt").exists()}

    def events(self) -> list[dict[str, Any]]:
        lines = [file.read_text().splitlines() for file in self.path.glob("outputs/counter/sweeps/*/events.jsonl")]
        return [json.loads(line) for text in lines for line in text]

    def launcher_files(self) -> list[str]:
        return sorted(file.name for file in self.path.glob("outputs/counter/sweeps/*/launcher/*"))


class Command:
    """A command that runs."""

    def __init__(self, folder: Folder, arguments: tuple[str, ...]) -> None:
        self._log = folder.path / f"command-{time.monotonic_ns()}.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "paperbench", *arguments],
                cwd=folder.path, env=folder.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def until(self, condition: Callable[[], object], seconds: float = 200) -> None:
        """Waits until it holds, while the command runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.poll()}: {self.output}"
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, seconds: float = 240) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end within {seconds:.0f} s: {self.output}") from None


@contextmanager
def on_slurm(slurm: Slurm, path: Path) -> Iterator[Folder]:
    """A folder below `path` whose sweeps go to `slurm`, which is empty again at the end."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    folder = Folder(path / "work", slurm.environment)
    yield folder
    folder.close()
    slurm.clear()


def start_on_ray(folder: Folder, *arguments: str) -> Command:
    """Begin a sweep of the counter, which Ray's workers do not know by themselves."""
    known = f"launcher.environment={{PYTHONPATH:'{folder.environment['PYTHONPATH']}'}}"
    return folder.sweep(*arguments, "launcher.threads=1", known, launcher="ray")


def states(folder: Folder) -> list[str]:
    return sorted(str(run["state"]) for run in folder.runs())
