"""Runs of seconds' fractions, and ways to break them off."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paperbench.config.compose import compose
from paperbench.engine import launch
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.reporter import SilentReporter

TINY = (
    "scale=smoke",
    "device=cpu",
    "threads=1",
    "precision=float32",
    "data.max_train_images=120",
    "data.max_test_images=60",
    "teaching.net.width=12",
    "teaching.samples=160",
    "teaching.batch_size=20",
    "model.width=10",
    "train.samples=160",
    "train.batch_size=20",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "train.evaluate_every=4",
    "evaluation.examples=2",
)
"""Eight steps for each net."""


def resolved(root: Path, *overrides: str, experiment: str = "distill") -> dict[str, Any]:
    """The configuration of a tiny run that keeps its shared nets below `root`; later overrides win."""
    chosen = {text.partition("=")[0]: text for text in (*TINY, *overrides)}
    return compose(experiment, [*chosen.values(), f"output.root={root}"]).resolved


def train(config: Mapping[str, Any], run_dir: Path, reporter: SilentReporter | None = None) -> dict[str, float]:
    """Does the run; its metrics."""
    outcome = launch.start(config, run_dir=run_dir, reporter=reporter or SilentReporter())
    return metrics_of(outcome.results)


def resume(run_dir: Path, reporter: SilentReporter | None = None) -> dict[str, float]:
    """Continues the run; its metrics."""
    return metrics_of(launch.resume(run_dir, reporter or SilentReporter()).results)


def metrics_of(results: Mapping[str, Any] | None) -> dict[str, float]:
    """The metrics without the speeds, which are not a function of the seed."""
    assert results is not None
    return {name: value for name, value in results["metrics"].items() if not name.endswith("samples_per_second")}


def weights(run_dir: Path, stage: str) -> dict[str, Tensor]:
    """The net of a stage."""
    loaded = CheckpointStore(run_dir / "checkpoints" / stage, sweep=False).load()
    assert loaded is not None
    state = loaded[0]
    found = state.get("weights") or state["module"]
    return {name.removeprefix("net."): value for name, value in found.items()}


def assert_same_weights(first: Path, second: Path, *stages: str) -> None:
    """Bit for bit."""
    for stage in stages:
        one, other = weights(first, stage), weights(second, stage)
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), f"{stage}, {name}"


class CrashError(Exception):
    """A kill, as an exception."""


class CrashingReporter(SilentReporter):
    """Raises when a stage has taken a number of steps, and records messages and phases until then."""

    def __init__(self, stage: str = "", step: int = 0, *, kill: bool = False) -> None:
        self.messages: list[str] = []
        self.phases: list[str] = []
        self._at = (stage, step)
        self._kill = kill

    def message(self, text: str) -> None:
        self.messages.append(text)

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        if done > 0:
            self.phases.append(phase)
        if (phase, done) == self._at:
            if self._kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise CrashError


def start_and_be_killed(config: Mapping[str, Any], run_dir: Path, stage: str, step: int) -> None:
    """For a process of its own."""
    launch.start(config, run_dir=run_dir, reporter=CrashingReporter(stage, step, kill=True))
