"""Signals that ask for a stop: the run saves, leaves with exit code 3, and continues as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from paperbench.engine import torchrun
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.rundir import RunDirectory
from tests.engine import processes, toy


@pytest.mark.parametrize("name", ["term", "int", "usr1"])
def test_signal_saves_and_exits_3(tmp_path: Path, name: str) -> None:
    run_dir, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    assert processes.start(toy.config(), undisturbed) == 0
    assert processes.start(toy.config(fault=f"{name}@4"), run_dir) == 3
    status = processes.status(run_dir)
    assert (status["state"], status["step"], status["exit_code"]) == ("stopped", 5, 3)
    assert toy.SIGNALS[name].name in status["message"]
    assert f"paperbench resume {run_dir}" in status["message"]
    assert not (run_dir / "results.json").exists()

    assert processes.resume(run_dir) == 0
    weights, expected = toy.weights(run_dir), toy.weights(undisturbed)
    for key in expected:
        assert torch.equal(weights[key], expected[key]), key
    assert toy.record(run_dir) == toy.record(undisturbed)


@pytest.mark.parametrize("step", [2, 5, 8])
def test_stopped_where_an_evaluation_is_due(tmp_path: Path, step: int) -> None:
    """The stop does not wait for the evaluation; the resumed run makes it, and chooses the same best checkpoint."""
    run_dir, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    assert processes.start(toy.config(), undisturbed) == 0
    assert processes.start(toy.config(fault=f"term@{step}"), run_dir) == 3
    assert "test/error" not in toy.record(run_dir)[-1]
    assert processes.resume(run_dir) == 0
    assert toy.record(run_dir) == toy.record(undisturbed)
    assert processes.status(run_dir)["best"] == processes.status(undisturbed)["best"]
    best = [CheckpointStore(path / "checkpoints", sweep=False).load("best") for path in (run_dir, undisturbed)]
    assert best[0] is not None
    assert best[1] is not None
    assert best[0][1] == best[1][1]


def test_second_interrupt_ends_the_process_at_once(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = processes.spawn(processes.start_here, toy.config(fault="hang@5"), run_dir)
    processes.wait_for(lambda: (run_dir / "fault-struck").exists())
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(0.5)
    assert process.exitcode is None, "the first interrupt waits for the step, which hangs"
    os.kill(process.pid, signal.SIGINT)
    assert processes.join(process) == 130
    assert RunDirectory.open(run_dir).current_state() == "killed"
    assert processes.resume(run_dir) == 0


def _launcher_here(pids: Path) -> None:
    """Waits for two processes as the launcher of several ranks does; they stand for torchrun and a rank."""
    sleep = [sys.executable, "-c", "import time; time.sleep(3600)"]
    with subprocess.Popen(sleep) as agent, subprocess.Popen(sleep) as rank, torchrun.SignalForwarding(agent, pids):
        (pids / "1").write_text(str(rank.pid))
        (pids.parent / "agent").write_text(str(agent.pid))
        (pids.parent / "ready").touch()
        agent.wait()


def test_second_interrupt_ends_every_process_of_a_run(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    launcher = processes.spawn(_launcher_here, pids)
    processes.wait_for((tmp_path / "ready").exists)
    children = [int((tmp_path / "agent").read_text()), int((pids / "1").read_text())]
    assert launcher.pid is not None
    os.kill(launcher.pid, signal.SIGINT)
    launcher.join(0.3)
    assert launcher.exitcode is None, "the first interrupt waits for rank 0, which is not ready yet"
    os.kill(launcher.pid, signal.SIGINT)
    assert processes.join(launcher) == 130
    for child in children:
        processes.wait_for(lambda child=child: _gone(child))
    assert not pids.exists()


def _gone(pid: int) -> bool:
    """Return True if a process has ended; a zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
