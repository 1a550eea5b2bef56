"""The check that leaves its answer on the device."""

from __future__ import annotations

import math

import torch

from paperbench.engine.finite import DeferredCheck, NotFinite
from paperbench.engine.ranks import Ranks


def test_of_several_steps_that_are_not_finite_the_first_is_named() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    check = DeferredCheck(optimizer, torch.device("cpu"), Ranks())

    def watch(step: int, loss: float, norm: float) -> None:
        check.watch(step, ("loss",), torch.tensor([loss, norm]))

    watch(3, 0.5, 1.0)
    assert check.first_bad() is None
    assert optimizer.found_inf.item() == 0  # pyright: ignore[reportAttributeAccessIssue]
    watch(4, 0.25, math.inf)
    watch(5, math.inf, 2.0)
    watch(6, 0.125, 1.0)
    assert check.first_bad() == NotFinite(4, {"loss": 0.25}, math.inf)
    assert optimizer.found_inf.item() == 1, "the steps after it are left out as well"  # pyright: ignore[reportAttributeAccessIssue]
