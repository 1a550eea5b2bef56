"""SIGKILL at any moment: the resumed run ends with the weights of one that was never disturbed, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from paperbench.engine.checkpoints import CheckpointStore
from tests.engine import processes, toy

STEPS_OF_SECOND_EPOCH = {"first": 3, "middle": 4, "last": 5}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert processes.start(toy.config(), run_dir) == 0
    return run_dir


def assert_same_end(run_dir: Path, other: Path) -> None:
    """Same weights, optimizer and best value, and the same record but for times."""
    weights, expected = toy.weights(run_dir), toy.weights(other)
    assert weights.keys() == expected.keys()
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name
    assert toy.record(run_dir) == toy.record(other)
    assert processes.status(run_dir)["best"] == processes.status(other)["best"]


@pytest.mark.parametrize("step", [0, *STEPS_OF_SECOND_EPOCH.values(), 8], ids=str)
def test_killed_in_a_step(undisturbed: Path, tmp_path: Path, step: int) -> None:
    run_dir = tmp_path / "run"
    assert processes.start(toy.config(fault=f"kill@{step}"), run_dir) == -signal.SIGKILL
    assert processes.resume(run_dir) == 0
    assert_same_end(run_dir, undisturbed)


@pytest.mark.parametrize("done", [2, 3, 6, 9], ids=str)
def test_killed_halfway_through_a_save(undisturbed: Path, tmp_path: Path, done: int) -> None:
    """2 saves because of checkpoint_every, 3 because of an evaluation, 6 for both, 9 at the end."""
    run_dir = tmp_path / "run"
    assert processes.start(toy.config(fault=f"save@{done}"), run_dir) == -signal.SIGKILL
    half_written = list((run_dir / "checkpoints").glob(".*.tmp"))
    assert len(half_written) == 1
    assert processes.resume(run_dir) == 0
    assert not half_written[0].exists()
    assert_same_end(run_dir, undisturbed)


def test_killed_twice_and_resumed_without_prefetching(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert processes.start(toy.config(fault="kill@4", train__prefetch=0), run_dir) == -signal.SIGKILL
    (run_dir / "fault-struck").unlink()  # it will strike again
    assert processes.resume(run_dir) == -signal.SIGKILL
    assert processes.resume(run_dir) == 0
    assert_same_end(run_dir, undisturbed)


def test_a_save_made_by_the_clock_is_resumed_exactly(tmp_path: Path) -> None:
    """Nothing but the time asks for a save: no step, no evaluation."""
    settings = {"evaluate": False, "train__checkpoint_every": 1000, "train__log_every": 4}
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    assert processes.start(toy.config(**settings), undisturbed) == 0
    slow = toy.config(**settings, fault="kill@6", pace=0.1, train__checkpoint_seconds=0.25)
    assert processes.start(slow, run_dir) == -signal.SIGKILL
    saved = CheckpointStore(run_dir / "checkpoints", sweep=False).step_of()
    assert saved is not None
    assert 1 <= saved <= 6
    assert processes.resume(run_dir) == 0
    weights, expected = toy.weights(run_dir), toy.weights(undisturbed)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert toy.record(run_dir) == toy.record(undisturbed)
