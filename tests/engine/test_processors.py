"""Cores that a process may use: fewer than the machine has under taskset, and in a container with a limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paperbench.engine import processors

V1 = "3:cpuset:/box\n2:cpu,cpuacct:/box/inner\n0::/\n"
V2 = "0::/box/inner\n"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores whose groups are folders of this test; returns the outermost."""
    monkeypatch.setattr(processors, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(processors, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path / "groups"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 8), ("300000 100000", 3), ("150000 100000", 2), ("1000 100000", 1), ("x", 8)]
)
@pytest.mark.parametrize("folder", ["", "box", "box/inner"])
def test_a_limit_of_the_group_or_one_around_it(groups: Path, limit: str, cores: int, folder: str) -> None:
    write(groups.parent / "own", V2)
    write(groups / folder / "cpu.max", f"{limit}\n")
    assert processors.usable_cores() == cores


def test_the_narrowest_limit_holds(groups: Path) -> None:
    write(groups.parent / "own", V2)
    write(groups / "box" / "cpu.max", "400000 100000\n")
    write(groups / "box/inner" / "cpu.max", "600000 100000\n")
    assert processors.usable_cores() == 4


@pytest.mark.parametrize(("quota", "cores"), [(-1, 8), (250000, 3), (2000000, 8)])
@pytest.mark.parametrize("folder", ["cpu,cpuacct/box/inner", "cpu,cpuacct", "cpu"])
def test_a_limit_of_the_older_groups(groups: Path, quota: int, cores: int, folder: str) -> None:
    write(groups.parent / "own", V1)
    write(groups / folder / "cpu.cfs_quota_us", f"{quota}\n")
    write(groups / folder / "cpu.cfs_period_us", "100000\n")
    assert processors.usable_cores() == cores


@pytest.mark.parametrize("own", [None, "", "nonsense\n"])
def test_without_groups_the_cores_that_are_granted_count(groups: Path, own: str | None) -> None:
    if own is not None:
        write(groups.parent / "own", own)
    assert processors.usable_cores() == 8


@pytest.mark.parametrize(("ranks", "readers"), [(1, 6), (2, 3), (8, 2)])
def test_readers_follow_from_the_cores_and_the_processes_of_a_run(ranks: int, readers: int) -> None:
    script = """
from paperbench.engine import processors
processors.usable_cores = lambda: 6
from paperbench.data.image_files import READERS
print(READERS)
"""
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_WORLD_SIZE": str(ranks)}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **torchrun}, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == readers
