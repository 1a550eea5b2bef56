"""Runs that torchrun starts on several hosts; two agents of this machine stand for two torchrun."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from paperbench.engine import launch
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import ConfigError, EnvironmentError_
from tests.engine import processes, toy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rank_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that torchrun sets for the second of two processes."""
    toy.register(monkeypatch)
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("rank_1")
def test_the_number_of_processes_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nproc=3, and torchrun started 2 processes in all.*--nnodes"):
        launch.start(toy.config(nproc=3), run_dir=tmp_path / "run", reporter=SilentReporter())
    assert not (tmp_path / "run").exists()
    RunDirectory.create(tmp_path, "toy", toy.config(), tmp_path / "alone").release()
    with pytest.raises(ConfigError, match="alone: nproc=1, and torchrun started 2"):
        launch.resume(tmp_path / "alone", SilentReporter())


@pytest.mark.usefixtures("rank_1")
def test_a_host_that_does_not_see_the_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_SECONDS_FOR_THE_DIRECTORY", 0.0)
    with pytest.raises(EnvironmentError_, match=r"run has not appeared on this host.*must share the folder"):
        launch.start(toy.config(nproc=2), run_dir=tmp_path / "run", reporter=SilentReporter())


def test_the_directory_follows_from_the_configuration(tmp_path: Path) -> None:
    config = toy.config(nproc=2, output={"root": str(tmp_path)})
    found = launch.directory_of(config, None)
    assert found.parent == tmp_path / "toy"
    assert found == launch.directory_of({**config, "tensorboard": True}, None)
    assert found != launch.directory_of({**config, "seed": 4}, None)
    assert launch.directory_of(config, tmp_path / "mine") == tmp_path / "mine"


def test_the_same_command_continues_what_a_killed_process_left(tmp_path: Path) -> None:
    run_dir, other = tmp_path / "run", tmp_path / "other"
    config = toy.config(nproc=2, fault="kill@4", fault_rank=1)
    assert start_everywhere(config, run_dir) == [1, -signal.SIGKILL]
    assert RunDirectory(run_dir).current_state() == "failed"
    assert start_everywhere(config, run_dir) == [0, 0]
    assert processes.start_ranks(toy.config(nproc=2), other) == [0, 0]
    assert toy.record(run_dir) == toy.record(other)
    before = (run_dir / "results.json").stat().st_mtime_ns
    assert start_everywhere(config, run_dir) == [0, 0]  # nothing is left to do
    assert (run_dir / "results.json").stat().st_mtime_ns == before
    assert start_everywhere({**config, "seed": 4}, run_dir) == [2, 2]  # another run's folder


def start_everywhere(config: Mapping[str, Any], run_dir: Path) -> list[int]:
    """`launch.start` in two processes as torchrun would have them; their exit codes."""
    port = free_port()
    ranks = [processes.spawn(_start_here, rank, port, dict(config), run_dir) for rank in range(2)]
    return [processes.join(rank) for rank in ranks]


def _start_here(rank: int, port: int, config: Mapping[str, Any], run_dir: Path) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
        TORCH_CPP_LOG_LEVEL="ERROR",
    )
    processes.start_here(config, run_dir)


# --- as documented ----------------------------------------------------------------------------------------------------


def documented(*, containing: str) -> str:
    """The one torchrun command in docs/clusters.md that contains that text, as it stands there."""
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8").replace("\\\n", "")
    (command,) = [line for line in text.splitlines() if line.startswith("torchrun") and containing in line]
    return command


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def on_two_hosts(command: str, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Run the same command twice, at the same time; return what each printed. On a free port, for tests that run in parallel."""
    program, *arguments = shlex.split(command.replace("localhost:29500", f"localhost:{free_port()}"))
    assert program == "torchrun"
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        printed = [agent.communicate(timeout=140)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(printed)
    return printed


@pytest.mark.slow
def test_the_documented_commands(tmp_path: Path) -> None:
    command = documented(containing="train faster-rcnn --smoke")
    environment = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    printed = on_two_hosts(command, tmp_path, environment)
    directory = RunDirectory(tmp_path / "outputs" / "two-hosts")
    results = directory.results()
    assert directory.current_state() == "done"
    assert results is not None
    assert 0 <= results["metrics"]["coco/AP50"] <= 100
    assert directory.config()["nproc"] == 2
    assert sorted("2 processes" in text for text in printed) == [False, True]  # only the first reports
    before = directory.results_file.stat().st_mtime_ns
    again = on_two_hosts(documented(containing="resume outputs/two-hosts"), tmp_path, environment)
    assert sum("is done already" in text for text in again) == 1
    assert directory.results_file.stat().st_mtime_ns == before


# --- on one host -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks for sockets in /proc")
def test_processes_of_one_host_listen_on_the_loopback_alone(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    environment = {**os.environ, **toy.site(tmp_path / "site")}
    command = [sys.executable, "-c", ON_ONE_HOST, str(run_dir), json.dumps(toy.config(nproc=2, pace=0.3))]
    with subprocess.Popen(command, env=environment) as run:
        try:
            processes.wait_for(lambda: processes.status(run_dir).get("step", 0) > 2, seconds=200)
            family = _family(run.pid)
            assert len(family) >= 4  # itself, the agent and two ranks
            listening = [address for pid in family for address in _listening(pid)]
        finally:
            run.send_signal(signal.SIGTERM)
    assert {address for address in listening if not address.startswith("127.")} == set()
    assert run.returncode == 3


ON_ONE_HOST = """
import json, sys
from pathlib import Path
from paperbench.engine import launch
from paperbench.engine.reporter import SilentReporter
sys.exit(launch.start(json.loads(sys.argv[2]), run_dir=Path(sys.argv[1]), reporter=SilentReporter()).exit_code)
"""


def _family(pid: int) -> list[int]:
    """The process and all below it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        below = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(other for child in below for other in _family(child))]


def _listening(pid: int) -> list[str]:
    """The addresses at which a process listens, as IPv4 or as hexadecimal digits of IPv6."""
    inodes = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                address = local.partition(":")[0]
                short = len(address) == 8
                found.append(socket.inet_ntoa(bytes.fromhex(address)[::-1]) if short else address)
    return found
