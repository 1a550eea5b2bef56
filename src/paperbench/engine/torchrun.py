"""torchrun: the variables that it sets for its processes, and a run of several processes on this machine through it.

The command starts `python -m paperbench.engine.torchrun NPROC RUN_DIR`, the agent. It starts and watches the processes as the
command `torchrun` does, with torchrun's own library, but does not outlive the process that started it, and leaves it to that
process to report a failure. Imports torch in the agent only.

The command `torchrun` opens a port on every interface, without a password, where whoever can reach it may hand the processes
pickled objects. Processes of one machine need no port: they meet through a file, and exchange tensors over the loopback.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from paperbench.config.commands import command
from paperbench.engine.environment import ENV_ARGV
from paperbench.engine.processes import require_posix
from paperbench.engine.signals import SignalHandlers, StopFlag
from paperbench.errors import EXIT_INTERRUPTED

WorkerReporter = tuple[str, Mapping[str, Any]]
"""The reporter that rank 0 of several processes makes: `module:callable` and keyword arguments that JSON can hold."""

ENV_REPORTER = "PAPERBENCH_WORKER_REPORTER"
ENV_PIDS = "PAPERBENCH_WORKER_PIDS"
"""A folder in which each rank writes its process id to a file named by its rank, once it is ready for signals."""
ENV_LAUNCHER = "PAPERBENCH_LAUNCHER_PID"
ENV_STORE = "PAPERBENCH_STORE"
"""The file through which processes of one machine meet; absent where the command `torchrun` started them."""
_SECONDS_TO_SAVE = 60
"""For the processes to end after SIGTERM, before they are killed."""

_PR_SET_PDEATHSIG = 1


# --- the variables that torchrun sets ---------------------------------------------------------------------------------


def under_torchrun() -> bool:
    """Return True if torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def rank() -> int:
    """Return this process's number; 0, the one that reports, outside torchrun."""
    return int(os.environ["RANK"]) if under_torchrun() else 0


def local_rank() -> int:
    """Return this process's number on its machine; 0 outside torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0")) if under_torchrun() else 0


def world_size() -> int:
    """Return the number of processes that torchrun started on all hosts together; 1 outside it."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def processes_here() -> int:
    """Return the number of processes that torchrun started on this machine; 1 outside it."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if under_torchrun() else 1


def how_to_continue(run_dir: Path) -> str:
    """Return the words for the command that continues a run of this process.

    The command `torchrun` knows how many hosts and processes there are; `resume` on one host could not start them.
    """
    if under_torchrun() and ENV_STORE not in os.environ:
        return "the same torchrun command on every host"
    return f"`{command('resume', run_dir)}`"


# --- starting the agent -----------------------------------------------------------------------------------------------


def require(nproc: int) -> None:
    """Raise `EnvironmentError_` where this system cannot do a run in `nproc` processes."""
    if nproc > 1:
        require_posix(f"nproc={nproc}", instead="take nproc=1")


def run_workers(
    run_dir: Path, nproc: int, stop: StopFlag, *, threads: int, worker_reporter: WorkerReporter | None = None
) -> int:
    """Do the run in `nproc` processes of `threads` threads each; return the exit code of their agent, 0 if all ended well.

    SIGTERM, SIGINT and SIGUSR1 are passed on to rank 0. A second SIGINT ends the workers and this process.
    """
    with tempfile.TemporaryDirectory(prefix="paperbench-") as scratch:
        environment = {
            # DDP on a CPU has to expect unused parameters (see `trainer`) and would warn that there are none.
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            ENV_PIDS: scratch,
            ENV_LAUNCHER: str(os.getpid()),
            ENV_ARGV: json.dumps(sys.argv),
            ENV_REPORTER: json.dumps(worker_reporter) if worker_reporter else "",
        }
        words = [sys.executable, "-m", "paperbench.engine.torchrun", str(nproc), str(run_dir.resolve())]
        # A session of its own: Ctrl-C at the terminal reaches this process alone, which passes it on once.
        with (
            subprocess.Popen(words, env=environment, start_new_session=True) as agent,
            SignalForwarding(agent, Path(scratch)) as forwarding,
        ):
            passed_on = False
            while agent.poll() is None:
                if (
                    stop and not passed_on
                ):  # a signal before there was a process to pass it on to, or the parent's death
                    forwarding.pending.append(signal.SIGTERM)
                    passed_on = True
                forwarding.deliver()
                with suppress(subprocess.TimeoutExpired):
                    agent.wait(timeout=0.2)
    return agent.returncode


class SignalForwarding(SignalHandlers):
    """Pass signals on to rank 0, which tells the other ranks; a second SIGINT ends all of them and this process."""

    def __init__(self, agent: subprocess.Popen[bytes], pids: Path) -> None:
        super().__init__()
        self.pending: list[int] = []
        self._agent = agent
        self._pids = pids
        self._interrupts = 0

    def deliver(self) -> None:
        """Send the signals that have arrived, once rank 0 is ready for them."""
        if not self.pending:
            return
        with suppress(OSError, ValueError):
            pid = int((self._pids / "0").read_text(encoding="ascii"))
            while self.pending:
                os.kill(pid, self.pending.pop(0))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self._abort()
        self.pending.append(number)

    def _abort(self) -> None:
        with suppress(OSError):
            self._agent.kill()
        for file in self._pids.iterdir():
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text(encoding="ascii")), signal.SIGKILL)
        shutil.rmtree(self._pids, ignore_errors=True)
        os._exit(EXIT_INTERRUPTED)


# --- the agent --------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Run the workers as torchrun does and wait for them; return 0 if all ended well."""
    nproc, run_dir = arguments
    _end_with_launcher()
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes
    from torch.distributed.elastic.multiprocessing.api import SignalException

    # The workers record their failures in the run directory; torchrun's own account of them would only repeat it.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="paperbench-") as scratch:
        ranks = range(int(nproc))
        workers = start_processes(
            name="paperbench",
            entrypoint=sys.executable,
            args=dict.fromkeys(ranks, ("-m", "paperbench.engine.worker", run_dir)),
            envs={rank: _variables(rank, len(ranks), str(Path(scratch) / "store")) for rank in ranks},
            logs_specs=DefaultLogsSpecs(log_dir=str(Path(scratch) / "logs")),
        )
        try:
            result = workers.wait(period=0.1)
        except SignalException as error:
            workers.close(death_sig=error.sigval, timeout=_SECONDS_TO_SAVE)
            return 1
        return int(result is None or result.is_failed())


def _variables(rank: int, world: int, store: str) -> dict[str, str]:
    """Return the variables that torchrun sets for a process, the file to meet at, and the loopback to speak over."""
    loopback = "lo" if sys.platform.startswith("linux") else "lo0"
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "TORCHELASTIC_RUN_ID": "paperbench",
        ENV_STORE: store,
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }


def _end_with_launcher() -> None:
    """On Linux, ask for SIGTERM when the launcher dies: torchrun passes it on, and the workers save and stop."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.environ.get(ENV_LAUNCHER, str(os.getppid())) != str(os.getppid()):
        sys.exit(1)  # it died before the request was made


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written and closed. torch.distributed's own threads may outlive the interpreter's teardown and would
    # then abort the process, which torchrun takes for a failure.
    os._exit(code)
