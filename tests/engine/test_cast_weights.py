"""Weights that are cast together, beside those that autocast casts one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paperbench.engine.cast_weights import CastWeights


class Net(nn.Module):
    """Layers that autocast casts, one that stands twice, one that is not used, one with a `forward` of its own, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.unused = nn.Linear(4, 4)
        self.own = Own(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.first(images)).mean((2, 3))
        return self.own(self.frozen(self.twice(self.twice(features).relu())))


class Own(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        assert self.weight.dtype == torch.float32
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def losses_and_gradients(net: Net, images: Tensor, *, together: bool) -> tuple[Tensor, dict[str, Tensor | None]]:
    net.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        if together:
            with CastWeights(net).replaced(torch.bfloat16):
                assert net.first.weight.dtype == torch.bfloat16
                loss = net(images).square().sum()
        else:
            loss = net(images).square().sum()
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_loss_and_gradients_are_those_of_autocast_to_the_last_bit(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    net = Net().to(memory_format=memory_format)  # type: ignore[call-overload]
    images = torch.randn(5, 3, 6, 6)
    loss, gradients = losses_and_gradients(net, images, together=False)
    again, others = losses_and_gradients(net, images, together=True)
    assert torch.equal(loss, again)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        other = others[name]
        if gradient is None:
            assert other is None, name  # the optimizer leaves such a weight alone
        else:
            assert other is not None
            assert other.dtype == torch.float32
            assert torch.equal(gradient, other), name
    assert others["unused.weight"] is None
    assert others["frozen.weight"] is None


def test_the_parameters_are_back_whatever_happens() -> None:
    net = Net()
    before = dict(net.named_parameters())
    seen = []

    def fail() -> None:
        with CastWeights(net).replaced(torch.bfloat16):
            seen.append(isinstance(net.twice.weight, nn.Parameter))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False]
    after = dict(net.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert all(isinstance(parameter, nn.Parameter) for parameter in after.values())


def test_one_launch_casts_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    casts = []
    copy = torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda into, of: (casts.append(len(of)), copy(into, of)))
    losses_and_gradients(Net(), torch.randn(2, 3, 6, 6), together=True)
    assert casts == [6, 4]  # weights and biases of three layers that learn; the gradients of the two that are used


def test_a_module_without_such_layers_is_left_alone() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2), nn.Linear(2, 2).requires_grad_(False))
    with CastWeights(net).replaced(torch.bfloat16):
        assert all(isinstance(parameter, nn.Parameter) for parameter in net.parameters())
