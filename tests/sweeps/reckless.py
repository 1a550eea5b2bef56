"""A task that ends in every way in which a process can end; what it does stands in its configuration."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from paperbench.catalog import TaskSpec
from paperbench.config.schema import RunConfig
from paperbench.engine.run import Run
from paperbench.errors import DiskFullError

SPEC = TaskSpec(
    name="reckless",
    verb="train",
    summary="ends somehow",
    schema="tests.sweeps.reckless:RecklessConfig",
    module="tests.sweeps.reckless",
)


@dataclass(kw_only=True)
class RecklessConfig(RunConfig):
    act: str = "fine"
    """`fine`, `raise`, `exit`, `kill`, `segfault`, `full`, or `wait` until it is asked to stop."""


def plan(config: RecklessConfig) -> Mapping[str, str]:
    return {"data": "none"}


def run(config: RecklessConfig, run: Run) -> dict[str, float]:
    facts = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "threads": torch.get_num_threads(),
        "omp": os.environ.get("OMP_NUM_THREADS"),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "oom": Path("/proc/self/oom_score_adj").read_text().strip() if Path("/proc/self").exists() else "",
    }
    (run.directory.path / "facts.json").write_text(json.dumps(facts))
    print(f"on stdout: {config.act}", flush=True)  # noqa: T201
    sys.stderr.write(f"on stderr: {config.act}\n")
    match config.act:
        case "raise":
            raise RuntimeError("a defect")
        case "exit":
            sys.exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "full":
            raise DiskFullError("cannot write x (No space left on device)")
        case "wait":
            while not run.stop:
                time.sleep(0.01)
            raise run.stop_error("while it waited")
    return {"test/error": 1.0}
