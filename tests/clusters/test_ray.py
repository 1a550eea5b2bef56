"""Sweeps on a real Ray cluster, which loses its sweep and its workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from paperbench.records.place import read_place
from tests.clusters.ray import PROGRAM, Ray, until
from tests.clusters.sweeps import Folder, start_on_ray, states
from tests.engine import processes
from tests.loopback import loopback_only

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


def queued(folder: Folder) -> list[Path]:
    return [path for path in folder.run_dirs() if (place := read_place(path)) and place.state == "queued"]


def test_the_runs_of_a_killed_sweep_save_and_the_same_command_continues_them(ray: Ray, folder: Folder) -> None:
    command = ("seed=0,1", "save_every=1000", f"gate={folder.gate}")
    sweep = start_on_ray(folder, *command)
    sweep.until(lambda: len(folder.steps()) == 2 and all(len(steps) > 10 for steps in folder.steps().values()))
    sweep.kill()
    until(lambda: [processes.status(path).get("state") for path in folder.run_dirs()] == ["stopped"] * 2)
    folder.gate.touch()
    assert start_on_ray(folder, *command).end() == 0
    assert states(folder) == ["done"] * 2
    assert all(steps == list(range(20)) for steps in folder.steps().values())


def test_a_run_that_waits_is_queued_and_says_why(ray: Ray, folder: Folder) -> None:
    sweep = start_on_ray(folder, "seed=0,1,2", f"gate={folder.gate}")
    sweep.until(lambda: len(folder.steps()) == 2 and len(queued(folder)) == 1)
    (waiting,) = queued(folder)
    # What is free is looked at every two seconds: until then Ray may still be said to start a process for it.
    sweep.until(lambda: "1 CPU" in getattr(read_place(waiting), "reason", ""), seconds=20)
    (shown,) = [run for run in folder.runs() if run["state"] == "queued"]
    assert "waits for 1 CPU on one node" in shown["job"]["reason"]
    folder.gate.touch()
    assert sweep.end() == 0, sweep.output
    assert states(folder) == ["done"] * 3


def test_two_sweeps_that_share_a_run_submit_it_once(ray: Ray, folder: Folder) -> None:
    first = start_on_ray(folder, "seed=0,1,2", f"gate={folder.gate}")
    first.until(lambda: len(folder.steps()) == 2 and len(queued(folder)) == 1)
    (waiting,) = queued(folder)
    seed = yaml.safe_load((waiting / "config.yaml").read_text())["seed"]
    second = start_on_ray(folder, f"seed={seed}", f"gate={folder.gate}")
    second.until(lambda: "elsewhere" in second.output)
    folder.gate.touch()
    assert [sweep.end() for sweep in (first, second)] == [0, 0], second.output
    assert states(folder) == ["done"] * 3
    submitted = [event["run"] for event in folder.events() if event["event"] == "started"]
    assert len(submitted) == len(set(submitted)) == 3


def test_a_killed_worker_is_replaced(ray: Ray, folder: Folder) -> None:
    sweep = start_on_ray(folder, "seed=0", f"gate={folder.gate}")
    sweep.until(lambda: any(len(steps) > 10 for steps in folder.steps().values()))
    (worker,) = [pid for pid in _ray_workers() if _is_of_namespace(pid)]
    os.kill(worker, signal.SIGKILL)
    folder.gate.touch()
    assert sweep.end() == 0, sweep.output
    (steps,) = folder.steps().values()
    assert steps == list(range(20))


def _ray_workers() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cmdline").read_bytes().startswith(b"ray::counter-"):
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def _is_of_namespace(pid: int) -> bool:
    return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/thread-self/ns/net").readlink()
