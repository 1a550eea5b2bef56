"""Sweeps on a real Slurm, while its controller goes away, refuses jobs and forgets them."""

from __future__ import annotations

import os
import signal
import subprocess
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


def test_slurm_listens_on_the_loopback_alone(slurm: Slurm) -> None:
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    own = [line.split()[3] for line in listening if "slurm" in line]
    assert own
    assert all(address.startswith("127.0.0.1:") for address in own)


def test_a_controller_that_is_away_stops_no_run(slurm: Slurm, folder: Folder) -> None:
    sweep = folder.sweep("steps=40,200,41", "pace=0.1", "--jobs", "2", *SMALL)
    sweep.until(lambda: len(folder.steps()) == 2)
    slurm.stop_controller()
    # The shorter of the two ends without it, and the third is to be submitted.
    sweep.until(lambda: "cannot be reached" in sweep.output)
    assert "1 jobs wait to be submitted" in sweep.output
    assert len(folder.steps()) == 2
    slurm.start_controller()
    assert sweep.end() == 0, sweep.output
    assert states(folder) == ["done"] * 3
    done = sorted(folder.steps().values(), key=len)
    assert done == [list(range(count)) for count in (40, 41, 200)]  # none was stopped or begun anew
    assert "Unable to contact slurm controller" in sweep.output


def test_what_is_refused_at_the_start_ends_before_anything_runs(slurm: Slurm, folder: Folder) -> None:
    code, said = folder.run(
        "sweep",
        "counter",
        "seed=0,1",
        *SMALL,
        "launcher.partition=nowhere",
        "--launcher",
        "slurm",
        "--conf-dir",
        "conf",
    )
    assert code == 4
    assert "invalid partition specified: nowhere" in said
    assert slurm.queue() == []
    assert [name for name in folder.launcher_files() if name.endswith((".pkl", ".sh"))] == []
    last = folder.events()[-1]
    assert (last["event"], last["exit_code"]) == ("sweep ended", 4)


def test_held_jobs_wait_say_why_and_are_no_failure_when_they_are_cancelled(slurm: Slurm, folder: Folder) -> None:
    sweep = folder.sweep("seed=0,1", *SMALL, "launcher.sbatch={hold: true}")
    sweep.until(lambda: sweep.output.count("queued") == 2)
    assert "JobHeldUser" in sweep.output
    runs = folder.runs()
    assert [run["state"] for run in runs] == ["queued"] * 2
    assert {run["job"]["reason"] for run in runs} == {"JobHeldUser"}
    first, second = sorted(job[0] for job in slurm.queue())
    slurm.command("scancel", first)
    slurm.command("scontrol", "release", second)
    assert sweep.end() == 3, sweep.output
    assert states(folder) == ["done", "waiting"]
    assert f"Slurm job {first} was cancelled, not by this sweep" in sweep.output


def test_a_killed_job_process_and_a_requeue_lose_nothing(slurm: Slurm, folder: Folder) -> None:
    sweep = folder.sweep("seed=0", "steps=30", f"gate={folder.gate}", *SMALL)
    sweep.until(lambda: any(len(steps) > 20 for steps in folder.steps().values()))
    (run_dir,) = folder.run_dirs()
    os.kill(submitit_process(folder.path), signal.SIGKILL)
    sweep.until(lambda: "it continues" in sweep.output)
    folder.gate.touch()
    assert sweep.end() == 0, sweep.output
    assert folder.steps()[run_dir.name] == list(range(30))  # it saved when its parent died


def submitit_process(folder: Path) -> int:
    """The process that runs the newest job of a sweep in the folder; others may have a Slurm of their own on this machine."""
    found = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"submitit.core._submit" in _command_line(entry)
        and str(folder).encode() in _command_line(entry)
        and b"srun" not in _command_line(entry)
    ]
    return max(found)


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_sweep_that_is_left_is_listed_looked_at_again_and_cancelled(slurm: Slurm, folder: Folder) -> None:
    given = ("seed=0,1,2,3,4", "steps=3000", "pace=0.1", *SMALL)
    code, said = folder.run("sweep", "counter", *given, "--launcher", "slurm", "--detach", "--conf-dir", "conf")
    assert code == 0, said
    assert "0 of 5 runs done" in said
    assert "cancel it" in said
    slurm.until(lambda: len(folder.steps()) == 4)  # as many as there are CPUs
    code, listed = folder.run("sweeps")
    assert code == 0, listed
    assert "4 running, 1 queued" in listed
    (name,) = {file.name for file in folder.path.glob("outputs/counter/sweeps/*")}
    again = folder.start("sweep", "--resume", name)
    again.until(lambda: again.output.count("running") >= 4)
    assert len(slurm.queue()) == 5
    code, said = folder.run("sweep", "--cancel", name)
    assert code == 4, said
    assert "Ctrl-C there" in said
    again.kill()
    code, said = folder.run("sweep", "--cancel", name)
    assert code == 0, said
    assert "5 jobs cancelled" in said
    assert slurm.queue() == []
    assert states(folder) == ["stopped"] * 4 + ["waiting"]
    assert all(steps == list(range(len(steps))) for steps in folder.steps().values())


def test_a_killed_sweep_finds_its_jobs_and_another_sweep_waits_for_them(slurm: Slurm, folder: Folder) -> None:
    gate = f"gate={folder.gate}"
    first = folder.sweep("seed=0,1", gate, *SMALL)
    first.until(lambda: len(folder.steps()) == 2)
    first.kill()
    jobs = {job[0] for job in slurm.queue()}
    other = folder.sweep("seed=1,2", gate, *SMALL)
    again = folder.sweep("seed=0,1", gate, *SMALL)
    other.until(lambda: "elsewhere" in other.output)
    again.until(lambda: again.output.count("running") == 2)
    folder.gate.touch()
    assert again.end() == 0, again.output
    assert other.end() == 0, other.output
    assert states(folder) == ["done"] * 3
    assert all(steps == list(range(20)) for steps in folder.steps().values())
    assert len(jobs) == 2
    made = [file for file in folder.launcher_files() if file.endswith("_result.pkl")]
    assert len(made) == 3
