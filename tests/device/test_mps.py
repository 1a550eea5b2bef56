"""The same experiments on a pretended Apple GPU: float64 is refused, and so is an operator that torch lists no MPS kernel for."""

from __future__ import annotations

import pytest

from tests.device.conftest import Rehearsals
from tests.device.test_cuda import WAITS


@pytest.mark.parametrize("name", WAITS)
def test_the_experiment_runs(on_mps: Rehearsals, name: str) -> None:
    run = on_mps.run(name, "train", name, "--smoke")
    assert run["code"] == 0, run["error"] or run["log"][-3000:]


def test_an_estimate_runs(on_mps: Rehearsals) -> None:
    run = on_mps.run("rca", "estimate", "rca", "--smoke")
    assert run["code"] == 0, run["error"] or run["log"][-3000:]
