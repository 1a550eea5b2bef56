"""Jobs that really run, under submitit's local executor: its controller stands for Slurm."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from paperbench.engine.rundir import RunDirectory
from paperbench.sweeps.launchers.slurm import SlurmHandle, SlurmLauncher, SlurmSettings
from tests.engine import processes
from tests.sweeps.launchers import counter, toys

pytestmark = [
    pytest.mark.usefixtures("counter_everywhere"),
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
]


def local(tmp_path: Path, **settings: object) -> SlurmLauncher:
    given = {"executor": "local", "poll_seconds": 0.1, "minutes": 10, "save_seconds": 30, **settings}
    return SlurmLauncher(TypeAdapter(SlurmSettings).validate_python(given), toys.context(tmp_path / "sweep"))


def children(pid: int) -> list[int]:
    """Of a process; empty when it is gone."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def processes_of(handle: SlurmHandle) -> tuple[int, int]:
    """The job's own process, and the run below it. submitit's controller, whose id is the job's, stands for Slurm."""
    assert handle.job_id is not None
    (job,) = children(int(handle.job_id))
    (run,) = children(job)
    return job, run


def test_a_preempted_run_goes_back_into_the_queue_and_a_killed_sibling_does_not_matter(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    launcher = local(tmp_path)
    handle = launcher.submit(toys.job(run_dir, pace=0.05, steps=100))
    killed = launcher.submit(toys.job(tmp_path / "killed", fault="kill@4"))
    toys.until(launcher, [handle, killed], lambda: toys.at_work(run_dir))
    # Slurm tells all processes of a job; the run below it must leave this signal to the job's own process.
    job, run = processes_of(handle)
    os.kill(run, signal.SIGUSR2)
    os.kill(job, signal.SIGUSR2)
    done, died = toys.drive(launcher, [handle, killed])
    launcher.close()

    assert (done.exit_code, done.signal, done.reason, done.lost) == (0, None, "", False)
    directory = RunDirectory(run_dir)
    results = directory.results()
    assert results is not None
    assert results["metrics"] == counter.expected(steps=100)
    assert counter.steps_done(run_dir) == list(range(100))
    assert len(directory.environment()["resumed"]) == 1
    assert len((tmp_path / "sweep" / "launcher" / "jobs.jsonl").read_text().splitlines()) == 2

    assert (died.exit_code, died.signal, died.lost) == (None, signal.SIGKILL, False)
    assert "killed by SIGKILL in Slurm job" in died.reason
    assert RunDirectory(tmp_path / "killed").current_state() == "killed"


def test_sigterm_to_the_run_alone_a_killed_sweep_and_a_stopped_one(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    job = toys.job(run_dir, pace=0.05, steps=4000)
    first = local(tmp_path)
    handle = first.submit(job)
    toys.until(first, [handle], lambda: toys.at_work(run_dir))
    # Before it preempts, Slurm sends SIGTERM, which submitit ignores: the run saves, and the job goes back all the same.
    os.kill(processes_of(handle)[1], signal.SIGTERM)
    toys.until(first, [handle], lambda: processes.status(run_dir).get("state") == "stopped")
    saved = processes.status(run_dir)["step"]
    toys.until(first, [handle], lambda: toys.at_work(run_dir, after=saved))

    # Now the sweep is gone, and a new one knows of its jobs only by what is on disk.
    again = local(tmp_path)
    found = again.submit(job)
    assert found.job_id == handle.job_id
    for _ in range(3):
        again.wait(0.15)
        assert found.poll() is None
    found.stop()
    (ending,) = toys.drive(again, [found])
    assert (ending.exit_code, ending.lost) == (3, False)
    assert RunDirectory(run_dir).current_state() == "stopped"
    done = counter.steps_done(run_dir)
    assert done == list(range(len(done)))
    assert handle.poll() is not None
    # Once more: what was ordered was meant for that job alone.
    assert local(tmp_path).submit(job).job_id is None


def test_a_job_that_may_not_go_back_says_why(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    launcher = local(tmp_path, max_timeouts=0)  # in its first ten minutes submitit takes every preemption for a timeout
    handle = launcher.submit(toys.job(run_dir, pace=0.05, steps=4000))
    toys.until(launcher, [handle], lambda: toys.at_work(run_dir))
    os.kill(processes_of(handle)[0], signal.SIGUSR2)
    (ending,) = toys.drive(launcher, [handle])
    assert (ending.exit_code, ending.lost) == (3, False)
    assert "timed-out too many times" in ending.reason
    assert "launcher.max_timeouts" in ending.reason
    assert RunDirectory(run_dir).current_state() == "stopped"
