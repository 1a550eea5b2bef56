"""Two ranks over gloo: they train as one, agree on every end, and survive the loss of whoever started them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.rundir import RunDirectory
from tests.engine import processes, toy


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert processes.start_ranks(toy.config(nproc=2), run_dir) == [0, 0]
    return run_dir


def assert_same_end(run_dir: Path, other: Path) -> None:
    weights, expected = toy.weights(run_dir), toy.weights(other)
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name
    assert toy.record(run_dir) == toy.record(other)


def test_both_ranks_see_half_of_what_one_process_sees(undisturbed: Path, tmp_path: Path) -> None:
    """Without what differs by rank (noise, dropout, statistics of a batch) two processes compute what one does."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert processes.start(toy.config(plain=True), alone) == 0
    assert processes.start_ranks(toy.config(plain=True, nproc=2), together) == [0, 0]
    weights, expected = toy.weights(together), toy.weights(alone)
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=1e-4, atol=1e-6)
    for entry, other in zip(toy.record(together), toy.record(alone), strict=True):
        assert entry == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(("rank", "fault"), [(0, "kill@0"), (1, "kill@3"), (1, "kill@4"), (0, "kill@5"), (0, "save@6")])
def test_a_killed_rank_ends_the_run_and_it_resumes(undisturbed: Path, tmp_path: Path, fault: str, rank: int) -> None:
    run_dir = tmp_path / "run"
    codes = processes.start_ranks(toy.config(nproc=2, fault=fault, fault_rank=rank), run_dir)
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 1
    if rank == 1:
        assert "another process of the run exited without reporting a status" in processes.status(run_dir)["message"]
    assert processes.resume_ranks(run_dir, 2) == [0, 0]
    assert_same_end(run_dir, undisturbed)


def test_two_ranks_save_by_the_clock_of_one(tmp_path: Path) -> None:
    """The clocks of two ranks never agree to the step; a save in which one of them takes no part would hang."""
    settings = {"nproc": 2, "evaluate": False, "train__checkpoint_every": 1000}
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    assert processes.start_ranks(toy.config(**settings), undisturbed) == [0, 0]
    slow = toy.config(**settings, fault="kill@6", fault_rank=1, pace=0.1, train__checkpoint_seconds=0.25)
    assert processes.start_ranks(slow, run_dir)[1] == -signal.SIGKILL
    assert CheckpointStore(run_dir / "checkpoints", sweep=False).step_of() is not None
    assert processes.resume_ranks(run_dir, 2) == [0, 0]
    assert_same_end(run_dir, undisturbed)


def test_a_signal_to_either_rank_stops_both(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert processes.start_ranks(toy.config(nproc=2, fault="usr1@4", fault_rank=1), run_dir) == [3, 3]
    assert (processes.status(run_dir)["state"], processes.status(run_dir)["step"]) == ("stopped", 5)
    assert processes.resume_ranks(run_dir, 2) == [0, 0]
    assert_same_end(run_dir, undisturbed)


@pytest.mark.parametrize(
    ("fault", "codes", "message"),
    [
        ("nan@4", [1, 1], "not finite at step 4 (epoch 1): rank 1: second=nan, samples ["),
        ("inf@4", [1, 1], "not finite at step 4 (epoch 1): rank 0: norm of the gradient="),
        ("data@4", [1, 4], "points.txt: no sample"),
    ],
)
def test_what_goes_wrong_on_rank_1_ends_both_and_is_told(
    tmp_path: Path, fault: str, codes: list[int], message: str
) -> None:
    run_dir = tmp_path / "run"
    assert processes.start_ranks(toy.config(nproc=2, fault=fault, fault_rank=1), run_dir) == codes
    status = processes.status(run_dir)
    assert status["state"] == "failed"
    assert message in status["message"]


def test_a_full_disk_is_rank_0s_trouble_and_both_leave_with_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert processes.start_ranks(toy.config(nproc=2, fault="full@4"), run_dir) == [4, 4]
    assert processes.status(run_dir)["error"] == "DiskFullError"


# --- under torchrun itself --------------------------------------------------------------------------------------------


@pytest.fixture
def toy_for_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the toy known to the processes that torchrun starts."""
    for name, value in toy.site(tmp_path / "site").items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("toy_for_workers")
def test_torchrun_passes_signals_on_and_dies_with_its_launcher(tmp_path: Path) -> None:
    run_dir, other = tmp_path / "run", tmp_path / "other"
    config = toy.config(nproc=2, pace=0.03, train__samples=400)
    steps = 100

    def running(run_dir: Path, after: int) -> bool:
        status = processes.status(run_dir)
        return status.get("state") == "running" and status.get("step", 0) > after

    launcher = processes.spawn(processes.start_under_torchrun_here, config, run_dir, dict(os.environ))
    processes.wait_for(lambda: running(run_dir, 0))
    assert launcher.pid is not None
    os.kill(launcher.pid, signal.SIGUSR1)
    assert processes.join(launcher) == 3
    stopped = processes.status(run_dir)
    assert (stopped["state"], stopped["exit_code"]) == ("stopped", 3)
    assert 0 < stopped["step"] < steps
    assert "SIGUSR1" in stopped["message"]

    launcher = processes.spawn(processes.resume_under_torchrun_here, run_dir, dict(os.environ))
    processes.wait_for(lambda: running(run_dir, stopped["step"]))
    launcher.kill()
    launcher.join()
    processes.wait_for(lambda: processes.status(run_dir)["state"] == "stopped")
    assert stopped["step"] < processes.status(run_dir)["step"] < steps
    processes.wait_for(lambda: not RunDirectory.open(run_dir).is_locked())

    assert processes.resume_ranks(run_dir, 2) == [0, 0]
    assert processes.start_ranks({**config, "pace": 0.0}, other) == [0, 0]
    assert_same_end(run_dir, other)
