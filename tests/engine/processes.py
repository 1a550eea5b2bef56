"""Runs in processes of their own, which may be killed. They are forked from a server that has imported torch already."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from paperbench.engine.reporter import SilentReporter
from paperbench.errors import PaperbenchError

_CONTEXT = multiprocessing.get_context("forkserver")
# Making an optimizer imports torch's compiler, which takes longer than torch itself: have that over with too.
_CONTEXT.set_forkserver_preload(
    ["tests.engine.toy", "paperbench.engine.session", "paperbench.engine.worker", "torch._dynamo"]
)


def spawn(work: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Starts `work(*arguments)`, a function of a module, in a process of its own."""
    process = _CONTEXT.Process(target=work, args=arguments)
    process.start()
    return process


def join(process: ForkServerProcess, *, seconds: float = 60) -> int:
    """Waits for the end of a process; its exit code, or minus the signal that killed it."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError("the process did not end")
    return process.exitcode


def start(resolved: Mapping[str, Any], run_dir: Path) -> int:
    """`launch.start` in a process of its own; its exit code as the command line would give it."""
    return join(spawn(start_here, dict(resolved), run_dir))


def resume(run_dir: Path) -> int:
    """`launch.resume` in a process of its own."""
    return join(spawn(resume_here, run_dir))


def start_here(resolved: Mapping[str, Any], run_dir: Path) -> None:
    from paperbench.engine import launch

    _exit_with(lambda: launch.start(resolved, run_dir=run_dir, reporter=SilentReporter()).exit_code)


def resume_here(run_dir: Path) -> None:
    from paperbench.engine import launch

    _exit_with(lambda: launch.resume(run_dir, SilentReporter()).exit_code)


def start_under_torchrun_here(resolved: Mapping[str, Any], run_dir: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)  # the server was started before the test changed its own
    start_here(resolved, run_dir)


def resume_under_torchrun_here(run_dir: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    resume_here(run_dir)


def start_ranks(resolved: Mapping[str, Any], run_dir: Path) -> list[int]:
    """Makes the run directory and does the run in `nproc` workers, as torchrun would; their exit codes."""
    from paperbench.engine.rundir import RunDirectory

    RunDirectory.create(run_dir.parent, "toy", resolved, run_dir).release()
    return resume_ranks(run_dir, int(resolved["nproc"]))


def resume_ranks(run_dir: Path, world: int) -> list[int]:
    """Does or continues a run in `world` workers, as torchrun would; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [spawn(_rank_here, rank, world, port, run_dir) for rank in range(world)]
    return [join(worker) for worker in workers]


def _rank_here(rank: int, world: int, port: int, run_dir: Path) -> None:
    from paperbench.engine import worker

    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
        TORCH_CPP_LOG_LEVEL="ERROR",
    )
    _exit_with(lambda: worker.main([str(run_dir)]))


def _exit_with(work: Callable[[], int]) -> None:
    from tests.engine import toy

    toy.register()
    try:
        code = work()
    except PaperbenchError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Returns as soon as `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def status(run_dir: Path) -> dict[str, Any]:
    """The content of a run's status.json; empty while there is none."""
    try:
        return json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
