"""Slurm's launcher: what it asks sbatch, squeue and scancel for, with stand-ins for these that only take notes."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from paperbench.errors import EnvironmentError_
from paperbench.sweeps.launchers import base, slurm_jobs
from paperbench.sweeps.launchers.base import ExitStatus
from paperbench.sweeps.launchers.slurm import SlurmLauncher, SlurmSettings
from tests.sweeps.launchers import toys

pytestmark = pytest.mark.usefixtures("counter_everywhere")


class Cluster:
    """Stand-ins for Slurm's commands. `queue` is what squeue prints; `scripts` and `cancelled` are what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._script(
            "sbatch",
            f'n=$(ls {folder}/*.sbatch 2>/dev/null | wc -l); cp "$1" {folder}/$n.sbatch; echo "Submitted batch job 10$n"',
        )
        self._script("srun", "exit 1")
        self._script("squeue", f'echo "$@" >>{folder}/asked; cat {folder}/queue')
        self._script("scancel", f'echo "$@" >>{folder}/cancelled')
        self.queue()

    def _script(self, name: str, text: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def refuse(self, said: str) -> None:
        self._script("sbatch", f"echo '{said}' >&2; exit 1")

    def queue(self, **states: str) -> None:
        """The queue from now on; `_1` of a job id is written `j100_1`."""
        (self.folder / "queue").write_text("".join(f"{job[1:]}|{state}\n" for job, state in states.items()))

    def be_away(self) -> None:
        self._script("squeue", "exit 1")

    @property
    def scripts(self) -> list[str]:
        return [file.read_text() for file in sorted(self.folder.glob("*.sbatch"))]

    @property
    def cancelled(self) -> list[str]:
        file = self.folder / "cancelled"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(cluster.folder), prepend=":")
    return cluster


def launcher_of(tmp_path: Path, **settings: object) -> SlurmLauncher:
    # Each poll is to look, and each look to ask: time plays no part in these tests.
    settings = {"poll_seconds": 1e-9, **settings}
    return SlurmLauncher(TypeAdapter(SlurmSettings).validate_python(settings), toys.context(tmp_path / "sweep"))


def options(script: str) -> dict[str, str]:
    """The `#SBATCH` lines of a script."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


def test_one_array_for_each_kind_of_resources(tmp_path: Path, cluster: Cluster) -> None:
    launcher = launcher_of(
        tmp_path,
        partition="gpu",
        account="lab",
        minutes=90,
        save_seconds=60,
        memory_gb=1.5,
        gpus=2,
        jobs_at_once=2,
        setup=["module load cuda"],
        sbatch={"exclude": "node7", "no-kill": True},
    )
    handles = [launcher.submit(toys.job(tmp_path / f"run{n}", seed=n)) for n in range(3)]
    handles.append(launcher.submit(toys.job(tmp_path / "wide", nproc=2)))
    assert cluster.scripts == []
    launcher.wait(0)
    first, second = cluster.scripts
    asked = options(first)
    expected = {
        "array": "0-2%2", "partition": "gpu", "account": "lab", "time": "90", "mem": "1536M", "cpus-per-task": "1",
        "gpus-per-node": "2", "signal": "USR2@60", "exclude": "node7", "no-kill": "", "requeue": "", "job-name": "toys",
        "open-mode": "append",
    }  # fmt: skip
    assert {name: asked[name] for name in expected} == expected
    assert "module load cuda" in first.splitlines()
    assert "srun --unbuffered" in first
    assert "--cpus-per-task=1 " in first.partition("srun --unbuffered")[2]
    alone = options(second)
    assert (alone["cpus-per-task"], alone["gpus-per-node"]) == ("2", "4")
    assert "array" not in alone
    assert [handle.job_id for handle in handles] == ["100_0", "100_1", "100_2", "101"]


def test_arrays_are_no_larger_than_the_cluster_takes(tmp_path: Path, cluster: Cluster) -> None:
    launcher = launcher_of(tmp_path, array_size=2)
    handles = [launcher.submit(toys.job(tmp_path / f"run{n}", seed=n)) for n in range(3)]
    launcher.wait(0)
    assert [handle.job_id for handle in handles] == ["100_0", "100_1", "101"]
    assert (launcher.submit(handles[0].job)).job_id is None  # 100_0 is not in the queue any more: a new job


def test_what_the_queue_says_of_a_job_that_left_no_word(tmp_path: Path, cluster: Cluster) -> None:
    launcher = launcher_of(tmp_path)
    handles = [launcher.submit(toys.job(tmp_path / f"run{n}", seed=n)) for n in range(5)]
    launcher.wait(0)
    cluster.queue(j100_0="RUNNING", j100_1="PENDING", j100_2="NODE_FAIL", j100_3="OUT_OF_MEMORY")
    assert [handle.poll() for handle in handles] == [None] * 5  # a file of the job may still be on its way
    endings = [handle.poll() for handle in handles]
    assert endings[:2] == [None, None]
    lost, memory, gone = endings[2:]
    assert lost is not None
    assert lost.lost
    assert "NODE_FAIL" in lost.reason
    assert memory is not None
    assert not memory.lost
    assert "OUT_OF_MEMORY" in memory.reason
    assert "100_3_0_log.out" in memory.reason
    assert gone is not None
    assert slurm_jobs.GONE in gone.reason
    assert handles[2].poll() is lost
    asked = (cluster.folder / "asked").read_text()
    assert f"--user={getpass.getuser()}" in asked
    cluster.be_away()  # the server is restarted: nothing is known, so nothing is concluded
    assert [handle.poll() for handle in handles[:2] for _ in range(3)] == [None] * 6


def test_stopping_what_waits_what_works_and_what_was_never_submitted(tmp_path: Path, cluster: Cluster) -> None:
    launcher = launcher_of(tmp_path)
    waits, works = (launcher.submit(toys.job(tmp_path / f"run{n}", seed=n)) for n in range(2))
    launcher.wait(0)
    never = launcher.submit(toys.job(tmp_path / "never", seed=2))
    cluster.queue(j100_0="PENDING", j100_1="RUNNING")
    for handle in (waits, works, never):
        assert handle.poll() is None
        handle.stop()
    assert cluster.cancelled == []  # all at once, at the next opportunity
    launcher.wait(0)
    assert len(cluster.scripts) == 1
    assert cluster.cancelled == ["100_0"]
    assert works.order.read_text() == "stop"
    cluster.queue(j100="CANCELLED", j100_1="RUNNING")  # of an array, what never began is listed under the array's id
    withdrawn = ExitStatus(exit_code=3, signal=None, reason="withdrawn from the queue")
    assert [never.poll(), *toys.drive(launcher, [waits])] == [withdrawn, withdrawn]
    assert works.poll() is None
    works.kill()
    assert works.order.read_text() == "kill"
    toys.until(launcher, [], lambda: cluster.cancelled[-1] == "100_1")
    toys.until(launcher, [], lambda: not launcher._queue._scancels)  # type: ignore[union-attr]


@pytest.mark.parametrize(("said", "goes_on"), [("RUNNING", True), ("COMPLETING", False), ("", False), (None, False)])
def test_a_job_is_put_back_only_while_slurm_wants_it_to_go_on(
    said: str | None, goes_on: bool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slurm_jobs._counts_as_running()  # no Slurm at all: submitit's local executor
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "100")
    if said is None:
        cluster.be_away()
    else:
        (cluster.folder / "queue").write_text(f"{said}\n")
    assert slurm_jobs._counts_as_running() is goes_on
    if said is not None:
        assert "--jobs=100" in (cluster.folder / "asked").read_text()


def test_the_same_sweep_given_again_finds_its_jobs(tmp_path: Path, cluster: Cluster) -> None:
    jobs = [toys.job(tmp_path / f"run{n}", seed=n) for n in range(3)]
    launcher = launcher_of(tmp_path)
    for job in jobs:
        launcher.submit(job)
    launcher.wait(0)
    with (tmp_path / "sweep" / "launcher" / "jobs.jsonl").open("a") as file:
        file.write('{"order": "torn')
    cluster.queue(j100_0="RUNNING", j100_1="PENDING", j100_2="FAILED")
    again = launcher_of(tmp_path)
    handles = [again.submit(job) for job in jobs]
    assert [handle.job_id for handle in handles] == ["100_0", "100_1", None]
    again.wait(0)
    assert handles[2].job_id == "101"


def test_what_slurm_refuses_is_said(tmp_path: Path, cluster: Cluster) -> None:
    launcher = launcher_of(tmp_path, partition="nowhere")
    launcher.submit(toys.job(tmp_path / "run"))
    cluster.refuse("sbatch: error: invalid partition specified: nowhere")
    with pytest.raises(
        EnvironmentError_, match=r"invalid partition specified: nowhere; the settings are launcher\.KEY"
    ):
        launcher.wait(0)


def test_without_slurm_and_without_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentError_, match=r"no sbatch, srun, squeue, scancel on this machine.*executor=local"):
        launcher_of(tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(EnvironmentError_, match=r'pip install "paperbench\[slurm\]"') as caught:
        base.create("slurm", SlurmSettings(), toys.context(tmp_path / "sweep"))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"minutes": 2, "save_seconds": 120}, "120 seconds leave nothing of launcher.minutes=2"),
        ({"partitions": "gpu"}, "partitions"),
        ({"gpus": -1}, "gpus"),
        ({"executor": "pbs"}, "executor"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(SlurmSettings).validate_python(settings)
