"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from paperbench.config.schema import OptimConfig
from paperbench.engine.optim import build_optimizer, lr_factor


def factors(config: OptimConfig, steps: int) -> list[float]:
    factor = lr_factor(config, steps)
    return [factor(step) for step in range(steps)]


def test_constant() -> None:
    assert factors(OptimConfig(schedule="constant"), 3) == [1, 1, 1]


def test_warm_up_is_linear_and_ends_at_1() -> None:
    assert factors(OptimConfig(schedule="constant", warmup_steps=4), 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert factors(OptimConfig(schedule="constant", warmup_steps=10), 2) == [0.5, 1], "no longer than the training"


def test_cosine_falls_from_1_towards_0() -> None:
    config = OptimConfig(schedule="cosine", warmup_steps=2)
    expected = [0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert factors(config, 10) == pytest.approx(expected)
    assert factors(config, 2) == [0.5, 1.0]


def test_steps_of_the_papers_schedule() -> None:
    """50,000 of 70,000 steps at the full rate, the rest at a tenth of it."""
    factor = lr_factor(OptimConfig(schedule="step", milestones=(0.7142857,), gamma=0.1), 70_000)
    assert [factor(step) for step in (0, 49_999, 50_000, 69_999)] == [1, 1, 0.1, 0.1]
    twice = lr_factor(OptimConfig(schedule="step", milestones=(0.5, 0.75), gamma=0.1), 8)
    assert [twice(step) for step in range(8)] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def test_decay_leaves_biases_and_normalisation_out_if_told() -> None:
    module = net()
    config = OptimConfig(name="adamw", lr=0.1, weight_decay=0.5, decay_norm_and_bias=False)
    optimizer = build_optimizer(config, [{"params": module.named_parameters()}])
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in module.named_parameters()} == {
        "0.weight": 0.5,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.5,
        "2.bias": 0.0,
    }
    everything = build_optimizer(OptimConfig(weight_decay=0.5), [{"params": module.parameters()}])
    assert [group["weight_decay"] for group in everything.param_groups] == [0.5]


def test_groups_scale_the_rate_and_frozen_parameters_stay_out() -> None:
    module = net()
    for parameter in module[1].parameters():
        parameter.requires_grad_(False)
    optimizer = build_optimizer(
        OptimConfig(lr=0.2),
        [
            {"params": module[0].parameters(), "lr_scale": 0.1},
            {"params": module[1].parameters()},
            {"params": module[2].parameters()},
        ],
    )
    assert [(group["base_lr"], len(group["params"])) for group in optimizer.param_groups] == [
        (pytest.approx(0.02), 2),
        (0.2, 2),
    ]
    with pytest.raises(ValueError, match="no parameter takes a gradient"):
        build_optimizer(OptimConfig(), [{"params": module[1].parameters()}])


@pytest.mark.parametrize("name", ["sgd", "adamw", "adagrad"])
def test_one_step_is_that_of_the_plain_formula(name: str) -> None:
    """The fused kernels against the update written out: SGD and Adagrad with coupled, AdamW with decoupled decay."""
    config = OptimConfig(name=name, lr=0.1, weight_decay=0.2, momentum=0.9)  # type: ignore[arg-type]
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    optimizer = build_optimizer(config, [{"params": [weight]}])
    w, velocity, square = torch.tensor([[1.0, -2.0]]), torch.zeros(1, 2), torch.zeros(1, 2)
    for t, gradient in enumerate((torch.tensor([[0.5, 1.0]]), torch.tensor([[-0.25, 2.0]])), 1):
        weight.grad = gradient.clone()
        optimizer.step()
        if name == "sgd":
            velocity = 0.9 * velocity + gradient + 0.2 * w
            w = w - 0.1 * velocity
        elif name == "adagrad":
            square = square + (gradient + 0.2 * w).square()
            w = w - 0.1 * (gradient + 0.2 * w) / (square.sqrt() + 1e-10)
        else:
            velocity = 0.9 * velocity + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient.square()
            w = w * (1 - 0.1 * 0.2)
            w = w - 0.1 * (velocity / (1 - 0.9**t)) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach(), w)
