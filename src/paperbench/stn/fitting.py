"""The schedule of a training in words."""

from __future__ import annotations

from paperbench.config.schema import LoopConfig, OptimConfig


def describe_schedule(loop: LoopConfig, optim: OptimConfig) -> str:
    """Steps, batch, optimizer and rate, in words."""
    return f"{loop.steps:,} steps of {loop.batch_size}, {optim.name}, rate {optim.lr:g}, {optim.schedule}"
