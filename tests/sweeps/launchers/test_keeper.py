"""A run under a keeper, whose Ray worker is a small Python program here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paperbench.engine.rundir import RunDirectory
from tests.engine import processes
from tests.sweeps.launchers import counter, toys

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("counter_everywhere"),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
]

WORKER = """
import sys
from pathlib import Path
from paperbench.sweeps.launchers.ray import run_task
print(run_task(sys.argv[2:], str(Path(sys.argv[1]).parent), {"SEEN": "yes"}, sys.argv[1]), flush=True)
"""


def start(tmp_path: Path, **changes: object) -> subprocess.Popen[str]:
    """A process that does what Ray's does, and prints what the task returns."""
    job = toys.job(tmp_path / "run", **changes)
    command = [sys.executable, "-c", WORKER, str(tmp_path / "order"), *job.arguments()]
    elsewhere = tmp_path.parent
    return subprocess.Popen(command, cwd=elsewhere, stdout=subprocess.PIPE, text=True, start_new_session=True)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_exit_code_and_the_signal_of_the_run(tmp_path: Path) -> None:
    worker = start(tmp_path)
    assert worker.communicate(timeout=60)[0] == "0\n"
    results = RunDirectory(tmp_path / "run").results()
    assert results is not None
    assert results["metrics"] == counter.expected()
    other = tmp_path / "other"
    other.mkdir()
    assert start(other, fault="kill@4").communicate(timeout=60)[0] == "-9\n"


@pytest.mark.parametrize("by", ["order", "interrupt", "death of the worker", "death of the worker and its group"])
def test_the_run_saves_whatever_ends_it(by: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    worker = start(tmp_path, pace=0.05, steps=4000, save_every=4000)
    until(lambda: toys.at_work(run))
    if by == "order":
        (tmp_path / "order").write_text("stop")
    elif by == "interrupt":  # several, as `ray.cancel` may send them
        for _ in range(3):
            os.kill(worker.pid, signal.SIGINT)
            time.sleep(0.1)
    elif by == "death of the worker":
        worker.kill()
    else:
        os.killpg(worker.pid, signal.SIGKILL)
    said = worker.communicate(timeout=60)[0]
    dead = by.startswith("death")
    assert said == ("" if dead else "3\n")
    until(lambda: RunDirectory(run).current_state() == "stopped")
    assert processes.status(run)["step"] > 0
    done = counter.steps_done(run)
    assert done == list(range(len(done)))
    assert RunDirectory(run).checkpoints.is_dir()
    # Where the worker died, Ray starts the task again, and that ends with a code of its own.
    assert (tmp_path / "order.code").exists() is not dead


def test_an_order_to_kill_ends_the_run_at_once(tmp_path: Path) -> None:
    """Until then it works in the folder, and with the environment, that it was given."""
    worker = start(tmp_path, pace=0.05, steps=4000)
    until(lambda: toys.at_work(tmp_path / "run"))
    place = Path("/proc") / str(processes.status(tmp_path / "run")["pid"])
    assert place.joinpath("cwd").readlink() == tmp_path
    assert b"SEEN=yes" in place.joinpath("environ").read_bytes().split(b"\0")
    (tmp_path / "order").write_text("kill")
    assert worker.communicate(timeout=60)[0] == "-9\n"
