"""Slurm's launcher: what it asks sbatch, squeue and scancel for, with stand-ins for these that only take notes."""

from __future__ import annotations

import getpass
import sys
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EnvironmentError_
from paperbench.records.place import Place, read_place, write_place
from paperbench.sweeps.launchers import base, slurm, slurm_jobs
from paperbench.sweeps.launchers.base import ExitStatus, RunRefused
from paperbench.sweeps.launchers.slurm import SlurmLauncher, SlurmSettings
from tests.sweeps.launchers import counter, toys

pytestmark = pytest.mark.usefixtures("counter_everywhere")


class Cluster:
    """Stand-ins for Slurm's commands. `queue` is what squeue prints; `scripts` and `cancelled` are what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.accept()
        self._script("srun", "exit 1")
        self.come_back()
        self._script("scancel", f'echo "$@" >>{folder}/cancelled')
        self.queue()

    def _script(self, name: str, text: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def refuse(self, said: str, *, then: str = "exit 1") -> None:
        self._script("sbatch", f"echo x >>{self.folder}/tries; echo '{said}' >&2; {then}")

    def accept(self, *, at_most: int = 1000, said: str = "") -> None:
        """Take jobs again, in arrays of no more than `at_most`."""
        self._script(
            "sbatch",
            f"size=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' \"$1\"); "
            f"[ ${{size:-0}} -lt {at_most} ] || {{ echo '{said}' >&2; exit 1; }}\n"
            f'n=$(ls {self.folder}/*.sbatch 2>/dev/null | wc -l); cp "$1" {self.folder}/$n.sbatch; '
            'echo "Submitted batch job 10$n"',
        )

    @property
    def tries(self) -> int:
        """Refused ones."""
        file = self.folder / "tries"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def queue(self, **states: str) -> None:
        """The queue from now on, `STATE` or `STATE|NODE|REASON`; `_1` of a job id is written `j100_1`."""
        (self.folder / "queue").write_text("".join(f"{job[1:]}|{state}\n" for job, state in states.items()))

    def come_back(self) -> None:
        self._script("squeue", f'echo "$@" >>{self.folder}/asked; cat {self.folder}/queue')

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
    assert not gone.lost  # of an array that is remembered, a job that waited and is not listed was cancelled
    assert "was cancelled" in gone.reason
    assert handles[2].poll() is lost
    asked = (cluster.folder / "asked").read_text()
    assert f"--user={getpass.getuser()}" in asked
    cluster.be_away()  # the server is restarted: nothing is known, so nothing is concluded
    assert [handle.poll() for handle in handles[:2] for _ in range(3)] == [None] * 6
    cluster.come_back()
    cluster.queue()  # it has lost its state
    endings = toys.drive(launcher, handles[:2])
    assert all(ending.lost and slurm_jobs.GONE in ending.reason for ending in endings)


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


def left_over(tmp_path: Path) -> list[str]:
    folder = tmp_path / "sweep" / "launcher"
    return sorted(file.name for file in [*folder.glob("*.pkl"), *folder.glob(".submission_file_*")])


UNREACHABLE = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
BUSY = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"


@pytest.mark.parametrize(("said", "then"), [(UNREACHABLE, "exit 1"), (BUSY, "exec sleep 100")])
def test_a_controller_that_is_away_or_full_is_waited_for(
    said: str, then: str, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_SECONDS_BETWEEN_TRIES", 1e-9)
    launcher = launcher_of(tmp_path)
    first = launcher.submit(toys.job(tmp_path / "first"))
    launcher.wait(0)
    cluster.queue(j100="RUNNING|n1|None")
    files = left_over(tmp_path)
    cluster.refuse(said, then=then)
    second = launcher.submit(toys.job(tmp_path / "second", seed=2))
    for _ in range(3):
        launcher.wait(0)
    assert left_over(tmp_path) == files
    (notice,) = launcher.notices()
    assert said.removeprefix("sbatch: error: ") in notice
    assert "1 jobs wait" in notice
    assert cluster.tries == 3
    assert [first.poll(), second.poll()] == [None, None]
    cluster.accept()
    launcher.wait(0)
    assert second.job_id == "101"


def test_more_cpus_than_any_node_has_are_refused_before_anything_is_submitted(tmp_path: Path, cluster: Cluster) -> None:
    cluster._script("sinfo", 'echo 2; echo "4+"')
    launcher = launcher_of(tmp_path)
    launcher.submit(toys.job(tmp_path / "fits", nproc=4))
    with pytest.raises(RunRefused, match=r"asks for 5 CPUs, and no node has more than 4.*launcher\.threads"):
        launcher.submit(toys.job(tmp_path / "wide", nproc=5))
    assert cluster.scripts == []


def test_a_preview_says_what_is_asked_for_and_what_slurm_says(cluster: Cluster) -> None:
    cluster._script("sbatch", f'echo "$@" >{cluster.folder}/only; echo "sbatch: Job 5 to start at noon" >&2')
    settings = TypeAdapter(SlurmSettings).validate_python({
        "partition": "gpu", "gpus": 1, "memory_gb": 8, "array_size": 2, "sbatch": {"exclude": "n7", "no-kill": True}
    })  # fmt: skip
    lines = SlurmLauncher.preview(settings, "toys", [[counter.config(seed=n)] for n in range(3)])
    assert lines == [
        "Slurm: 3 jobs, 2 arrays; 1 CPUs, 1 GPUs and 8 GB each; 240 minutes; partition gpu",
        "  sbatch --test-only: Job 5 to start at noon",
    ]
    asked = (cluster.folder / "only").read_text().split()
    assert asked == [
        "--test-only", "--partition=gpu", "--mem=8192M", "--time=240", "--cpus-per-task=1", "--gpus-per-node=1",
        "--exclude=n7", "--no-kill", "--wrap=true",
    ]  # fmt: skip


def test_a_refused_job_in_mid_sweep_ends_alone(tmp_path: Path, cluster: Cluster) -> None:
    launcher = launcher_of(tmp_path)
    first = launcher.submit(toys.job(tmp_path / "first"))
    launcher.wait(0)
    cluster.queue(j100="RUNNING|n1|None")
    cluster.refuse("sbatch: error: CPU count per node can not be satisfied")
    second = launcher.submit(toys.job(tmp_path / "second", nproc=200))
    launcher.wait(0)
    assert first.poll() is None
    ending = second.poll()
    assert ending is not None
    assert not ending.lost
    assert "CPU count per node can not be satisfied" in ending.reason
    launcher.wait(0)
    assert cluster.tries == 1


@pytest.mark.parametrize(
    ("said", "remembered"),
    [
        ("sbatch: error: Batch job submission failed: Invalid job array specification", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", False),
    ],
)
def test_arrays_are_halved_until_slurm_takes_them(
    said: str, remembered: bool, tmp_path: Path, cluster: Cluster
) -> None:
    cluster.accept(at_most=2, said=said)
    launcher = launcher_of(tmp_path)
    handles = [launcher.submit(toys.job(tmp_path / f"run{n}", seed=n)) for n in range(7)]
    launcher.wait(0)
    assert all(handle.job_id for handle in handles)
    assert len({handle.job_id for handle in handles}) == 7
    assert [("array_size" in notice) for notice in launcher.notices()] == ([True] * 2 if remembered else [])


def test_where_a_job_is(tmp_path: Path, cluster: Cluster) -> None:
    launcher = launcher_of(tmp_path)
    handle = launcher.submit(toys.job(tmp_path / "run"))
    assert handle.place() is None
    launcher.wait(0)
    seen = []
    for entry in (
        "PENDING||Priority", "PENDING||JobHeldUser", "RUNNING|n2|None", "PENDING||BeginTime", "RUNNING|n1|None",
        "REQUEUE_HOLD||job requeued in held state",
    ):  # fmt: skip
        cluster.queue(j100=entry)
        assert handle.poll() is None
        seen.append(handle.place())
    assert seen == [
        Place(state="queued", job="100", reason="Priority"),
        Place(state="queued", job="100", reason="JobHeldUser"),
        Place(state="running", job="100", node="n2"),
        Place(state="requeued", job="100", reason="BeginTime"),
        Place(state="running", job="100", node="n1"),
        Place(state="requeued", job="100", reason="job requeued in held state"),
    ]
    cluster.be_away()
    handle.poll()
    assert handle.place() == seen[-1]  # nothing new is known


def test_a_cancelled_job_and_one_whose_own_process_died(tmp_path: Path, cluster: Cluster) -> None:
    launcher = launcher_of(tmp_path)
    handles = [launcher.submit(toys.job(tmp_path / f"run{n}", seed=n)) for n in range(2)]
    launcher.wait(0)
    # As sacct of Slurm 22.05 prints it: the job, and the step that ran its script.
    cluster._script("sacct", 'echo "$@" | grep -q 100_1 && printf "7:0|\\n7:0|308144K\\n"')
    (tmp_path / "sweep" / "launcher" / "100_1_0_log.out").write_text("module: command not found\n\n")
    cluster.queue(j100_0="CANCELLED", j100_1="FAILED")
    cancelled, died = toys.drive(launcher, handles)
    assert cancelled.exit_code == 3
    assert "Slurm job 100_0 was cancelled" in cancelled.reason
    assert died.unreported
    assert not died.lost
    assert died.log_tail == ("module: command not found",)
    assert "(exit code 7:0, 308144K of memory at most): module: command not found" in died.reason


def test_places_that_nobody_watches_are_brought_up_to_date(tmp_path: Path, cluster: Cluster) -> None:
    folders = [tmp_path / name for name in ("begun", "back", "gone", "ended")]
    for folder, job in zip(folders, ("5_0", "5_1", "6", "7"), strict=True):
        folder.mkdir()
        write_place(folder, Place(state="running" if job == "5_1" else "queued", job=job, reason="Priority"))
    cluster.queue(j5_0="RUNNING|n3|None", j5_1="PENDING||BeginTime", j7="COMPLETED|n1|None")
    slurm_jobs.refresh_places(folders)
    assert [read_place(folder) for folder in folders] == [
        Place(state="running", job="5_0", node="n3"),
        Place(state="requeued", job="5_1", reason="BeginTime"),
        None,
        None,
    ]
    cluster.be_away()
    slurm_jobs.refresh_places(folders)
    assert read_place(folders[0]) is not None


def test_a_job_of_another_sweep_is_elsewhere_while_it_waits(tmp_path: Path, cluster: Cluster) -> None:
    job = toys.job(tmp_path / "run")
    launcher = launcher_of(tmp_path)
    assert not launcher.is_elsewhere(job)
    write_place(tmp_path / "run", Place(state="queued", job="77"))
    cluster.queue(j77="PENDING||Resources")
    assert launcher.is_elsewhere(job)
    cluster.queue(j77="COMPLETED")
    assert not launcher.is_elsewhere(job)
    cluster.queue()
    own = launcher.submit(job)
    launcher.wait(0)
    write_place(tmp_path / "run", Place(state="queued", job=str(own.job_id)))
    cluster.queue(j100="PENDING||Resources")
    assert not launcher.is_elsewhere(job)


class Halted:
    """A run that saves at once."""

    exit_code = 3

    def stop(self) -> None: ...

    def wait(self, **_: object) -> int:
        return 3


def test_two_time_limits_without_a_step_between_them_end_the_requeues(tmp_path: Path) -> None:
    job = toys.job(tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    work = slurm_jobs.RunJob(
        arguments=tuple(job.arguments()), folder=str(tmp_path), order=tmp_path / "order", seconds_to_save=20, seconds=60
    )

    def requeued(work: slurm_jobs.RunJob, *, used: float = 40) -> slurm_jobs.RunJob | None:
        work._run, work._began = Halted(), time.monotonic() - used  # type: ignore[assignment]
        again = work.checkpoint()
        return None if again is None else again.function

    first = requeued(work)
    assert first is not None
    preempted = requeued(first, used=3)
    assert preempted is not None
    directory.update_status(step=4)
    gained = requeued(preempted)
    assert gained is not None
    assert requeued(gained) is None
    assert "reached its time limit at step 4" in gained._stuck
    assert "launcher.minutes" in gained._stuck


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
        ({"minutes": 2, "save_seconds": 61}, "61 seconds leave less than half of launcher.minutes=2"),
        ({"partitions": "gpu"}, "partitions"),
        ({"gpus": -1}, "gpus"),
        ({"executor": "pbs"}, "executor"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(SlurmSettings).validate_python(settings)
