"""Ray's launcher on a cluster of two nodes on this machine, one of which is killed while it works."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from paperbench.engine.rundir import RunDirectory
from paperbench.errors import EnvironmentError_
from paperbench.sweeps.launchers import base
from paperbench.sweeps.launchers.ray import RayHandle, RayLauncher, RaySettings, run_task, shortage
from tests.loopback import loopback_only
from tests.sweeps.launchers import counter, toys

pytestmark = pytest.mark.usefixtures("counter_everywhere")


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentError_, match=r'pip install "paperbench\[ray\]"') as caught:
        base.create("ray", RaySettings(), toys.context(tmp_path / "sweep"))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("settings", [{"address": "local"}, {"address": "ray://head:1"}, {"gpus": -1}, {"cpus": 1}])
def test_settings_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        TypeAdapter(RaySettings).validate_python(settings)


@pytest.mark.parametrize(
    ("free", "reason"),
    [
        ([{"CPU": 1.0}, {"CPU": 1.0}], "waits for 2 CPU on one node; at most 1 CPU are free on one"),
        ([], "waits for 2 CPU on one node; at most 0 CPU are free on one"),
        ([{"CPU": 1.0}, {"CPU": 2.0}], "Ray is starting a process for it"),
    ],
)
def test_a_task_that_has_not_begun_says_what_it_lacks_on_any_node(free: list[dict[str, float]], reason: str) -> None:
    assert shortage({"CPU": 2.0, "GPU": 0.0}, free) == reason


def test_a_cancellation_that_was_lost_is_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []
    ray: Any = SimpleNamespace(
        cancel=lambda _, force: given.append(force), wait=lambda references, timeout: ([], references)
    )
    order = tmp_path / "order"
    handle = RayHandle(ray, object(), order)
    handle.poll()
    handle.stop()
    handle.stop()
    handle.poll()
    assert given == [False]
    assert order.read_text() == "stop"
    later = time.monotonic() + 6
    monkeypatch.setattr(time, "monotonic", lambda: later)
    handle.poll()
    assert given == [False, False]
    handle.kill()
    assert given == [False, False, True]
    assert order.read_text() == "kill"


class FakeErrors:
    RayError = type("RayError", (Exception,), {})
    TaskCancelledError = type("TaskCancelledError", (RayError,), {})


@pytest.mark.parametrize(
    ("code", "error", "killed", "expected"),
    [
        ("3", FakeErrors.RayError, False, (3, None, "")),  # Ray's worker crashed while it ended
        ("3", FakeErrors.TaskCancelledError, False, (3, None, "")),
        ("0", FakeErrors.TaskCancelledError, True, (0, None, "")),
        ("-9", FakeErrors.RayError, True, (None, 9, "killed by SIGKILL")),
        (None, FakeErrors.TaskCancelledError, False, (3, None, "withdrawn")),
        (None, FakeErrors.RayError, True, (None, 9, "killed")),
        (None, FakeErrors.RayError, False, (None, None, "Ray: the worker died")),
    ],
)
def test_the_end_of_a_run_whose_task_ray_ended(
    code: str | None,
    error: type[Exception],
    killed: bool,
    expected: tuple[int | None, int | None, str],
    tmp_path: Path,
) -> None:
    """The run's own exit code counts where there is one, and a sweep that asked for an end has not thereby killed anything."""

    def get(reference: object) -> None:
        raise error("the worker died")

    ray: Any = SimpleNamespace(
        cancel=lambda *_, **__: None, wait=lambda references, timeout: (references, []), get=get, exceptions=FakeErrors
    )
    handle = RayHandle(ray, object(), tmp_path / "order")
    handle.stop()
    if killed:
        handle.kill()
    if code is not None:
        (tmp_path / "order.code").write_text(code)
    ending = handle.poll()
    assert ending is not None
    assert (ending.exit_code, ending.signal, ending.reason) == expected


def test_a_task_that_was_told_to_stop_before_it_began_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "order").write_text("stop")
    assert run_task(["no such folder"], str(tmp_path), {}, str(tmp_path / "order")) == 3


def test_a_sweep_is_not_stopped_by_the_order_of_an_earlier_one(tmp_path: Path) -> None:
    launcher = object.__new__(RayLauncher)
    launcher._folder = tmp_path / "launcher"
    job = toys.job(tmp_path / "run")
    launcher._new_order(job).write_text("stop")
    assert not launcher._new_order(job).exists()


# --- on a cluster -----------------------------------------------------------------------------------------------------

SAVE_EVERY = 5
NODE = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of one node with one CPU, the head; `add_node(**NODE)` adds another. Ends everything it started."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="ray is not installed")
    with (
        loopback_only(),
        tempfile.TemporaryDirectory(prefix="ray-") as folder,
    ):  # sockets lie there, whose paths must be short
        (Path(folder) / "ray").mkdir()
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other tests' memory is not its business
        try:
            cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=NODE)
        except (OSError, RuntimeError) as error:  # no port, no room, no shared memory; anything else is a fault
            pytest.skip(f"Ray does not start here: {error}")
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def launcher(cluster: Any, tmp_path: Path) -> Iterator[RayLauncher]:
    before = signal.getsignal(signal.SIGTERM)
    environment = {name: os.environ[name] for name in ("PYTHONPATH", "TORCH_CPP_LOG_LEVEL")}
    launcher = RayLauncher(RaySettings(environment=environment), toys.context(tmp_path / "sweep"))
    assert signal.getsignal(signal.SIGTERM) is before
    yield launcher
    launcher.close()


@pytest.mark.slow
def test_under_uv_run_the_nodes_keep_their_own_environment(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray._private.runtime_env import uv_runtime_env_hook

    monkeypatch.setattr(uv_runtime_env_hook, "_get_uv_run_cmdline", lambda: ["uv", "run", "paperbench", "sweep"])
    launcher = RayLauncher(RaySettings(), toys.context(tmp_path / "sweep"))
    try:
        assert ray.get_runtime_context().runtime_env == {}
    finally:
        launcher.close()


@pytest.mark.slow
def test_a_node_dies_and_every_run_is_done_as_if_nothing_had_happened(
    cluster: Any, launcher: RayLauncher, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    second = cluster.add_node(**NODE)
    jobs = [toys.job(tmp_path / f"run{n}", seed=n, pace=0.05, steps=80, save_every=SAVE_EVERY) for n in range(2)]
    run_dirs = [job.directories[0] for job in jobs]
    handles = [launcher.submit(job) for job in jobs]
    toys.until(launcher, handles, lambda: sum(toys.at_work(run_dir, after=5) for run_dir in run_dirs) == 2)
    cluster.remove_node(second, allow_graceful=False)
    endings = toys.drive(launcher, handles)
    assert capfd.readouterr().out == ""  # which is the sweep's own
    assert [(ending.exit_code, ending.reason) for ending in endings] == [(0, "")] * 2
    directories = [RunDirectory(run_dir) for run_dir in run_dirs]
    assert [directory.current_state() for directory in directories] == ["done"] * 2
    resumed = [len(directory.environment().get("resumed", [])) for directory in directories]
    assert sorted(resumed) == [0, 1]
    for n, directory in enumerate(directories):
        results = directory.results()
        assert results is not None
        assert results["metrics"] == counter.expected(seed=n, steps=80)
        done = counter.steps_done(directory.path)
        assert sorted(set(done)) == list(range(80))
        assert len(done) <= 80 + SAVE_EVERY  # a dead node takes along what was not yet saved, and no more


@pytest.mark.slow
def test_failing_stopping_and_what_fits_nowhere(launcher: RayLauncher, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentError_, match=r"asks for 2 CPU, and no node.*they have: 1 CPU.*launcher\.threads="):
        launcher.submit(toys.job(tmp_path / "wide", nproc=2))
    killed = launcher.submit(toys.job(tmp_path / "killed", fault="kill@4"))
    (ending,) = toys.drive(launcher, [killed])
    assert (ending.exit_code, ending.signal, ending.reason) == (None, signal.SIGKILL, "killed by SIGKILL")
    working = launcher.submit(toys.job(tmp_path / "working", pace=0.05, steps=4000))
    waiting = launcher.submit(toys.job(tmp_path / "waiting"))
    toys.until(launcher, [working, waiting], lambda: toys.at_work(tmp_path / "working"))
    for handle in (working, waiting):
        handle.stop()
        handle.stop()
    endings = toys.drive(launcher, [working, waiting])
    assert [(ending.exit_code, ending.lost) for ending in endings] == [(3, False)] * 2
    states = [RunDirectory(tmp_path / name).current_state() for name in ("killed", "working", "waiting")]
    assert states == ["killed", "stopped", "waiting"]


@pytest.mark.slow
def test_a_stop_reaches_the_run_though_ray_loses_it(
    launcher: RayLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher._ray, "cancel", lambda *_, **__: None)
    working = launcher.submit(toys.job(tmp_path / "working", pace=0.05, steps=4000))
    toys.until(launcher, [working], lambda: toys.at_work(tmp_path / "working"))
    working.stop()
    (ending,) = toys.drive(launcher, [working], seconds=20)
    assert ending.exit_code == 3
    assert RunDirectory(tmp_path / "working").current_state() == "stopped"


@pytest.mark.slow
def test_no_cluster_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for address, said in (("auto", "part of no running Ray cluster"), ("127.0.0.1:1", "answers at 127.0.0.1:1")):
        with pytest.raises(EnvironmentError_, match=f"{said}.*ray start --head.*launcher.address="):
            RayLauncher(RaySettings(address=address), toys.context(tmp_path / "sweep"))
