"""The trainer as all tasks of the room set it up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.engine.optim import build_optimizer, lr_factor
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.trainer import Trainer


def steps_of(loop: LoopConfig) -> int:
    """Optimizer steps of a training of `loop`."""
    return -(-loop.samples // loop.batch_size)


def describe_schedule(loop: LoopConfig, optim: OptimConfig) -> str:
    """Steps, batch, optimizer and rate, in words."""
    return f"{steps_of(loop):,} steps of {loop.batch_size}, {optim.name}, rate {optim.lr:g}, {optim.schedule}"


def make_trainer(
    run: Run,
    module: nn.Module,
    groups: Iterable[Mapping[str, Any]],
    *,
    optim: OptimConfig,
    loop: LoopConfig,
    length: int,
    fetch: Callable[[BatchKey], Any],
    evaluate: Callable[[], dict[str, float]] | None = None,
    order_seed: int | None = None,
) -> Trainer:
    """The trainer of `module` on `length` samples; `groups` as `engine.optim.build_optimizer` takes them.

    `order_seed` replaces the run's seed for the order of the samples: that of a run's second training must be another one.
    """
    steps = steps_of(loop)
    seed = run.seed if order_seed is None else order_seed
    return Trainer(
        run=run,
        module=module,
        optimizer=build_optimizer(optim, list(groups)),
        lr_factor=lr_factor(optim, steps),
        order=EpochOrder(length, loop.batch_size, seed, run.ranks.rank, run.ranks.world),
        fetch=fetch,
        steps=steps,
        clip_norm=loop.clip_norm,
        log_every=loop.log_every,
        checkpoint_every=loop.checkpoint_every,
        evaluate_every=loop.evaluate_every,
        prefetch=loop.prefetch,
        evaluate=evaluate,
    )
