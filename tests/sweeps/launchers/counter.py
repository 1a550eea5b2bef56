"""A task that counts: it saves, stops and continues like training, without the seconds that an optimizer takes to import.

`fault` is `kill@STEP` (SIGKILL, once) or `fail@STEP` (an error). Each step that was done is a line of `steps.txt`, so that one
that is done twice, or not at all, shows.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperbench.catalog import TaskSpec
from paperbench.config.schema import NonNegativeFloat, PositiveInt, RunConfig
from paperbench.errors import TrainingError

if TYPE_CHECKING:  # a sweep, which only plans, then loads no torch: four seconds less for each
    from paperbench.engine.run import Run

SPEC = TaskSpec(
    name="counter",
    verb="train",
    summary="counts",
    schema="tests.sweeps.launchers.counter:CounterConfig",
    module="tests.sweeps.launchers.counter",
)


@dataclass(kw_only=True)
class CounterConfig(RunConfig):
    steps: PositiveInt = 20
    pace: NonNegativeFloat = 0.0
    """Seconds that a step takes."""
    gate: str = ""
    """A file without which the last step is not begun: what a test looks at then lasts, however slow the machine is."""
    save_every: PositiveInt = 5
    fault: str = ""


def config(**changes: Any) -> dict[str, Any]:
    """A resolved configuration."""
    return {"experiment": "counter", "task": "counter", "seed": 3, "device": "cpu", "threads": 1, **changes}


def expected(*, steps: int = 20, seed: int = 3) -> dict[str, float]:
    """The metrics of a run that nothing disturbed."""
    return {"steps": steps, "sum": math.fsum(_draw(seed, step) for step in range(steps))}


def steps_done(run_dir: Path) -> list[int]:
    """Every step that was done, in the order in which they were."""
    return [int(line) for line in (run_dir / "steps.txt").read_text().split()]


def plan(config: CounterConfig) -> Mapping[str, str]:
    return {"data": f"{config.steps} numbers"}


def run(config: CounterConfig, run: Run) -> dict[str, float]:
    found = run.checkpoints.load()
    drawn: list[float] = found[0]["drawn"] if found else []
    for step in range(len(drawn), config.steps):
        while config.gate and step == config.steps - 1 and not run.stop and not Path(config.gate).exists():
            time.sleep(0.05)
        if run.stop:
            run.checkpoints.save({"drawn": drawn}, step=step)
            raise run.stop_error(f"before step {step}")
        _strike(config.fault, step, run.directory.path)
        time.sleep(config.pace)
        drawn.append(_draw(config.seed, step))
        with (run.directory.path / "steps.txt").open("a") as file:
            file.write(f"{step}\n")
        if len(drawn) % config.save_every == 0:
            run.checkpoints.save({"drawn": drawn}, step=len(drawn))
        run.directory.update_status(step=len(drawn))
    return {"steps": len(drawn), "sum": math.fsum(drawn)}


def _draw(seed: int, step: int) -> float:
    return random.Random(1000 * seed + step).random()


def _strike(fault: str, step: int, folder: Path) -> None:
    what, _, at = fault.partition("@")
    if not what or int(at) != step:
        return
    if what == "fail":
        raise TrainingError(f"step {step} was to fail")
    if not (folder / "struck").exists():
        (folder / "struck").touch()
        os.kill(os.getpid(), signal.SIGKILL)
