"""Constants are copied to a device once, and training may use those that an evaluation has made."""

from __future__ import annotations

import pytest
import torch

from paperbench.engine.constants import constant


def test_equal_constants_are_one_tensor() -> None:
    like = torch.zeros(1)
    assert constant((0.1, 0.2), like) is constant([0.1, 0.2], like)
    assert constant((0.1, 0.2), like.double()).dtype == torch.float64
    assert torch.equal(constant((0.1, 0.2), like), like.new_tensor((0.1, 0.2)))


def test_a_constant_of_an_evaluation_is_saved_for_gradients() -> None:
    with torch.inference_mode():
        constant((3.0, 5.0), torch.zeros(1))
    weight = torch.ones(2, requires_grad=True)
    (weight * constant((3.0, 5.0), weight)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 5.0]


def test_while_a_graph_is_traced_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    like = torch.zeros(1)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    made = constant((7.0, 9.0), like)
    assert made.tolist() == [7.0, 9.0]
    monkeypatch.undo()
    assert constant((7.0, 9.0), like) is not made
