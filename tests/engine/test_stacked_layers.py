"""Nets stacked along a new axis, and their optimizer, against the nets alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paperbench.engine.stacked_layers import (
    StackedDropout,
    StackedLinear,
    batched_linear,
    copy_from_stack,
    copy_into_stack,
    members,
    stack,
)
from paperbench.engine.stacked_optim import StackedOptimizer

WIDTHS = (5, 8, 3)


def nets(activation: type[nn.Module] = nn.Tanh, dropout: float = 0.0) -> list[nn.Sequential]:
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Linear(6, width), activation(), nn.Dropout(dropout), nn.Linear(width, 4)) for width in WIDTHS
    ]


def alone(modules: list[nn.Sequential], x: Tensor) -> Tensor:
    return torch.stack([module(part) for module, part in zip(modules, x, strict=True)])


def test_a_stack_computes_what_each_computes_alone() -> None:
    modules = nets()
    joint = stack(modules)
    own = torch.randn(3, 7, 6)
    torch.testing.assert_close(joint(own), alone(modules, own))
    shared = torch.randn(7, 6)
    torch.testing.assert_close(joint(shared), alone(modules, shared.expand(3, 7, 6)))
    deeper = torch.randn(3, 2, 7, 6)
    torch.testing.assert_close(joint(deeper), alone(modules, deeper))


def test_gradients_of_batched_layers_are_right() -> None:
    stream = torch.Generator().manual_seed(1)
    x, weight, bias = (
        torch.randn(shape, generator=stream, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 4), (2, 5, 4), (2, 5))
    )
    assert torch.autograd.gradcheck(batched_linear, (x, weight, bias))
    assert torch.autograd.gradcheck(lambda a, b: batched_linear(a, b, None), (x, weight))
    batched_linear(x, weight, bias).sum().backward()
    assert weight.grad is not None
    assert weight.grad.is_contiguous()  # in the layout of the weights: nothing is left to copy


def test_the_first_layer_needs_no_gradient_of_its_input() -> None:
    layer = StackedLinear(2, 4, 3, bias=False)
    layer(torch.randn(2, 5, 4)).sum().backward()
    assert layer.weight.grad is not None


def test_autocast_reaches_stacked_layers() -> None:
    joint = stack(nets())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = joint(torch.randn(3, 7, 6))
    assert y.dtype is torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in joint.parameters())


@pytest.mark.parametrize("kind", ["adamw", "adagrad", "sgd"])
@pytest.mark.parametrize("rates", [(0.1, 0.1, 0.1), (0.1, 0.02, 0.05)], ids=["one rate", "several rates"])
def test_training_a_stack_is_training_each(kind: str, rates: tuple[float, ...]) -> None:
    modules, others = nets(nn.ReLU), nets(nn.ReLU)

    def optimizers(of: list[nn.Sequential]) -> list[torch.optim.Optimizer]:
        made = {
            "adamw": lambda m, lr: torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=0.1, fused=True),
            "adagrad": lambda m, lr: torch.optim.Adagrad(m.parameters(), lr=lr, weight_decay=0.01, fused=True),
            "sgd": lambda m, lr: torch.optim.SGD(m.parameters(), lr=lr, momentum=0.9),
        }[kind]
        return [made(module, rate) for module, rate in zip(of, rates, strict=True)]

    singles, taken = optimizers(modules), optimizers(others)
    joint = stack(others)
    together = StackedOptimizer(joint, others, taken)
    stream = torch.Generator().manual_seed(2)
    for step in range(8):
        x = torch.randn(3, 9, 6, generator=stream)
        for module, optimizer, part in zip(modules, singles, x, strict=True):
            module(part).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        joint(x).square().mean((1, 2)).sum().backward()
        together.step()
        together.zero_grad()
        if step == 3:  # out and in again: what a checkpoint holds is all there is
            copy_from_stack(joint, others)
            together.store()
            joint = stack(others)
            together = StackedOptimizer(joint, others, taken)
    copy_from_stack(joint, others)
    together.store()
    for module, other, single, mine in zip(modules, others, singles, taken, strict=True):
        for a, b in zip(module.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(b, a)
        for a, b in zip(single.state_dict()["state"].values(), mine.state_dict()["state"].values(), strict=True):
            torch.testing.assert_close(b, a)
    for member in members(joint, others):
        for number, parameter in enumerate(member.alone):
            whole = member.joint[number].detach().clone()
            whole[tuple(slice(size) for size in parameter.shape)] = 0
            assert not whole.any(), f"padding of {member.name} moved"


def test_dropout_draws_what_each_would_draw_alone() -> None:
    modules = nets(dropout=0.4)
    joint = stack(modules)
    dropout = next(part for part in joint.modules() if isinstance(part, StackedDropout))
    x = torch.randn(3, 7, 6)
    expected = []
    for number, (module, part) in enumerate(zip(modules, x, strict=True)):
        torch.manual_seed(number)
        expected.append(module(part))
    dropout.use([torch.Generator().manual_seed(number) for number in range(3)])
    torch.testing.assert_close(joint(x), torch.stack(expected))
    joint.eval()
    torch.testing.assert_close(joint(x), alone([module.eval() for module in modules], x))
    joint.train()
    dropout.use([])
    with pytest.raises(ValueError, match="call use"):
        joint(x)


def test_weights_go_in_and_come_out() -> None:
    modules = nets()
    joint = stack(modules)
    changed = nets()
    for module in changed:
        nn.init.normal_(module[0].weight)  # type: ignore[arg-type]
    copy_into_stack(joint, changed)
    copy_from_stack(joint, modules)
    for module, other in zip(modules, changed, strict=True):
        assert torch.equal(module[0].weight, other[0].weight)  # type: ignore[arg-type]


def test_what_cannot_be_stacked_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to stack"):
        stack([])
    with pytest.raises(ValueError, match="differ in their layers"):
        stack([nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Sequential(nn.Linear(2, 2), nn.ReLU())])
    with pytest.raises(TypeError, match=r"1 \(BatchNorm1d\) holds weight, bias"):
        stack([nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))])
    modules = nets()
    with pytest.raises(TypeError, match="LBFGS"):
        StackedOptimizer(stack(modules), modules, [torch.optim.LBFGS(m.parameters()) for m in modules])
