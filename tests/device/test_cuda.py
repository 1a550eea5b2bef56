"""Experiments of several kinds on a pretended CUDA device: no mixed devices, no missing kernel, and as many waits as are known.

A wait is what makes the host stand still until the GPU has caught up: the queue of kernels runs empty. Where the number here is
not 0, the comment says which operator needs it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.device.conftest import Rehearsals

WAITS = {
    "distill": 0,
    "segment": 0,
    "stn-mnist": 0,
    "vae": 0,
    "yolo": 0,
}
"""Experiment -> waits in each training step."""


@pytest.mark.parametrize("name", WAITS)
def test_the_experiment_runs_and_waits_no_more_than_known(on_cuda: Rehearsals, name: str) -> None:
    run = on_cuda.run(name, "train", name, "--smoke")
    assert run["code"] == 0, run["error"] or run["log"][-3000:]
    assert len(run["step_waits"]) > 1
    assert set(run["step_waits"]) == {WAITS[name]}, "\n".join(waits(run))


def waits(run: dict[str, Any]) -> list[str]:
    """Return the waits inside steps with their lines."""
    at = ("step", "wait")
    return [f"{name} at {where}, {count} times" for *kind, name, where, count in run["events"] if tuple(kind) == at]
