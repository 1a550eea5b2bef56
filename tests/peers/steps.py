"""One training step of a task, as its trainer takes it, and the same step written down plainly.

The trainer is the task's own, with its batches, clipping, schedule and optimizer. The plain step has the weights, the batch and the
random numbers; its loss is a function of tensors in float64 that a test writes from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from paperbench.config.compose import compose
from paperbench.config.schema import OptimConfig
from paperbench.config.validate import config_hash
from paperbench.engine import metriclog
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import JsonLines, MetricLog
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.engine.trainer import Trainer

Weights = dict[str, Tensor]

QUICK = ("scale=smoke", "device=cpu", "precision=float32", "threads=1", "train.log_every=1")


@contextmanager
def opened(folder: Path, experiment: str, *overrides: str) -> Iterator[tuple[Any, Run]]:
    """Yield the configuration of an experiment and a run of it in `folder`."""
    composed = compose(experiment, [*QUICK, *overrides])
    directory = RunDirectory.create(folder, experiment, composed.resolved, folder)
    reporter = SilentReporter()
    run = Run(
        directory=directory,
        device=torch.device("cpu"),
        precision="float32",
        ranks=Ranks(),
        reporter=reporter,
        stop=StopFlag(),
        log=MetricLog([JsonLines(directory.metrics_file)]),
        checkpoints=CheckpointStore(directory.checkpoints, reporter),
        seed=composed.config.seed,
        config_hash=config_hash(composed.resolved),
    )
    try:
        yield composed.config, run
    finally:
        run.log.close()
        directory.release()


@dataclass(frozen=True)
class Step:
    """What a trainer did: weights before and after, the gradients before they were clipped, and what it logged of the step."""

    before: Weights
    after: Weights
    gradients: Weights
    logged: dict[str, float]


def take_step(trainer: Trainer, metrics_file: Path) -> Step:
    """Train to the end, which must be one step away."""
    assert trainer.steps == 1
    named = dict(trainer.module.named_parameters())
    gradients: Weights = {}

    def keep(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradients[name] = parameter.grad.detach().clone()

        return hook

    hooks = [parameter.register_post_accumulate_grad_hook(keep(name)) for name, parameter in named.items()]
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    trainer.fit()
    for handle in hooks:
        handle.remove()
    logged: dict[str, float] = {}
    for entry in metriclog.read(metrics_file):
        logged |= {name: value for name, value in entry.items() if isinstance(value, int | float)}
    return Step(before, {name: p.detach().clone() for name, p in named.items()}, gradients, logged)


def hold_against(
    step: Step,
    losses: Callable[[Weights], Mapping[str, Tensor]],
    *,
    optim: OptimConfig,
    clip_norm: float = 0.0,
    factor: float = 1.0,
    decay: Callable[[str], float] | None = None,
    prefix: str = "train/",
    near: float = 1e-6,
    rough: float = 1.0,
    constrain: Callable[[Tensor], Tensor] = lambda weight: weight,
) -> None:
    """Assert that losses agree to 1e-6 and `near`, gradients to the rounding of float32, and new weights with the update rule.

    losses: from the weights before the step, in float64. factor: of the schedule at the first step. decay: of a parameter, by its
    name; that of `optim` by default. rough: factor on the tolerance of the gradients. constrain: what is done to weights whenever
    they are used, before the step and at the end.
    """
    weights = {name: constrain(value).double().requires_grad_() for name, value in step.before.items()}
    values = losses(weights)
    total = torch.stack(list(values.values())).sum()
    for name, value in values.items():
        assert step.logged[f"{prefix}{name}"] == pytest.approx(float(value.detach()), rel=1e-6, abs=near)
    assert step.logged[f"{prefix}loss"] == pytest.approx(float(total.detach()), rel=1e-6, abs=near)
    gradients = dict(zip(weights, torch.autograd.grad(total, list(weights.values()), allow_unused=True), strict=True))
    largest = max(float(gradient.abs().max()) for gradient in gradients.values() if gradient is not None)
    for name, gradient in gradients.items():
        if gradient is None:
            assert name not in step.gradients or not step.gradients[name].any(), name
            continue
        tolerances = {"rtol": 2e-4 * rough, "atol": 2e-6 * rough * largest}
        torch.testing.assert_close(
            step.gradients[name].double(), gradient, **tolerances, msg=lambda m, n=name: f"{n}: {m}"
        )
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in step.gradients.values()))
    assert step.logged[f"{prefix}grad_norm"] == pytest.approx(norm, rel=1e-5)
    shrink = min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else 1.0
    for name, gradient in step.gradients.items():
        own = optim.weight_decay if decay is None else decay(name)
        start = constrain(step.before[name]).double()
        expected = constrain(updated(start, shrink * gradient.double(), optim, rate=optim.lr * factor, decay=own))
        # Rules that divide by the gradient's size turn the rounding of a tiny gradient into a whole step: the gradient itself is
        # what the trainer had, so that no more than the rounding of the new weight is left.
        torch.testing.assert_close(
            step.after[name].double(), expected, rtol=2e-6, atol=2e-6 * (optim.lr * factor + 1e-3)
        )


def updated(w: Tensor, gradient: Tensor, optim: OptimConfig, *, rate: float, decay: float) -> Tensor:
    """Return weights after the first step of an optimizer."""
    match optim.name:
        case "sgd":
            return w - rate * (gradient + decay * w)
        case "adagrad":
            whole = gradient + decay * w
            return w - rate * whole / (whole.abs() + 1e-10)
        case "adamw":
            return w * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
