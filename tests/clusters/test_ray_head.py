"""Sweeps on a real Ray cluster whose head does not answer, dies, or is lost with its machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from paperbench.errors import EnvironmentError_
from paperbench.sweeps.launchers import ray as ray_launcher
from paperbench.sweeps.launchers.ray import RayLauncher, RaySettings
from tests.clusters.ray import PROGRAM, Ray, until
from tests.clusters.sweeps import Folder, start_on_ray
from tests.engine import processes
from tests.loopback import loopback_only
from tests.sweeps.launchers import toys

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not PROGRAM.exists(), reason="the extra ray is not installed"),
]


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    with loopback_only(), Ray() as ray:
        yield ray


@pytest.fixture
def folder(ray: Ray, tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path / "work", ray.environment)
    yield folder
    folder.close()


def test_a_head_that_does_not_answer_is_given_up(ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_launcher, "_SECONDS_TO_JOIN", 4.0)
    monkeypatch.setenv("RAY_TMPDIR", str(ray.run))
    (head,) = ray.pids("gcs_server")
    os.kill(head, signal.SIGSTOP)
    try:
        with pytest.raises(EnvironmentError_, match="does not answer within 4 s"):
            RayLauncher(RaySettings(), toys.context(tmp_path / "sweep"))
    finally:
        os.kill(head, signal.SIGCONT)


def test_a_dead_head_ends_the_sweep_with_the_command_that_continues_it(ray: Ray, folder: Folder) -> None:
    sweep = start_on_ray(folder, "seed=0", "steps=2000", "pace=0.1")
    sweep.until(lambda: len(folder.steps()) == 1)
    ray.kill("gcs_server")
    code = sweep.end(100)
    assert code == 4, sweep.output
    assert "the head of the Ray cluster" in sweep.output
    assert "continue it" in sweep.output
    assert "--resume" in sweep.output
    assert "Check failed" not in sweep.output
    assert "gcs_rpc_client" not in sweep.output
    until(lambda: [processes.status(path).get("state") for path in folder.run_dirs()] == ["stopped"], seconds=120)


def test_a_lost_node_ends_the_sweep_with_the_command_that_continues_it(ray: Ray, folder: Folder) -> None:
    """As when the machine of the head restarts: Ray then ends the process that had joined it, in the middle of anything."""
    ray.end()
    ray.start_head()
    sweep = start_on_ray(folder, "seed=0", "steps=2000", "pace=0.1")
    sweep.until(lambda: len(folder.steps()) == 1)
    ray.end()
    code = sweep.end(100)
    assert code == 4, sweep.output
    assert "head" in sweep.output
    assert "paperbench sweep --resume" in sweep.output
    assert "[0x" not in sweep.output
    assert folder.events()[-1]["exit_code"] == 4
    until(lambda: [processes.status(path).get("state") for path in folder.run_dirs()] == ["stopped"], seconds=120)
