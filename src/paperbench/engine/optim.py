"""Optimizer and learning-rate schedule from a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from paperbench.config.schema import OptimConfig


def build_optimizer(config: OptimConfig, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of `config` over `groups`.

    Each group is a dict with `params` (parameters, or pairs of name and parameter) and, if other than 1, `lr_scale`; its
    `weight_decay` replaces that of `config`. Parameters that take no gradient are left out. With `decay_norm_and_bias` false,
    parameters of fewer than two dimensions (biases, the scales and shifts of normalisation layers) are not decayed. Every group of
    the result carries `base_lr`, which the trainer multiplies by the schedule's factor.
    """
    prepared: list[dict[str, Any]] = []
    for group in groups:
        base_lr = config.lr * float(group.get("lr_scale", 1.0))
        decay = float(group.get("weight_decay", config.weight_decay))
        parameters = [parameter for parameter in _parameters(group["params"]) if parameter.requires_grad]
        if config.decay_norm_and_bias or decay == 0:  # a group less is a pass over all parameters less
            parts = [(parameters, decay)]
        else:
            parts = [
                ([parameter for parameter in parameters if parameter.ndim > 1], decay),
                ([parameter for parameter in parameters if parameter.ndim <= 1], 0.0),
            ]
        prepared.extend(
            {"params": part, "lr": base_lr, "base_lr": base_lr, "weight_decay": decay} for part, decay in parts if part
        )
    if not prepared:
        raise ValueError("no parameter takes a gradient")
    devices = {parameter.device.type for group in prepared for parameter in group["params"]}
    # One kernel over all parameters, and on CUDA the one that can skip an update without asking the host.
    fused: bool | None = True if devices <= {"cpu", "cuda"} and len(devices) == 1 else None
    if config.name == "adamw":
        return torch.optim.AdamW(prepared, lr=config.lr, fused=fused)
    if config.name == "adagrad":
        return torch.optim.Adagrad(prepared, lr=config.lr, fused=fused)
    return torch.optim.SGD(prepared, lr=config.lr, momentum=config.momentum, fused=fused)


def _parameters(entries: Iterable[Any]) -> list[nn.Parameter]:
    return [entry[1] if isinstance(entry, tuple) else entry for entry in entries]


def lr_factor(config: OptimConfig, steps: int) -> Callable[[int], float]:
    """The factor on the learning rate at each step 0..steps-1, a pure function of the step.

    A linear warm-up over `warmup_steps` reaches 1 on its last step. After it: `constant` stays there, `cosine` falls to
    nearly 0 at the last step, and `step` multiplies by `gamma` at each milestone, a fraction of all steps.
    """
    warmup = min(config.warmup_steps, steps)
    milestones = tuple(round(fraction * steps) for fraction in config.milestones)

    def factor(step: int) -> float:
        rise = (step + 1) / warmup if step < warmup else 1.0
        if config.schedule == "step":
            return rise * config.gamma ** sum(step >= milestone for milestone in milestones)
        if config.schedule == "cosine" and step >= warmup:
            return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
        return rise

    return factor
