"""The process that forks the runs of a local sweep: the standard library's fork server, with torch imported beforehand.

Importing torch takes seconds, a fork of a process that has imported it milliseconds. The server imports this module first
(`set_forkserver_preload`), which imports what every run needs. It computes nothing itself: it has one thread, no thread pool
and no CUDA context that a child could inherit broken. Each run is a process in a session of its own, with its output in its
own log. When the sweep ends or is killed the server ends, and its end asks the runs to save and stop.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

from paperbench.sweeps import worker
from paperbench.sweeps.launchers.base import interrupts_blocked

ALWAYS_IMPORTED = ("torch", "paperbench.engine.session", "paperbench.engine.stacked")
"""Modules that every run imports."""
IMPORTED_LATE = {
    "paperbench.engine.optim": ("torch._dynamo",),  # comes with the first optimizer, and takes longer than torch itself
    "paperbench.engine.figures": ("matplotlib.figure", "matplotlib.backends.backend_agg"),
}
"""Modules that a task which has imported the key imports while it runs."""

_VARIABLE = "PAPERBENCH_FORKSERVER_IMPORTS"
"""Environment variable that tells the server's process from all others that import this module: names, a space between."""
_SECONDS_TO_EXIT = 1.0
_cuda_started = False
"""Set in the server where an import has started CUDA, which no fork would survive."""


# --- in the sweep -----------------------------------------------------------------------------------------------------


class ForkServer(forkserver.ForkServer):
    """A fork server of one sweep.

    `multiprocessing` has one for the whole program, which cannot be stopped and which imports what others asked of it.
    """

    _forkserver_alive_fd: int
    _forkserver_address: str

    def __init__(self, modules: Sequence[str], *, threads: int) -> None:
        """`modules` are those of the tasks; `threads` is for libraries that make their thread pool when they are loaded."""
        super().__init__()
        self.set_forkserver_preload([__name__])
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self._environment = {
            _VARIABLE: " ".join((*ALWAYS_IMPORTED, *modules)),
            **dict.fromkeys(worker.THREAD_VARIABLES, str(threads)),
            # Asking the driver whether there is a GPU must not start it: a fork could not use it any more.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }

    def ensure_running(self) -> None:
        """Start the server; one that has died stays dead, and is noticed when a start fails. Raises `OSError`."""
        if self._forkserver_pid is not None:
            return
        resource_tracker.ensure_running()  # first, since it would unblock SIGINT
        with _environment(self._environment), _output_redirected(self._output.fileno()), interrupts_blocked():
            super().ensure_running()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> ForkedProcess:
        """Start `paperbench.sweeps.worker ARGUMENTS…` with further environment variables.

        Waits until the server has imported everything. Raises `OSError` or `EOFError` if the server is dead or could not fork.
        """
        status, pipe = self.connect_to_new_process([])
        try:
            with os.fdopen(pipe, "wb") as file:
                pickle.dump({"dir": str(Path.cwd()), "sys_path": sys.path}, file)
                pickle.dump(_Run(tuple(arguments), dict(environment)), file)
            return ForkedProcess(forkserver.read_signed(status), status)
        except BaseException:
            os.close(status)
            raise

    def close(self, *, kill: bool = True) -> tuple[int, str]:
        """End the server, at once or, if not `kill`, after a moment; return its exit code and the last line that it printed."""
        assert self._forkserver_pid is not None
        code = None if kill else _exit_code(self._forkserver_pid)
        if code is None:
            os.kill(self._forkserver_pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(self._forkserver_pid, 0)[1])
        os.close(self._forkserver_alive_fd)
        with suppress(OSError, ValueError):
            Path(self._forkserver_address).unlink()
        self._forkserver_pid = None
        with self._output:
            self._output.seek(0)
            lines = self._output.read().decode("utf-8", errors="replace").strip().splitlines()
        return code, lines[-1] if lines else "no message"


class ForkedProcess:
    """A child of the server, known by its process id and the pipe through which the server reports its end."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.status: int | None = status
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that killed it, or None. Raises `EOFError` if the server is dead."""
        if self.status is not None and select.select([self.status], [], [], 0)[0]:
            try:
                self.returncode = forkserver.read_signed(self.status)
            finally:
                os.close(self.status)
                self.status = None
        return self.returncode


def _exit_code(pid: int) -> int | None:
    """Wait a moment for a process that is about to end."""
    deadline = time.monotonic() + _SECONDS_TO_EXIT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _output_redirected(descriptor: int) -> Iterator[None]:
    """Let `descriptor` be stdout and stderr of processes that are started meanwhile."""
    before = {number: os.dup(number) for number in (1, 2)}
    try:
        for number in before:
            os.dup2(descriptor, number)
        yield
    finally:
        for number, copy in before.items():
            os.dup2(copy, number)
            os.close(copy)


# --- in the server and its children -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """A job as the child unpickles it, in the place of a `multiprocessing.Process`."""

    arguments: tuple[str, ...]
    environment: dict[str, str]

    def _bootstrap(self, parent_sentinel: int) -> int:
        """Release what belongs to the server, and do the job. `multiprocessing.spawn` calls this in the child."""
        os.close(parent_sentinel)
        # The server ends when nobody holds this any more: with the sweep, and not with its last run.
        os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.setsid()
        os.environ.update(self.environment)
        if _cuda_started:
            own = ["--parent", str(os.getppid())]
            os.execv(sys.executable, [sys.executable, "-m", worker.__name__, *own, *self.arguments])
        worker.run_process(self.arguments, parent=_SERVER_PID)


_SERVER_PID = os.getpid()
"""The process that imported this module: in a child of the server, the server."""


def _preload(modules: Sequence[str]) -> None:
    """Import `modules` into the server. A run reports in its own log what cannot be imported."""
    global _cuda_started
    os.setsid()  # Ctrl-C at the terminal reaches the sweep alone
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for module in modules:
        _import(module)
    for module in [late for key, names in IMPORTED_LATE.items() if key in sys.modules for late in names]:
        _import(module)
    torch = sys.modules.get("torch")
    _cuda_started = torch is not None and torch.cuda.is_initialized()
    gc.collect()
    gc.freeze()  # the collector would otherwise touch, and so copy, every page in every child


def _import(module: str) -> None:
    with suppress(Exception):
        importlib.import_module(module)


if (_names := os.environ.pop(_VARIABLE, None)) is not None:
    _preload(_names.split())
