"""Which GPU a run of a sweep gets, on machines that are only said to have any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.errors import EnvironmentError_
from paperbench.sweeps.launchers import gpus, local
from paperbench.sweeps.launchers.base import Context, Job, RunRefused
from paperbench.sweeps.launchers.local import LocalHandle, LocalLauncher, LocalSettings


class Process:
    """A run that is at work until it is told otherwise."""

    pid, status = 0, None

    def __init__(self, environment: Any) -> None:
        self.visible = environment.get("CUDA_VISIBLE_DEVICES")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "_start_interpreter", lambda job, environment, threads: Process(environment))
    return monkeypatch


def with_gpus(machine: pytest.MonkeyPatch, count: int, inherited: str | None = None) -> None:
    machine.setattr(torch.cuda, "device_count", lambda: count)
    if inherited is not None:
        machine.setenv("CUDA_VISIBLE_DEVICES", inherited)


def made(folder: Path, **settings: Any) -> LocalLauncher:
    return LocalLauncher(
        LocalSettings(start="fresh", **settings), Context(name="test", directory=folder, jobs=8, threads=1)
    )


def submit(launcher: LocalLauncher, folder: Path, **changes: Any) -> LocalHandle:
    return launcher.submit(Job(directories=(folder,), threads=1, name="run", **changes))


def seen(handle: LocalHandle) -> str | None:
    assert isinstance(handle.process, Process)
    return handle.process.visible


@pytest.mark.parametrize(
    ("count", "inherited", "expected"),
    [
        (0, None, ()),
        (0, "", ()),
        (0, "-1", ()),
        (3, None, ("0", "1", "2")),
        (2, "4,5", ("4", "5")),
        (2, " 5 , 4 ", ("5", "4")),
        (1, "3,-1,2", ("3",)),
        (2, "GPU-8f3e,GPU-1a2b", ("GPU-8f3e", "GPU-1a2b")),
        (1, "MIG-11,MIG-22,MIG-22", ("MIG-11", "MIG-22")),
        (1, "MIG-GPU-8f3e/1/0", ("MIG-GPU-8f3e/1/0",)),
    ],
)
def test_the_names_of_what_is_visible(
    machine: pytest.MonkeyPatch, count: int, inherited: str | None, expected: tuple[str, ...]
) -> None:
    with_gpus(machine, count, inherited)
    assert gpus.visible_gpus() == expected


def test_eight_runs_on_two_gpus_that_were_inherited(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_gpus(machine, 2, "4,5")
    launcher = made(tmp_path)
    handles = [submit(launcher, tmp_path) for _ in range(8)]
    assert [seen(handle) for handle in handles] == ["4", "5"] * 4
    for ended in (handles[1], handles[3]):
        assert isinstance(ended.process, Process)
        ended.process.returncode = 0
    assert [seen(submit(launcher, tmp_path)) for _ in range(3)] == ["5", "5", "4"]


def test_the_launcher_counts_from_the_first_that_is_visible(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_gpus(machine, 3, "4,GPU-5,7")
    launcher = made(tmp_path, gpus=(1, 2))
    assert [seen(submit(launcher, tmp_path)) for _ in range(3)] == ["GPU-5", "7", "GPU-5"]
    with pytest.raises(EnvironmentError_, match=r"launcher\.gpus=\[4, 5\]: torch sees 3 \(0 to 2\)"):
        made(tmp_path, gpus=(4, 5))
    with_gpus(machine, 0)
    with pytest.raises(EnvironmentError_, match=r"launcher\.gpus=\[0\]: torch sees none"):
        made(tmp_path, gpus=(0,))


def test_a_run_of_two_processes_has_two(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_gpus(machine, 4)
    launcher = made(tmp_path)
    assert [seen(submit(launcher, tmp_path, processes=n)) for n in (1, 2, 2, 1)] == ["0", "1,2", "3,0", "1"]
    with pytest.raises(
        RunRefused, match=r"nproc=5: each process needs a GPU of its own, and the sweep has 4 .*0, 1, 2, 3"
    ):
        submit(launcher, tmp_path, processes=5)


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda:1"])
def test_a_run_that_needs_no_choice_is_left_alone(machine: pytest.MonkeyPatch, tmp_path: Path, device: str) -> None:
    with_gpus(machine, 2)
    launcher = made(tmp_path)
    assert seen(submit(launcher, tmp_path, device=device, processes=8 if device == "cpu" else 1)) is None
    assert seen(submit(launcher, tmp_path)) == "0"


def test_a_machine_without_gpus_is_asked_for_none(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_gpus(machine, 0)
    assert seen(submit(made(tmp_path), tmp_path, processes=2)) is None
