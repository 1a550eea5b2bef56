"""The same experiments on a pretended Apple GPU: float64 is refused, and so is an operator that torch lists no MPS kernel for."""

from __future__ import annotations

import pytest

from tests.device.conftest import Rehearsals
from tests.device.test_cuda import WAITS

FLOAT64 = ("distill-omitted", "distill-specialists", "vae-semi model=m1")
"""Further experiments that compute in float64 elsewhere: the bias of a class that was left out, specialists, the bound."""


@pytest.mark.parametrize("name", [*WAITS, *FLOAT64])
def test_the_experiment_runs(on_mps: Rehearsals, name: str) -> None:
    run = on_mps.run(name, "train", *name.split(), "--smoke")
    assert run["code"] == 0, run["error"] or run["log"][-3000:]


def test_an_estimate_runs(on_mps: Rehearsals) -> None:
    run = on_mps.run("rca", "estimate", "rca", "--smoke")
    assert run["code"] == 0, run["error"] or run["log"][-3000:]
