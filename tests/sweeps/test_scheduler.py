"""How a sweep is carried out, with a launcher that only pretends: it writes into run directories what runs would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from paperbench.engine.lock import FileLock
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.errors import ConfigError, EnvironmentError_, RunLockedError
from paperbench.records.place import Place, read_place, write_place
from paperbench.records.record import read_run
from paperbench.sweeps import record, scheduler
from paperbench.sweeps.launchers.base import ExitStatus, Handle, Job, LauncherLost, RunRefused
from paperbench.sweeps.plan import Sweep
from paperbench.sweeps.run import SweepOutcome, cancel_jobs, run, threads_of
from paperbench.sweeps.scheduler import MAX_LOSSES
from paperbench.sweeps.watch import MemberStatus
from tests.engine import toy
from tests.sweeps import toys

DONE = ExitStatus(exit_code=0, signal=None)
LOST = ExitStatus(exit_code=None, signal=None, reason="the node was lost", lost=True)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    monkeypatch.setattr(scheduler, "SECONDS_BETWEEN_POLLS", 0.005)


# --- pretended runs ---------------------------------------------------------------------------------------------------


def done(path: Path) -> ExitStatus:
    directory = RunDirectory.open(path)
    directory.write_results(
        config=directory.config(), metrics={"test/error": 0.5}, data="none", device="cpu", precision="float32"
    )
    directory.update_status(state="done", step=9, steps=9)
    return DONE


def fails(error: str, exit_code: int, message: str = "it broke") -> Callable[[Path], ExitStatus]:
    def act(path: Path) -> ExitStatus:
        directory = RunDirectory.open(path)
        directory.write_log(f"Traceback\n{message}")
        directory.update_status(state="failed", message=message, error=error, exit_code=exit_code)
        return ExitStatus(exit_code=exit_code, signal=None)

    return act


def ends(state: str, ending: ExitStatus, step: int = 3) -> Callable[[Path], ExitStatus]:
    def act(path: Path) -> ExitStatus:
        RunDirectory.open(path).update_status(state=state, step=step, steps=9)
        return ending

    return act


failed = fails("TrainingError", 1)
killed = ends("running", ExitStatus(exit_code=None, signal=9, reason="killed by SIGKILL"))


@dataclass
class Pretender:
    """A launcher whose runs act by a script: for each seed what becomes of it in each session, at its second poll."""

    script: dict[int, list[Callable[[Path], ExitStatus]]] = field(default_factory=dict)
    waits: Callable[[Pretender], None] = lambda launcher: None
    jobs: list[Job] = field(default_factory=list)
    running: list[PretendedRun] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        self.seeds: list[int] = []

    def submit(self, job: Job) -> Handle:
        self.jobs.append(job)
        handle = PretendedRun(self, job)
        self.running.append(handle)
        self.most = max(self.most, len(self.running))
        return handle

    def act(self, path: Path) -> ExitStatus:
        seed = int(RunDirectory.open(path).config()["seed"])
        self.seeds.append(seed)
        left = self.script.get(seed)
        return left.pop(0)(path) if left else done(path)

    def wait(self, seconds: float) -> None:
        self.waits(self)

    def close(self) -> None:
        pass


class PretendedRun:
    def __init__(self, launcher: Pretender, job: Job) -> None:
        self.launcher = launcher
        self.job = job
        self.stops = 0
        self.polls = 0
        self.ending: ExitStatus | None = None

    def poll(self) -> ExitStatus | None:
        self.polls += 1
        if self.ending is None and (self.polls > 1 or self.stops):
            self.launcher.running.remove(self)
            endings = [self._end(path) for path in self.job.directories]
            self.ending = next((ending for ending in endings if ending.exit_code != 0), endings[0])
        return self.ending

    def _end(self, path: Path) -> ExitStatus:
        if self.stops:
            return ends("stopped", ExitStatus(exit_code=3, signal=None))(path)
        return self.launcher.act(path)

    def stop(self) -> None:
        self.stops += 1

    def kill(self) -> None:
        raise AssertionError("nothing has to be killed here")


def run_sweep(
    sweep: Sweep, launcher: Any, *, jobs: int = 2, stop: StopFlag | None = None, **options: Any
) -> SweepOutcome:
    heard = toys.Heard()
    outcome = run(
        sweep, launcher=launcher, jobs=jobs, watcher=heard, stop=StopFlag() if stop is None else stop, **options
    )
    launcher.heard = heard
    return outcome


def states(outcome: SweepOutcome) -> list[str]:
    return [result.state for result in outcome.members]


# --- what is run ------------------------------------------------------------------------------------------------------


def test_only_what_is_wanted_is_run_and_only_as_far_as_that(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 4)
    hashes = [member.hash for member in sweep.members]
    reaches = ends("stopped", ExitStatus(exit_code=3, signal=None), step=3)
    launcher = Pretender({1: [reaches], 2: [reaches]})
    outcome = run_sweep(sweep, launcher, targets={hashes[1]: 3, hashes[3]: 0})
    assert states(outcome) == ["not started", "stopped", "not started", "done"]
    assert outcome.exit_code == 0
    assert [job.last_step for job in launcher.jobs] == [3, 0]
    assert len(record.load(sweep.directory).members) == 4
    again = Pretender()
    outcome = run_sweep(sweep, again, targets={hashes[2]: 3})
    assert states(outcome) == ["not started", "stopped", "done", "done"]
    assert len(again.jobs) == 1
    assert run_sweep(sweep, Pretender({0: [reaches]}), targets={hashes[0]: 5}).exit_code == 3
    assert run_sweep(sweep, Pretender(), targets={}).exit_code == 0


def test_a_job_says_how_far_it_goes() -> None:
    job = Job(directories=(Path("a"),), threads=2, name="a")
    assert job.arguments() == ["--threads", "2", "a"]
    assert replace(job, last_step=7).arguments() == ["--threads", "2", "--last-step", "7", "a"]


def test_every_run_is_done_and_not_more_at_once_than_asked_for(tmp_path: Path) -> None:
    sweep, launcher = toys.sweep(tmp_path, 5), Pretender()
    outcome = run_sweep(sweep, launcher)
    assert (states(outcome), outcome.exit_code) == (["done"] * 5, 0)
    assert sorted(launcher.seeds) == [0, 1, 2, 3, 4]
    assert launcher.most == 2
    assert [result.member for result in outcome.members] == list(sweep.members)
    first = outcome.members[0]
    assert first.results is not None
    assert first.results["metrics"] == {"test/error": 0.5}
    assert (first.reused, first.message, first.log_tail) == (False, "", ())
    kinds = [event["event"] for event in record.events(sweep.directory)]
    assert (kinds.count("started"), kinds.count("ended"), kinds[0], kinds[-1]) == (5, 5, "sweep began", "sweep ended")


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    run_sweep(toys.sweep(tmp_path, 3), Pretender())
    launcher = Pretender()
    outcome = run_sweep(toys.sweep(tmp_path, 4), launcher)
    assert launcher.seeds == [3]
    assert [result.reused for result in outcome.members] == [True, True, True, False]
    assert outcome.exit_code == 0


def test_one_that_was_killed_between_its_results_and_its_status_is_done(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 1)
    run_sweep(sweep, Pretender())
    directory = RunDirectory.open(sweep.members[0].directory)
    directory.update_status(state="running")
    launcher = Pretender()
    assert states(run_sweep(sweep, launcher)) == ["done"]
    assert launcher.seeds == []
    assert directory.status()["state"] == "done"


def test_a_failure_takes_no_sibling_along_and_is_retried_when_told(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 3)
    outcome = run_sweep(sweep, Pretender({1: [failed]}))
    assert (states(outcome), outcome.exit_code) == (["done", "failed", "done"], 1)
    assert outcome.members[1].message == "it broke"
    assert outcome.members[1].log_tail[-1] == "it broke"

    launcher = Pretender()
    outcome = run_sweep(sweep, launcher)
    assert (states(outcome), outcome.exit_code, launcher.seeds) == (["done", "failed", "done"], 1, [])
    assert (outcome.members[1].reused, outcome.members[1].message) == (True, "it broke")

    launcher = Pretender()
    outcome = run_sweep(sweep, launcher, retry_failed=True)
    assert (states(outcome), outcome.exit_code, launcher.seeds) == (["done"] * 3, 0, [1])


def test_a_retried_failure_is_tried_once(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 1)
    run_sweep(sweep, Pretender({0: [failed]}))
    launcher = Pretender({0: [failed, done]})
    assert states(run_sweep(sweep, launcher, retry_failed=True)) == ["failed"]
    assert launcher.seeds == [0]


def test_a_failure_for_want_of_data_is_tried_again_by_the_same_command(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 1)
    assert run_sweep(sweep, Pretender({0: [fails("DataError", 4, "no images")]})).exit_code == 1
    assert states(run_sweep(sweep, Pretender())) == ["done"]


def test_a_killed_run_is_a_failure_that_the_same_command_continues(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 2)
    outcome = run_sweep(sweep, Pretender({0: [killed]}))
    assert (states(outcome), outcome.exit_code) == (["failed", "done"], 1)
    assert outcome.members[0].message == "killed by SIGKILL, as when memory runs out"
    launcher = Pretender()
    assert states(run_sweep(sweep, launcher)) == ["done", "done"]
    assert launcher.seeds == [0]


def test_fail_fast_stops_the_others(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 4)
    outcome = run_sweep(sweep, Pretender({0: [failed]}), fail_fast=True)
    assert (states(outcome), outcome.exit_code) == (["failed", "stopped", "not started", "not started"], 1)
    assert not sweep.members[3].directory.exists()


# --- what goes wrong around the runs ----------------------------------------------------------------------------------


def test_a_lost_job_is_submitted_again(tmp_path: Path) -> None:
    launcher = Pretender({0: [ends("running", LOST), ends("waiting", LOST, 0)], 1: [ends("stopped", LOST)]})
    outcome = run_sweep(toys.sweep(tmp_path, 3), launcher)
    assert (states(outcome), outcome.exit_code) == (["done"] * 3, 0)
    assert sorted(launcher.seeds) == [0, 0, 0, 1, 1, 2]


def test_a_run_that_is_lost_again_and_again_without_getting_anywhere_fails(tmp_path: Path) -> None:
    launcher = Pretender({0: [ends("running", LOST)] * 50})
    outcome = run_sweep(toys.sweep(tmp_path, 1), launcher)
    assert states(outcome) == ["failed"]
    assert outcome.members[0].message == f"the node was lost, {MAX_LOSSES + 1} times without a step gained"


def test_a_run_that_gets_a_step_further_each_time_is_given_out_as_often_as_it_takes(tmp_path: Path) -> None:
    sessions = [ends("running", LOST, step) for step in range(1, 3 * MAX_LOSSES)]
    launcher = Pretender({0: list(sessions)})
    assert states(run_sweep(toys.sweep(tmp_path, 1), launcher)) == ["done"]
    assert len(launcher.seeds) == len(sessions) + 1


def test_a_stop_asks_every_run_to_save_and_starts_no_more(tmp_path: Path) -> None:
    stop = StopFlag()
    submitted: list[PretendedRun] = []

    def press(launcher: Pretender) -> None:
        submitted.extend(launcher.running)
        stop.set("SIGINT")

    sweep = toys.sweep(tmp_path, 3)
    launcher = Pretender(waits=press)
    outcome = run_sweep(sweep, launcher, stop=stop)
    assert (states(outcome), outcome.exit_code) == (["stopped", "stopped", "not started"], 3)
    assert [handle.stops for handle in submitted[:2]] == [1, 1]
    assert states(run_sweep(sweep, Pretender())) == ["done"] * 3


def test_a_run_that_somebody_stopped_is_left_to_the_next_command(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 2)
    outcome = run_sweep(sweep, Pretender({0: [ends("stopped", ExitStatus(exit_code=3, signal=None))]}))
    assert (states(outcome), outcome.exit_code) == (["stopped", "done"], 3)


def test_a_full_disk_ends_the_sweep(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 4)
    outcome = run_sweep(sweep, Pretender({0: [fails("DiskFullError", 4, "cannot write x (No space left)")]}))
    assert (states(outcome), outcome.exit_code) == (["failed", "stopped", "not started", "not started"], 4)


def test_a_run_that_could_not_even_write_its_failure_ends_the_sweep(tmp_path: Path) -> None:
    outcome = run_sweep(
        toys.sweep(tmp_path, 3), Pretender({0: [ends("running", ExitStatus(exit_code=4, signal=None))]}), jobs=1
    )
    assert (states(outcome), outcome.exit_code) == (["failed", "not started", "not started"], 4)
    assert "cannot be written" in outcome.members[0].message


def test_a_launcher_that_breaks_leaves_the_runs_time_to_save(tmp_path: Path) -> None:
    launcher = Pretender()
    original = launcher.submit

    def submit(job: Job) -> Handle:
        if len(launcher.jobs) == 1:
            raise EnvironmentError_("the cluster is gone")
        return original(job)

    launcher.submit = submit  # type: ignore[method-assign]
    sweep = toys.sweep(tmp_path, 2)
    with pytest.raises(EnvironmentError_, match="the cluster is gone"):
        run_sweep(sweep, launcher)
    assert RunDirectory.open(sweep.members[0].directory).current_state() == "stopped"


def test_files_that_are_no_run_fail_that_run_alone(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 2)
    sweep.members[0].directory.mkdir(parents=True)
    (sweep.members[0].directory / "thesis.tex").touch()
    outcome = run_sweep(sweep, Pretender())
    assert (states(outcome), outcome.exit_code) == (["failed", "done"], 1)
    assert "holds thesis.tex without a config.yaml; move it away" in outcome.members[0].message


# --- others at work ---------------------------------------------------------------------------------------------------


def test_the_same_sweep_twice_at_once_is_refused(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 1)
    sweep.directory.mkdir(parents=True)
    lock = FileLock(sweep.directory / "lock")
    assert lock.acquire()
    with pytest.raises(RunLockedError, match="is in use by pid") as caught:
        run_sweep(sweep, Pretender())
    assert caught.value.exit_code == 4
    lock.release()
    assert run_sweep(sweep, Pretender()).exit_code == 0


@pytest.mark.parametrize("becomes", ["done", "killed"])
def test_a_run_that_another_sweep_works_on_is_waited_for(tmp_path: Path, becomes: str) -> None:
    sweep = toys.sweep(tmp_path, 2)
    other = RunDirectory.create(tmp_path, "toy", sweep.members[0].composed.resolved, sweep.members[0].directory)
    waits = []

    def release(launcher: Pretender) -> None:
        waits.append(len(launcher.seeds))
        if len(waits) == 6:
            if becomes == "done":
                done(other.path)
            other.release()

    launcher = Pretender(waits=release)
    outcome = run_sweep(sweep, launcher, jobs=1)
    assert (states(outcome), outcome.exit_code) == (["done", "done"], 0)
    assert launcher.seeds == ([1] if becomes == "done" else [1, 0]), "the other run was not kept waiting"
    assert outcome.members[0].reused == (becomes == "done")
    assert (sweep.members[0].hash, "elsewhere") in launcher.heard.states  # type: ignore[attr-defined]


def test_a_job_of_an_earlier_sweep_is_watched_and_can_be_stopped(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 2)
    at_work = RunDirectory.create(tmp_path, "toy", sweep.members[0].composed.resolved, sweep.members[0].directory)
    stop = StopFlag()

    class Outliving(Pretender):
        """Still has the job of the first run, and of no other."""

        def reattach(self, job: Job) -> Handle | None:
            return self.submit(job) if job.directories == (at_work.path.absolute(),) else None

        def act(self, path: Path) -> ExitStatus:
            raise AssertionError("stopped before")

    def ask(launcher: Pretender) -> None:
        stop.set("SIGTERM")
        at_work.release()

    launcher = Outliving(waits=ask)
    outcome = run_sweep(sweep, launcher, jobs=1, stop=stop)
    assert (states(outcome), outcome.exit_code) == (["stopped", "not started"], 3)
    assert [len(launcher.jobs), RunDirectory(at_work.path).current_state()] == [1, "stopped"]
    assert '"event": "found at work"' in (sweep.directory / record.EVENTS).read_text()


@pytest.mark.parametrize("run_by_another", [False, True])
def test_cancelling_a_sweep_stops_the_jobs_that_its_cluster_still_has(run_by_another: bool, tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 3)
    sweep.directory.mkdir(parents=True)
    with_job, without_job = (
        RunDirectory.create(tmp_path, "toy", member.composed.resolved, member.directory) for member in sweep.members[:2]
    )
    for directory in (with_job, without_job):
        directory.release()
        write_place(directory.path, Place(state="queued", job="7_0"))

    class Outliving(Pretender):
        """Has the job of the first run alone, and the third was never begun."""

        def reattach(self, job: Job) -> Handle | None:
            assert job.directories[0] != sweep.members[2].directory.absolute()
            return self.submit(job) if job.directories == (with_job.path.absolute(),) else None

    launcher = Outliving()
    if run_by_another:
        lock = FileLock(sweep.directory / "lock")
        assert lock.acquire()
        with pytest.raises(RunLockedError, match="Ctrl-C there stops it and its jobs"):
            cancel_jobs(sweep, launcher)
        assert not launcher.jobs
        lock.release()
    cancelled = cancel_jobs(sweep, launcher)
    assert len(cancelled) == len(launcher.jobs) == 1
    assert with_job.current_state() == "stopped"
    assert [read_place(path.path) for path in (with_job, without_job)] == [None, None]
    assert '"event": "cancelled", "jobs": 1' in (sweep.directory / record.EVENTS).read_text()
    lock = FileLock(sweep.directory / "lock")
    assert lock.acquire()  # it has let go of the sweep
    lock.release()


# --- what the scheduler of a cluster says -----------------------------------------------------------------------------


class Cluster(Pretender):
    """A launcher of a cluster: its jobs are where `places` says, one after the other, before they act."""

    def __init__(self, *places: Place, **options: Any) -> None:
        super().__init__(**options)
        self.places = places
        self.heard = toys.Heard()
        """Of `run_sweep`, which puts another one here."""
        self.said = ["the controller cannot be reached"]
        self.elsewhere = 0

    def submit(self, job: Job) -> Handle:
        handle = ClusterRun(self, job)
        self.jobs.append(job)
        self.running.append(handle)
        return handle

    def notices(self) -> list[str]:
        said, self.said = self.said, []
        return said

    def is_elsewhere(self, job: Job) -> bool:
        self.elsewhere -= 1
        return self.elsewhere >= 0


class ClusterRun(PretendedRun):
    """Ends at the first poll after its last place."""

    launcher: Cluster

    def poll(self) -> ExitStatus | None:
        self.polls += 1
        if self.polls > len(self.launcher.places) or self.stops:
            self.polls = 2
            return super().poll()
        return None

    def place(self) -> Place | None:
        return self.launcher.places[self.polls - 1] if 0 < self.polls <= len(self.launcher.places) else None


PLACES = (
    Place(state="queued", job="7", reason="Resources"),
    Place(state="running", job="7", node="n2"),
    Place(state="requeued", job="7", reason="BeginTime"),
    Place(state="running", job="7", node="n1"),
)


def test_a_job_is_shown_where_its_scheduler_sees_it(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 1)
    run_dir = sweep.members[0].directory
    seen = []

    def look(launcher: Pretender) -> None:
        place, record = read_place(run_dir), read_run(run_dir)
        seen.append((record.state, record.place == place, place and place.describe()))

    launcher = Cluster(*PLACES, waits=look)
    outcome = run_sweep(sweep, launcher)
    shown = [state for _, state in launcher.heard.states]
    assert shown == ["queued", "running", "requeued", "running", "done"]
    assert ("queued", True, "job 7, Resources") in seen
    assert ("requeued", True, "job 7, BeginTime") in seen
    assert any(place == "job 7 on n1" for *_, place in seen)
    assert read_place(run_dir) is None
    assert read_run(run_dir).place is None
    assert launcher.heard.messages == ["the controller cannot be reached"]
    (member,) = outcome.members
    assert member.place == PLACES[-1]
    said = [event for event in record.events(sweep.directory) if event["event"] == "place"]
    assert [(event["state"], event["node"], event["reason"]) for event in said[:2]] == [
        ("queued", "", "Resources"), ("running", "n2", ""),
    ]  # fmt: skip


def test_the_clock_stands_while_a_job_waits(tmp_path: Path) -> None:
    clocks = []
    launcher = Cluster(*PLACES[:2], waits=lambda launcher: clocks.append(statuses[0].began is not None))
    statuses: list[MemberStatus] = []
    heard = toys.Heard()
    heard.begin = lambda sweep, wanted, jobs: statuses.extend(wanted)  # type: ignore[method-assign]
    pretended: Any = launcher
    run(toys.sweep(tmp_path, 1), launcher=pretended, jobs=1, watcher=heard, stop=StopFlag())
    assert clocks[:3] == [False, False, True]


CANCELLED = ExitStatus(exit_code=3, signal=None, reason="job 7 was cancelled")
UNREPORTED = ExitStatus(
    exit_code=None, signal=None, reason="job 7 ended as FAILED", unreported=True, log_tail=("no module cuda",)
)


@pytest.mark.parametrize(
    ("state", "shown"), [("stopped", "stopped"), ("running", "stopped"), ("waiting", "not started")]
)
def test_a_cancelled_job_is_no_failure_and_its_reason_is_shown(state: str, shown: str, tmp_path: Path) -> None:
    outcome = run_sweep(toys.sweep(tmp_path, 2), Pretender({0: [ends(state, CANCELLED)]}))
    assert states(outcome) == [shown, "done"]
    assert outcome.members[0].message == "job 7 was cancelled"
    assert outcome.exit_code == 3


def test_a_job_that_left_no_word_is_submitted_again_if_its_run_had_begun(tmp_path: Path) -> None:
    launcher = Pretender({0: [ends("stopped", UNREPORTED)], 1: [ends("waiting", UNREPORTED)]})
    outcome = run_sweep(toys.sweep(tmp_path, 2), launcher)
    assert states(outcome) == ["done", "failed"]
    assert outcome.members[1].message == "job 7 ended as FAILED"
    assert outcome.members[1].log_tail == ("no module cuda",)
    assert launcher.seeds == [0, 1, 0]


def test_a_run_that_its_job_gave_up_has_failed_though_it_saved(tmp_path: Path) -> None:
    stuck = ExitStatus(exit_code=1, signal=None, reason="no step is gained in 40 s")
    outcome = run_sweep(toys.sweep(tmp_path, 1), Pretender({0: [ends("stopped", stuck)]}))
    assert states(outcome) == ["failed"]
    assert outcome.members[0].message == "no step is gained in 40 s"


def test_a_job_of_another_sweep_is_waited_for(tmp_path: Path) -> None:
    launcher = Cluster()
    launcher.elsewhere = 2
    assert states(run_sweep(toys.sweep(tmp_path, 1), launcher)) == ["done"]
    assert [state for _, state in launcher.heard.states if state in ("elsewhere", "done")] == ["elsewhere", "done"]
    assert len(launcher.jobs) == 1


def test_a_cluster_that_is_gone_ends_the_sweep_with_its_summary(tmp_path: Path) -> None:
    def dies(launcher: Pretender) -> None:
        raise LauncherLost("the head is gone")

    sweep = toys.sweep(tmp_path, 3)
    launcher = Cluster(*PLACES, waits=dies)
    outcome = run_sweep(sweep, launcher)
    assert outcome.exit_code == 4
    assert states(outcome) == ["not started"] * 3 or set(states(outcome)) <= {"stopped", "not started"}
    assert launcher.heard.messages[0] == "the head is gone"
    assert record.events(sweep.directory)[-1]["event"] == "sweep ended"


def test_a_job_that_the_cluster_refuses_in_mid_sweep_fails_alone(tmp_path: Path) -> None:
    class Narrow(Cluster):
        def submit(self, job: Job) -> Handle:
            if RunDirectory.open(job.directories[0]).config()["seed"] == refused:
                raise RunRefused("no node has 5 CPUs")
            return super().submit(job)

    refused = 1
    outcome = run_sweep(toys.sweep(tmp_path, 3), Narrow())
    assert states(outcome) == ["done", "failed", "done"]
    assert outcome.members[1].message == "no node has 5 CPUs"
    refused = 0
    with pytest.raises(RunRefused):
        run_sweep(toys.sweep(tmp_path / "other", 3), Narrow())


def test_a_sweep_can_be_left_once_the_cluster_has_all_of_it(tmp_path: Path) -> None:
    class Lasting(Cluster):
        submitted = False

        def all_submitted(self) -> bool:
            return self.submitted

        def reattach(self, job: Job) -> None:
            return None

        def wait(self, seconds: float) -> None:
            self.submitted = True

    launcher = Lasting(*[PLACES[0]] * 100)
    sweep = toys.sweep(tmp_path, 3)
    outcome = run_sweep(sweep, launcher, jobs=9, detach=True)
    assert outcome.exit_code == 0
    assert states(outcome) == ["queued"] * 3
    assert len(launcher.running) == 3
    assert read_run(sweep.members[0].directory).state == "queued"


def test_a_sweep_that_an_error_ends_says_so_in_its_events(tmp_path: Path) -> None:
    def refuses(launcher: Pretender) -> None:
        raise EnvironmentError_("Slurm refused the jobs")

    sweep = toys.sweep(tmp_path, 1)
    with pytest.raises(EnvironmentError_):
        run_sweep(sweep, Pretender(waits=refuses))
    last = record.events(sweep.directory)[-1]
    assert (last["event"], last["exit_code"], last["reason"]) == ("sweep ended", 4, "Slurm refused the jobs")


# --- side by side -----------------------------------------------------------------------------------------------------


def stacking(monkeypatch: pytest.MonkeyPatch, key: Callable[[Any], Any]) -> None:
    object.__setattr__(toy.SPEC, "stacks", True)
    monkeypatch.setattr(toy, "stack_key", key, raising=False)


@pytest.fixture
def _alone_again() -> Any:
    yield
    object.__setattr__(toy.SPEC, "stacks", False)


def seeds_of(jobs: Sequence[Job]) -> list[list[int]]:
    return [[int(RunDirectory.open(path).config()["seed"]) for path in job.directories] for job in jobs]


@pytest.mark.usefixtures("_alone_again")
def test_runs_of_one_key_share_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stacking(monkeypatch, lambda config: None if config.seed == 4 else config.seed % 2)
    launcher = Pretender()
    outcome = run_sweep(toys.sweep(tmp_path, 5), launcher, stacked=True)
    assert outcome.exit_code == 0
    assert seeds_of(launcher.jobs) == [[0, 2], [1, 3], [4]]


@pytest.mark.usefixtures("_alone_again")
def test_when_a_stack_fails_each_of_it_is_tried_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stacking(monkeypatch, lambda config: "one")
    together = ends("stopped", ExitStatus(exit_code=1, signal=None))
    launcher = Pretender({0: [together], 1: [together, failed], 2: [together]})
    outcome = run_sweep(toys.sweep(tmp_path, 3), launcher, stacked=True)
    assert seeds_of(launcher.jobs) == [[0, 1, 2], [0], [1], [2]]
    assert (states(outcome), outcome.exit_code) == (["done", "failed", "done"], 1)


def test_a_task_that_cannot_be_stacked_is_refused(tmp_path: Path) -> None:
    sweep = toys.sweep(tmp_path, 2)
    with pytest.raises(ConfigError, match="--stacked: task toy cannot train several runs stacked"):
        run_sweep(sweep, Pretender(), stacked=True)
    assert not sweep.directory.exists()


@pytest.mark.parametrize(("jobs", "threads"), [(1, 8), (2, 4), (5, 4)])
def test_a_job_has_the_threads_of_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, threads: int
) -> None:
    monkeypatch.setattr("paperbench.sweeps.run.usable_cores", lambda: 8)
    launcher = Pretender()
    run_sweep(toys.sweep(tmp_path, 2), launcher, jobs=jobs)
    assert {job.threads for job in launcher.jobs} == {threads}


def test_cores_are_shared_out_among_the_jobs_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paperbench.sweeps.run.usable_cores", lambda: 8)
    assert [threads_of(jobs, 50) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    assert threads_of(8, 2) == 4, "two runs cannot use more than two shares"
