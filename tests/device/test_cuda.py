"""Experiments of every kind, alone and stacked, on a pretended CUDA device: no mixed devices, no missing kernel, and as many waits
as are known.

A wait is what makes the host stand still until the GPU has caught up: the queue of kernels runs empty. Where the number here is
not 0, the comment says which operator needs it.
"""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from benchmarks.common import read

from tests.device.conftest import ROOT, Rehearsals

WAITS = {
    "distill": 0,
    "fast-rcnn": 1,  # the regions of its batch norm
    "faster-rcnn": 2,  # the suppression of proposals, and the regions of its batch norm
    "fpn": 4,  # as Faster R-CNN, with three levels that are suppressed each by itself
    "mask-rcnn": 4,  # as FPN
    "rcnn": 2,  # the regions of the batch norms of its trunk and of its head
    "rfcn": 1,  # the suppression of proposals
    "segment": 0,
    "sppnet": 1,  # the regions of its batch norm
    "ssd": 0,
    "stn-mnist": 0,
    "vae": 0,
    "yolo": 0,
}
"""Experiment -> waits in each training step after the first, in which constants are copied to the device."""
STACKED_WAITS = {"distill": 0, "vae": 0}
"""The same of two runs trained stacked."""
AGAIN = "python -m tests.device.launches > benchmarks/results/launches.csv, and the tables of docs/devices.md"
MOST_LAUNCHES = {"stn-mnist": 90}
"""Experiment -> kernels of a step and of making its batch, where a step is so small that launches are what it takes."""


@pytest.mark.parametrize("name", WAITS)
def test_the_experiment_runs_and_waits_no_more_than_known(on_cuda: Rehearsals, name: str) -> None:
    run = on_cuda.run(name, "train", name, "--smoke")
    check(run, WAITS[name])
    step, batch = run["step_launches"][-1], round(run["launches"]["fetch"] / len(run["step_launches"]))
    assert step + batch <= MOST_LAUNCHES.get(name, math.inf)
    row = {line["experiment"]: line for line in read("launches")}[name]
    if row["torch"] == torch.__version__:  # another version may launch others
        assert (step, batch) == (int(row["step"]), int(row["input"])), AGAIN


def test_the_documents_tables_are_what_was_counted() -> None:
    text = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    now, before = ({line["experiment"]: line for line in read(name)} for name in ("launches", "launches-before"))
    assert now.keys() == WAITS.keys(), AGAIN
    for name, waits in WAITS.items():
        old, new = before[name], now[name]
        assert float(new["waits"]) == waits, AGAIN
        numbers = (old["step"], old["input"], new["step"], new["input"], f"{float(old['waits']):.0f}", str(waits))
        assert f"| {' | '.join((f'`{name}`', *numbers))} |" in text
    stated = {
        name: int(row.split("|")[2])
        for row in text.splitlines()
        if row.startswith("| `") and row.count("|") == 4 and row.split("|")[2].strip().isdigit()
        for name in re.findall("`([a-z-]+)`", row.split("|")[1])
    }
    assert stated == WAITS


@pytest.mark.parametrize("name", STACKED_WAITS)
def test_stacked_runs_wait_no_more_and_their_batches_are_made_ahead(on_cuda: Rehearsals, name: str) -> None:
    check(on_cuda.stacked(f"stacked {name}", name), STACKED_WAITS[name])


def check(run: dict[str, Any], waits: int) -> None:
    """Assert that a training went well, waited `waits` times in each step after the first, and had its batches made ahead."""
    assert run["code"] == 0, run["error"] or run["log"][-3000:]
    assert len(run["step_waits"]) > 1
    assert set(run["step_waits"][1:]) == {waits}, "\n".join(events(run, "wait", "step"))
    assert run["launches"].get("fetch", 0) > 0
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
