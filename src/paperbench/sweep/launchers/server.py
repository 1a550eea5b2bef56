"""The process that starts the runs of a local sweep: `python -m paperbench.sweep.launchers.server DESCRIPTOR MODE MODULE…`.

Importing torch takes seconds, a fork of a process that has imported it milliseconds. This process imports what every run
needs, once, and then waits for orders on the socket DESCRIPTOR, computing nothing itself: it has one thread, no thread pool
and no CUDA context that a child could inherit broken. Each run is a process of its own, in a session of its own, with its
output in its own log. MODE `fresh` imports nothing and starts a new interpreter for each run instead.

Orders, JSON lines: `{"start": ID, "arguments": […], "environment": {…}}`, `{"signal": ID, "number": N}`. Answers:
`{"started": ID, "pid": P}`, `{"refused": ID, "reason": TEXT}`, `{"ended": ID, "exit_code": C | null, "signal": N | null}`. The
end of the socket ends this process, and its end asks the runs to save and stop.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from paperbench.sweep import worker

NEEDED = ("torch", "paperbench.engine.session", "paperbench.engine.stacked")
"""What every run imports."""
USED_BY = {
    "paperbench.engine.optim": ("torch._dynamo",),  # comes with the first optimizer, and takes longer than torch itself
    "paperbench.engine.figures": ("matplotlib.figure", "matplotlib.backends.backend_agg"),
}
"""What a task that has imported the one will import, when it runs, of the others."""
OOM_SCORE = 500
"""Added to a run's badness: when memory runs out, the kernel is to end a run and not the sweep."""


class Server:
    """Starts, signals and buries; `serve` returns when the sweep has hung up."""

    def __init__(self, orders: socket.socket, *, fork: bool) -> None:
        self._orders = orders
        self._fork = fork
        self._parent = os.getppid()
        self._pids: dict[int, int] = {}
        """Number of a job by its process."""
        self._unread = b""
        self._wake, self._woken = socket.socketpair()

    def serve(self) -> None:
        """Until the other end is closed or its process is gone."""
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        while True:
            ready, _, _ = select.select([self._orders, self._woken], [], [], 60)
            if self._woken in ready:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
            self._bury()
            if self._orders in ready and not self._read():
                return

    def close(self) -> None:
        """Hangs up."""
        for held in (self._orders, self._wake, self._woken):
            held.close()

    def _read(self) -> bool:
        received = self._orders.recv(1 << 16)
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            if os.getppid() != self._parent:
                return False  # nobody waits for what would be started now
            self._obey(json.loads(line))
        return bool(received)

    def _obey(self, order: dict[str, Any]) -> None:
        if "start" in order:
            try:
                pid = self._start(order["arguments"], order["environment"])
            except OSError as error:  # no memory, or too many processes, for one more
                self._answer(refused=order["start"], reason=str(error))
                return
            self._pids[pid] = order["start"]
            self._answer(started=order["start"], pid=pid)
            return
        for pid, number in self._pids.items():
            if number == order["signal"]:
                with suppress(ProcessLookupError):
                    os.kill(pid, order["number"])

    def _start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Raises `OSError` where there is no room for one more process."""
        server = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            os.environ.update(environment)
            self._become_run(arguments, server)
        except BaseException as error:
            with suppress(Exception):
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            worker.leave(1)
        raise AssertionError("unreachable")

    def _become_run(self, arguments: Sequence[str], server: int) -> NoReturn:
        """In the child: everything of the server's is let go of, then it is a worker like any other."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.close()
        os.setsid()
        worker.end_with_parent(server)
        worker.speak_to_log(Path(arguments[-1]))
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
        if not self._fork:
            os.execv(sys.executable, [sys.executable, "-m", "paperbench.sweep.worker", *arguments])
        worker.leave(worker.main(arguments))
        raise AssertionError("unreachable")

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._pids.pop(pid, None)
            if number is not None:
                code = os.waitstatus_to_exitcode(status)
                self._answer(ended=number, exit_code=code if code >= 0 else None, signal=-code if code < 0 else None)

    def _answer(self, **answer: Any) -> None:
        with suppress(OSError):  # a sweep that is gone is noticed at the next read
            self._orders.sendall((json.dumps(answer) + "\n").encode())


def main(arguments: Sequence[str]) -> None:
    """Imports, then serves."""
    descriptor, mode, *modules = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if mode == "fork":
        for module in (*NEEDED, *modules):
            _import(module)
        for module in [late for known, later in USED_BY.items() if known in sys.modules for late in later]:
            _import(module)
        gc.collect()
        gc.freeze()  # the collector would otherwise touch, and so copy, every page in every child
    with socket.socket(fileno=int(descriptor)) as orders:
        Server(orders, fork=mode == "fork" and not _has_cuda_context()).serve()


def _has_cuda_context() -> bool:
    """Whether something that was imported has started CUDA, which no fork would survive."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


def _import(module: str) -> None:
    """What cannot be imported is the run's to report, in its own log."""
    with suppress(Exception):
        importlib.import_module(module)


if __name__ == "__main__":
    main(sys.argv[1:])
    worker.leave(0)
