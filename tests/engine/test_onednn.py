from __future__ import annotations

import pytest
import torch
from torch import nn

from paperbench.engine import onednn

CPU = torch.device("cpu")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Makes oneDNN help, and lists the shapes of the inputs that it was given."""
    operator = onednn._operator()
    if operator is None:
        pytest.skip("this build of PyTorch has no oneDNN")
    shapes: list[tuple[int, ...]] = []

    def counted(x: torch.Tensor, *rest: object) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return operator(x, *rest)

    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(onednn, "_operator", lambda: counted)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
def test_products_are_the_same_but_for_rounding(bias: bool, taken: list[tuple[int, ...]]) -> None:
    layer = nn.Linear(30, 20, bias=bias)
    x = torch.randn(3, 7, 30)
    with torch.no_grad():
        expected = layer(x)
        with onednn.fast_products(CPU):
            found = layer(x)
    assert taken == [(3, 7, 30)]
    torch.testing.assert_close(found, expected)


def test_what_it_is_not_for_is_left_alone(taken: list[tuple[int, ...]]) -> None:
    layer = nn.Linear(4, 3)
    with onednn.fast_products(CPU):
        layer(torch.randn(2, 4)).sum().backward()
        with torch.no_grad():
            layer.double()(torch.randn(2, 4, dtype=torch.float64))
    assert taken == []
    assert layer.weight.grad is not None


def test_where_it_does_not_help_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "is_faster", lambda: False)
    monkeypatch.setattr(onednn, "_operator", lambda: pytest.fail("it was asked"))
    with torch.no_grad(), onednn.fast_products(CPU):
        assert nn.Linear(4, 3)(torch.ones(2, 4)).shape == (2, 3)
