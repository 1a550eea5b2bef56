"""Sweeps on a real Slurm that is too small for them, or forgets their jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.slurm import Slurm, why_not
from tests.clusters.sweeps import SMALL, Folder, on_slurm, states

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a Slurm"),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with Slurm() as slurm:
        yield slurm


@pytest.fixture
def folder(slurm: Slurm, tmp_path: Path) -> Iterator[Folder]:
    with on_slurm(slurm, tmp_path) as folder:
        yield folder


def test_a_dry_run_lets_slurm_judge_and_what_no_node_has_is_refused(slurm: Slurm, folder: Folder) -> None:
    def dry(*more: str) -> tuple[int, str]:
        given = ("sweep", "counter", "seed=0,1", "launcher.minutes=10", *more)
        return folder.run(*given, "--launcher", "slurm", "--dry-run", "--conf-dir", "conf")

    code, said = dry("launcher.threads=1")
    assert code == 0, said
    assert "2 jobs, 1 array; 1 CPUs, 0 GPUs" in said
    assert "to start at" in said
    code, said = dry("launcher.threads=1", "launcher.partition=nowhere")
    assert "nvalid partition" in said
    command = folder.sweep("seed=0,1", "nproc=3", "launcher.minutes=10", "launcher.threads=1")
    assert command.end() == 4
    assert "asks for 3 CPUs, and no node has more than 2" in command.output
    assert slurm.queue() == []


def test_arrays_and_queues_that_are_too_small_for_the_sweep(slurm: Slurm, folder: Folder) -> None:
    slurm.stop_controller()
    slurm.configure(
        max_array_size=2, max_job_count=4, min_job_age=5
    )  # jobs that have ended count until they are forgotten
    slurm.start_controller(clean=True)
    try:
        sweep = folder.sweep("seed=range(0,5)", "steps=2", *SMALL)
        began = time.monotonic()
        assert sweep.end(200) == 0, sweep.output
        assert time.monotonic() - began < 200
        assert states(folder) == ["done"] * 5
        assert "launcher.array_size" in sweep.output
        assert slurm.queue() == []
    finally:
        slurm.stop_controller()
        slurm.configure()
        slurm.start_controller(clean=True)


def test_jobs_that_a_controller_forgot_are_submitted_again(slurm: Slurm, folder: Folder) -> None:
    sweep = folder.sweep("seed=0,1", "steps=5", *SMALL, "launcher.sbatch={begin: now+1hour}")
    sweep.until(lambda: sweep.output.count("queued") == 2)
    slurm.stop_controller()
    slurm.start_controller(clean=True)
    sweep.until(lambda: sweep.output.count("it continues") == 2, seconds=60)
    sweep.until(lambda: len(slurm.queue()) == 2)
    for job in slurm.queue():
        slurm.command("scontrol", "update", f"JobId={job[0]}", "StartTime=now")
    assert sweep.end() == 0, sweep.output
    assert states(folder) == ["done"] * 2
