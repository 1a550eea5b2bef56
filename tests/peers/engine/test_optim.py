"""Optimizers, schedules and their order of operations against plain NumPy and torch's own schedulers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from paperbench.config.schema import OptimConfig
from paperbench.engine.optim import build_optimizer, lr_factor
from tests.peers.cases import grid

Array = NDArray[np.float64]


def plain_sgd(w: Array, gradients: list[Array], *, lr: float, decay: float, momentum: float) -> Array:
    velocity = np.zeros_like(w)
    for gradient in gradients:
        velocity = momentum * velocity + gradient + decay * w
        w = w - lr * velocity
    return w


def plain_adagrad(w: Array, gradients: list[Array], *, lr: float, decay: float, momentum: float) -> Array:
    """Duchi, Hazan, Singer 2011, with the decay in the gradient."""
    total = np.zeros_like(w)
    for gradient in gradients:
        whole = gradient + decay * w
        total = total + whole**2
        w = w - lr * whole / (np.sqrt(total) + 1e-10)
    return w


def plain_adamw(w: Array, gradients: list[Array], *, lr: float, decay: float, momentum: float) -> Array:
    """Loshchilov and Hutter 2019: the decay beside the gradient."""
    first, second = np.zeros_like(w), np.zeros_like(w)
    for step, gradient in enumerate(gradients, start=1):
        w = w * (1 - lr * decay)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        w = w - lr * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return w


PLAIN = {"sgd": plain_sgd, "adagrad": plain_adagrad, "adamw": plain_adamw}


@pytest.mark.parametrize(
    ("name", "decay", "size", "momentum"),
    grid(PLAIN, (0.0, 0.01), ("usual", "thousands", "tiny", "zero"), (0.0, 0.9)),
)
def test_an_optimizer_is_its_papers_rule(name: Any, decay: float, size: str, momentum: float) -> None:
    rng = np.random.default_rng(list(PLAIN).index(name))
    scale = {"usual": 1.0, "thousands": 1e3, "tiny": 1e-6, "zero": 0.0}[size]
    start, gradients = rng.normal(size=(4, 3)), list(rng.normal(size=(5, 4, 3)) * scale)
    parameter = nn.Parameter(torch.from_numpy(start.copy()))
    config = OptimConfig(name=name, lr=0.02, weight_decay=decay, momentum=momentum)
    optimizer = build_optimizer(config, [{"params": [parameter]}])
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    expected = PLAIN[name](start, gradients, lr=0.02, decay=decay, momentum=momentum)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "scale", "own_decay", "biases"), grid(PLAIN, (0.1, 10.0), (None, 0.5), (True, False)))
def test_groups_have_their_own_rate_and_decay(name: Any, scale: float, own_decay: float | None, biases: bool) -> None:
    rng = np.random.default_rng(5)
    weight, bias = rng.normal(size=(3, 2)), rng.normal(size=3)
    module = nn.Linear(2, 3, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
        module.bias.copy_(torch.from_numpy(bias))
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.1, momentum=0.9, decay_norm_and_bias=biases)
    group: dict[str, Any] = {"params": module.named_parameters(), "lr_scale": scale}
    if own_decay is not None:
        group["weight_decay"] = own_decay
    optimizer = build_optimizer(config, [group])
    gradients = [(rng.normal(size=(3, 2)), rng.normal(size=3)) for _ in range(3)]
    for of_weight, of_bias in gradients:
        module.weight.grad, module.bias.grad = torch.from_numpy(of_weight.copy()), torch.from_numpy(of_bias.copy())
        optimizer.step()
    decay = 0.1 if own_decay is None else own_decay
    for found, start, place, own in (
        (module.weight, weight, 0, decay),
        (module.bias, bias, 1, decay if biases else 0.0),
    ):
        expected = PLAIN[name](start, [g[place] for g in gradients], lr=0.01 * scale, decay=own, momentum=0.9)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("steps", "warmup"), grid((1, 7, 40), (0, 1, 5, 60)))
def test_the_warm_up_is_torchs_linear_one(steps: int, warmup: int) -> None:
    factor = lr_factor(OptimConfig(schedule="constant", warmup_steps=warmup), steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    length = min(warmup, steps)
    scheduler = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1 / max(length, 1), total_iters=max(length - 1, 0)
    )
    for step in range(steps):
        assert factor(step) == pytest.approx(optimizer.param_groups[0]["lr"] if length > 1 else 1.0)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("steps", "warmup"), grid((1, 10, 33), (0, 4)))
def test_the_cosine_is_torchs(steps: int, warmup: int) -> None:
    factor = lr_factor(OptimConfig(schedule="cosine", warmup_steps=warmup), steps)
    length = min(warmup, steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, steps - length))
    for step in range(length, steps):
        assert factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("steps", "milestones"), grid((5, 12, 90), ((), (0.5,), (0.25, 0.75), (0.0, 1.0))))
def test_steps_are_torchs_milestones(steps: int, milestones: tuple[float, ...]) -> None:
    factor = lr_factor(OptimConfig(schedule="step", milestones=milestones, gamma=0.3), steps)
    at = [round(share * steps) for share in milestones]
    for step in range(steps):
        assert factor(step) == pytest.approx(math.prod(0.3 for milestone in at if milestone <= step))
