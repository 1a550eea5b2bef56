"""Nets: shapes, constrained weights, and getting one back from its weights."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from paperbench.distill.config import NetConfig
from paperbench.distill.nets import Net, absorb_normalisation, build, from_weights, mlp, parameters_in

SIZE = (1, 8, 8)


def _inputs(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 64, generator=torch.Generator().manual_seed(0))


def test_the_papers_nets_have_their_sizes() -> None:
    teacher = build(NetConfig(width=1200), size=(1, 28, 28), classes=10)
    student = build(NetConfig(width=800), size=(1, 28, 28), classes=10)
    assert parameters_in(teacher) == 784 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 10 + 10
    assert parameters_in(student) == 784 * 800 + 800 + 800 * 800 + 800 + 800 * 10 + 10


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_nets_take_flat_images(name: str) -> None:
    net = build(NetConfig(name=name, width=6, layers=2, dropout=0.3), size=(3, 8, 8), classes=4)  # type: ignore[arg-type]
    assert net(torch.rand(5, 3 * 64)).shape == (5, 4)


def test_a_convnet_refuses_images_that_it_would_halve_to_nothing() -> None:
    with pytest.raises(ValueError, match="4 blocks halve an image of 8x8"):
        build(NetConfig(name="convnet", width=2, layers=4), size=SIZE, classes=3)


def test_constrained_weights_keep_their_norm_and_a_second_look_changes_nothing() -> None:
    net = mlp(inputs=64, classes=3, widths=[7], max_norm=0.5)
    before = net.trunk[0].weight.detach().clone()  # type: ignore[union-attr]
    net(_inputs())
    after = {name: value.clone() for name, value in net.named_parameters()}
    for value in after.values():
        if value.ndim == 2:
            assert float(value.detach().norm(dim=1).max()) <= 0.5
    # Directions stay, and so does what was short enough.
    torch.testing.assert_close(nn.functional.normalize(after["trunk.0.weight"]), nn.functional.normalize(before))
    net(_inputs())
    for name, value in net.named_parameters():
        assert torch.equal(value, after[name])


def test_short_weights_are_left_alone() -> None:
    net = mlp(inputs=64, classes=3, widths=[7], max_norm=1e3)
    before = {name: value.clone() for name, value in net.named_parameters()}
    net(_inputs())
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


# --- from weights -----------------------------------------------------------------------------------------------------


def _foreign() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(64, 9), relu1=nn.ReLU(), fc2=nn.Linear(9, 6, bias=False), act=nn.ReLU(), out=nn.Linear(6, 3)
        )
    )


def test_any_chain_of_layers_computes_what_its_own_net_did() -> None:
    net = _foreign()
    found = from_weights(net.state_dict(), size=SIZE, classes=3)
    torch.testing.assert_close(found(_inputs()), net(_inputs()))


@pytest.mark.parametrize("name", ["mlp", "convnet"])
@pytest.mark.parametrize("input_dropout", [0.0, 0.2])
def test_own_nets_come_back(name: str, input_dropout: float) -> None:
    config = NetConfig(name=name, width=5, layers=2, dropout=0.5, input_dropout=input_dropout)  # type: ignore[arg-type]
    net = build(config, size=SIZE, classes=3).eval()
    found = from_weights(net.state_dict(), size=SIZE, classes=3).eval()
    torch.testing.assert_close(found(_inputs()), net(_inputs()))


def test_normalisation_is_absorbed_by_the_first_layer() -> None:
    net = _foreign()
    found = from_weights(net.state_dict(), size=SIZE, classes=3)
    absorb_normalisation(found, mean=0.13, std=0.31)
    torch.testing.assert_close(found(_inputs()), net((_inputs() - 0.13) / 0.31), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({}, "holds no tensors"),
        ({"a.weight": torch.zeros(4, 10)}, "takes 10 values where 64 come in"),
        ({"a.weight": torch.zeros(3, 64), "b.weight": torch.zeros(3, 4)}, "b takes 4 values where 3 come in"),
        ({"a.weight": torch.zeros(5, 64)}, "it has 5 classes, the data have 3"),
        ({"a.weight": torch.zeros(3, 64), "a.bias": torch.zeros(4)}, "a has 3 units and 4 biases"),
        ({"a.weight": torch.zeros(3, 64), "norm.bias": torch.zeros(3)}, "no chain of fully connected layers"),
        ({"a.weight": torch.full((3, 64), torch.nan)}, "a.weight is not finite"),
        ({"conv.weight": torch.zeros(3, 1, 3, 3)}, "only convnets of this program"),
    ],
)
def test_weights_of_something_else_are_refused_with_the_reason(weights: dict[str, torch.Tensor], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_weights(weights, size=SIZE, classes=3)


def test_a_net_is_a_trunk_and_a_head() -> None:
    assert isinstance(build(NetConfig(width=4), size=SIZE, classes=2), Net)
