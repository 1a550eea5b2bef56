"""Experiments of eight kinds on a pretended CUDA device: no mixed devices, no missing kernel, and as many waits as are known.

A wait is what makes the host stand still until the GPU has caught up: the queue of kernels runs empty. Where the number here is
not 0, the comment says which operator needs it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.device.conftest import Rehearsals

WAITS = {
    "distill": 0,
    "faster-rcnn": 2,  # the suppression of proposals, and the regions of its batch norm
    "segment": 0,
    "ssd": 0,
    "stn-mnist": 0,
    "vae": 0,
    "yolo": 0,
}
"""Experiment -> waits in each training step after the first, in which constants are copied to the device."""
MOST_LAUNCHES = {"stn-mnist": 90}
"""Experiment -> kernels of a step and of making its batch, where a step is so small that launches are what it takes."""


@pytest.mark.parametrize("name", WAITS)
def test_the_experiment_runs_and_waits_no_more_than_known(on_cuda: Rehearsals, name: str) -> None:
    run = on_cuda.run(name, "train", name, "--smoke")
    assert run["code"] == 0, run["error"] or run["log"][-3000:]
    assert len(run["step_waits"]) > 1
    assert set(run["step_waits"][1:]) == {WAITS[name]}, "\n".join(events(run, "wait", "step"))
    if name in MOST_LAUNCHES:
        made = run["launches"]["fetch"] / len(run["step_launches"])
        assert run["step_launches"][-1] + made <= MOST_LAUNCHES[name]
    assert events(run, "no gradient") == []
    assert events(run, "race") == []
    assert events(run, "unordered streams") == []
    assert events(run, "pageable copy") == []


def test_an_estimate_runs(on_cuda: Rehearsals) -> None:
    run = on_cuda.run("rca", "estimate", "rca", "--smoke")
    assert run["code"] == 0, run["error"] or run["log"][-3000:]


def events(run: dict[str, Any], kind: str, phase: str = "") -> list[str]:
    """Return the events of a kind, in one phase or in all, with their lines."""
    return [
        f"{name} at {where}, {count} times"
        for at, what, name, where, count in run["events"]
        if what == kind and phase in ("", at)
    ]
