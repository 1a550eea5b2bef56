"""Launcher `local`: one process a run on this machine, started by a server process that has torch imported already."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Literal

from paperbench.config.schema import NonNegativeInt, Schema
from paperbench.errors import EnvironmentError_
from paperbench.sweep.launchers.base import Context, Ending, Job

_MOST_DEATHS = 3
"""Of the server in a row, none of which started a run: then it is not being killed, it does not work."""
_SECONDS_TO_CLOSE = 5.0


@dataclass(kw_only=True)
class LocalSettings(Schema):
    """`conf/launcher/local.yaml`."""

    start: Literal["auto", "fork", "fresh"] = "auto"
    """`fork`: from a process that has imported torch once; `fresh`: a new interpreter for each run. `auto` forks on Linux;
    elsewhere the system's own libraries do not all survive it."""
    gpus: tuple[NonNegativeInt, ...] = ()
    """Numbers of the GPUs to hand out, each run sees the one that fewest others have; empty: every run sees all of them."""


class LocalHandle:
    """One process, known by the number of its job; its process id is the server's to tell."""

    def __init__(self, launcher: LocalLauncher, number: int, gpu: int | None) -> None:
        self._launcher = launcher
        self.number = number
        self.gpu = gpu
        self.pid: int | None = None
        self.ending: Ending | None = None

    def poll(self) -> Ending | None:
        return self.ending

    def stop(self) -> None:
        if self.ending is None:
            self._launcher.send({"signal": self.number, "number": int(signal.SIGTERM)})

    def kill(self) -> None:
        """The process and, since it leads a session, what it started in it."""
        if self.ending is None and self.pid is not None:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)


class LocalLauncher:
    """See `base.Launcher`. A server that is killed is replaced: its runs have saved and stopped, and are given out anew."""

    Settings = LocalSettings
    DEFAULT_JOBS = 1

    def __init__(self, settings: LocalSettings, context: Context) -> None:
        fork = settings.start == "fork" or (settings.start == "auto" and sys.platform.startswith("linux"))
        self._mode = "fork" if fork else "fresh"
        self._gpus = settings.gpus
        self._modules = context.modules
        self._threads = context.threads
        self._handles: dict[int, LocalHandle] = {}
        self._count = 0
        self._deaths = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._said: IO[bytes] | None = None
        self._unread = b""

    def warm(self) -> None:
        """Starts the server, which imports what the runs need."""
        if self._server is None:
            self._start()

    def submit(self, job: Job) -> LocalHandle:
        self.warm()
        self._count += 1
        handle = LocalHandle(self, self._count, self._free_gpu())
        self._handles[handle.number] = handle
        environment = {} if handle.gpu is None else {"CUDA_VISIBLE_DEVICES": str(handle.gpu)}
        self.send({"start": handle.number, "arguments": job.arguments(), "environment": environment})
        return handle

    def _free_gpu(self) -> int | None:
        taken = Counter(handle.gpu for handle in self._handles.values())
        return min(self._gpus, key=lambda gpu: taken[gpu], default=None)

    def wait(self, seconds: float) -> None:
        if self._socket is None:
            select.select([], [], [], seconds)
            return
        ready, _, _ = select.select([self._socket], [], [], seconds)
        if ready:
            self._receive()

    def close(self) -> None:
        """The server ends when it is hung up on; runs that are still at work are asked to save by its end."""
        if self._server is None:
            return
        server, said = self._server, self._said
        self._forget()
        if self._count == 0:
            server.kill()  # in the middle of an import, of which nobody has any use
        try:
            server.wait(_SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if said is not None:
            said.close()

    def send(self, order: dict[str, Any]) -> None:
        """An order to the server. If it is gone, `wait` finds out."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendall((json.dumps(order) + "\n").encode())

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        threads = str(self._threads)
        environment = {
            **os.environ,
            # Of libraries that make their pools when they are loaded; torch's number is set in each run.
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            # Asking the driver whether there is a GPU must not start it: a fork could not use it any more.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
        with theirs:
            command = [sys.executable, "-m", "paperbench.sweep.launchers.server", str(theirs.fileno()), self._mode]
            try:
                self._server = subprocess.Popen(
                    [*command, *self._modules],
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=self._said,
                    stderr=self._said,
                    start_new_session=True,  # Ctrl-C at the terminal reaches the sweep alone
                )
            except OSError as error:
                ours.close()
                raise EnvironmentError_(f"no process could be started: {error}") from error
        self._socket = ours

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            received = self._socket.recv(1 << 16)
        except OSError:
            received = b""
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))
        if not received:
            self._bury_server()

    def _hear(self, answer: dict[str, Any]) -> None:
        if "started" in answer:
            self._deaths = 0
            self._handles[answer["started"]].pid = answer["pid"]
            return
        if "refused" in answer:
            reason = f"no process could be started for it ({answer['reason']})"
            handle = self._handles.pop(answer["refused"])
            handle.ending = Ending(exit_code=None, signal=None, reason=reason, lost=True)
            return
        number = answer["signal"]
        reason = f"killed by {signal.Signals(number).name}" if number else ""
        handle = self._handles.pop(answer["ended"])
        handle.ending = Ending(exit_code=answer["exit_code"], signal=number, reason=reason)

    def _bury_server(self) -> None:
        """Every job that it had is lost: its end has asked the runs to save and stop."""
        assert self._server is not None
        server, said = self._server, self._said
        self._forget()
        code = server.wait()
        words = _last_words(said)
        self._deaths += 1
        for handle in self._handles.values():
            handle.ending = Ending(
                exit_code=None, signal=None, reason="the process that starts the runs was killed", lost=True
            )
        self._handles.clear()
        if self._deaths > _MOST_DEATHS:
            raise EnvironmentError_(
                f"the process that starts the runs ends by itself (exit code {code}): {words}; "
                "launcher.start=fresh does without it"
            )

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._server, self._socket, self._unread = None, None, b""


def _last_words(said: IO[bytes] | None) -> str:
    if said is None:
        return "without a word"
    with said:
        said.seek(0)
        lines = said.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "without a word"
