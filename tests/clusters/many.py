"""A sweep of many short runs on a real scheduler that is disturbed all the while: every result is made, and made once.

    uv run python -m tests.clusters.many slurm|ray [--runs 200]

The sweep is killed twice and begun again by the same command, the controller (Ray: the head with its nodes) is restarted twice, and
one node is drained. Prints what happened, and how many steps were done twice; ends with 1 if a result is missing or a job is left.
"""

from __future__ import annotations

import argparse
import collections
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.clusters.ray import PROGRAM, Ray
from tests.clusters.slurm import Slurm, why_not
from tests.clusters.sweeps import Command, Folder
from tests.engine import processes
from tests.loopback import loopback_only
from tests.sweeps.launchers import counter

STEPS = 10
_PACE = 0.1
_SECONDS = 3600.0
_SETTINGS = {
    "slurm": ("launcher.threads=1", "launcher.poll_seconds=1", "launcher.minutes=10"),
    "ray": ("launcher.threads=1",),
}


class Sweep:
    """The sweep, which is begun anew whenever it has been killed or has ended before all is done."""

    def __init__(self, folder: Folder, launcher: str, runs: int) -> None:
        self.folder = folder
        self.launcher = launcher
        self.runs = runs
        self.began = time.monotonic()
        self.starts = 0
        self.command = self.start()

    def start(self) -> Command:
        self.starts += 1
        more = _SETTINGS[self.launcher]
        if self.launcher == "ray":
            more += (f"launcher.environment={{PYTHONPATH:'{self.folder.environment['PYTHONPATH']}'}}",)
        grid = (f"seed=range({self.runs})", f"steps={STEPS}", f"pace={_PACE}", "save_every=5")
        self.command = self.folder.sweep(*grid, *more, launcher=self.launcher)
        return self.command

    def done(self) -> int:
        return sum(1 for _ in self.folder.path.glob("outputs/counter/*/results.json"))

    def until(self, share: float) -> None:
        """Wait for that share of the results. A sweep that ends before is begun again."""
        while self.done() < share * self.runs:
            if (code := self.command.process.poll()) is not None:
                self.say(f"the sweep ended with {code}: {self.command.output.strip().splitlines()[-1]}")
                if code == 0:
                    return
                self.start()
            assert time.monotonic() - self.began < _SECONDS, self.command.output
            time.sleep(0.2)

    def kill(self) -> None:
        self.command.kill()
        self.say("the sweep was killed")
        self.start()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.0f} s  {self.done():3d} results  {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("launcher", choices=tuple(_SETTINGS))
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    reason = why_not() if options.launcher == "slurm" else "" if PROGRAM.exists() else "the extra ray is not installed"
    if reason:
        print(reason)
        return 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="many-"))) / "work"
        if options.launcher == "slurm":
            return _on_slurm(stack.enter_context(Slurm()), folder, options.runs)
        stack.enter_context(loopback_only())
        return _on_ray(stack.enter_context(Ray()), folder, options.runs)


def _on_slurm(slurm: Slurm, path: Path, runs: int) -> int:
    folder = Folder(path, slurm.environment)
    sweep = Sweep(folder, "slurm", runs)

    def restart() -> None:
        slurm.stop_controller()
        sweep.say("the controller was stopped")
        time.sleep(5)
        slurm.start_controller()
        sweep.say("and is there again")

    def drain() -> None:
        slurm.command("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test")
        sweep.say("the node n1 was drained")

    try:
        _disturb(sweep, restart, drain)
        left = slurm.queue()
        print(f"jobs left in the queue: {len(left)}")
        return max(_judge(sweep), int(bool(left)))
    finally:
        folder.close()


def _on_ray(ray: Ray, path: Path, runs: int) -> int:
    ray.add_node()
    folder = Folder(path, ray.environment)
    sweep = Sweep(folder, "ray", runs)

    def restart() -> None:
        ray.end()
        sweep.say("the head and its nodes were ended")
        ray.start_head()
        ray.add_node()
        sweep.say("and are there again")

    def drain() -> None:
        address, nodes = f"127.0.0.1:{ray.port}", ray.nodes()
        why = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test", "--deadline-remaining-seconds=10")
        words = [str(PROGRAM), "drain-node", f"--address={address}", f"--node-id={nodes[-1]}", *why]
        subprocess.run(words, env=folder.environment, check=True, capture_output=True, timeout=60)
        sweep.say("a node was drained")

    try:
        _disturb(sweep, restart, drain)
        return _judge(sweep)
    finally:
        folder.close()


def _disturb(sweep: Sweep, restart: Callable[[], None], drain: Callable[[], None]) -> None:
    for share, disturbance in ((0.1, sweep.kill), (0.25, restart), (0.4, drain), (0.55, sweep.kill), (0.7, restart)):
        sweep.until(share)
        disturbance()
    sweep.until(1.0)
    code = sweep.command.end(300)
    sweep.say(f"the sweep ended with {code}, after {sweep.starts} starts")


def _judge(sweep: Sweep) -> int:
    """Print what was made, and return 1 where anything is missing."""
    paths = sweep.folder.run_dirs()
    states = collections.Counter(processes.status(path).get("state") for path in paths)
    steps = [counter.steps_done(path) for path in paths if (path / "steps.txt").exists()]
    complete = sum(sorted(set(done)) == list(range(STEPS)) for done in steps)
    again = sum(len(done) - len(set(done)) for done in steps)
    print(f"runs: {dict(states)}; all steps done: {complete} of {sweep.runs}; steps done twice: {again}")
    return int(states != {"done": sweep.runs} or complete != sweep.runs)


if __name__ == "__main__":
    sys.exit(main())
