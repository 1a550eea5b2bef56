"""`--launcher local`: one process a run on this machine, forked from a process that has imported torch, or started anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paperbench.config.schema import NonNegativeInt, Schema
from paperbench.engine.processes import ON_WINDOWS, ask_to_save, end, group_options, require_posix
from paperbench.errors import EnvironmentError_
from paperbench.sweeps import worker
from paperbench.sweeps.launchers.base import Context, ExitStatus, Job, RunRefused
from paperbench.sweeps.launchers.gpus import VISIBLE, visible_gpus

if TYPE_CHECKING:
    from paperbench.sweeps.launchers.server import ForkedProcess, ForkServer

_MOST_SERVER_EXITS = 3
"""In a row, none of which started a run: then the server is not being killed, it does not work."""
_SECONDS_BETWEEN_POLLS = 0.02
"""At new interpreters, whose end comes with no event."""


@dataclass(kw_only=True)
class LocalSettings(Schema):
    """`conf/launcher/local.yaml`."""

    start: Literal["auto", "fork", "fresh"] = "auto"
    """`fork`: from a process that has imported torch once; `fresh`: a new interpreter for each run. `auto` forks on Linux;
    elsewhere the system's own libraries do not all survive it."""
    gpus: tuple[NonNegativeInt, ...] = ()
    """Numbers of the GPUs to hand out among those that this process sees, from 0 as in `device=cuda:0`; empty: all of them."""


class LocalHandle:
    """One process. `process` is None for a job that could not be started, which has ended as `exit_status` says."""

    def __init__(
        self,
        launcher: LocalLauncher,
        process: ForkedProcess | subprocess.Popen[bytes] | None,
        *,
        gpus: tuple[str, ...],
        exit_status: ExitStatus | None = None,
    ) -> None:
        self._launcher = launcher
        self._server = launcher.server
        self.process = process
        self.gpus = gpus
        self.exit_status = exit_status

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def poll(self) -> ExitStatus | None:
        if self.exit_status is None and self.process is not None:
            try:
                code = self.process.poll()
            except EOFError:
                reason = "the process that starts the runs was killed"
                self.exit_status = ExitStatus(exit_code=None, signal=None, reason=reason, lost=True)
                self._launcher.on_server_exit(self._server)
            else:
                self.exit_status = ExitStatus.from_code(code) if code is not None else None
        return self.exit_status

    def stop(self) -> None:
        if self.poll() is None and self.pid is not None:
            ask_to_save(self.pid)

    def kill(self) -> None:
        """End the process and, since it leads a session, what it started in it."""
        if self.exit_status is not None or self.pid is None:
            return
        end(self.pid)


class LocalLauncher:
    """See `base.Launcher`. A server that is killed is replaced: its runs have saved and stopped, and are submitted again."""

    Settings = LocalSettings
    DEFAULT_JOBS = 1

    def __init__(self, settings: LocalSettings, context: Context) -> None:
        if settings.start == "fork":
            require_posix("launcher.start=fork", instead="take launcher.start=auto")
        self._fork = settings.start == "fork" or (settings.start == "auto" and sys.platform.startswith("linux"))
        self._wanted = settings.gpus
        self._gpus: tuple[str, ...] | None = self._handed_out() if settings.gpus else None
        """Names for CUDA_VISIBLE_DEVICES; None before a run asks for them."""
        self._modules = context.modules
        self._threads = context.threads
        self._handles: list[LocalHandle] = []
        self.server: ForkServer | None = None
        self._server_exits = 0

    def warm_up(self) -> None:
        """Start the server, which imports what the runs need."""
        if not self._fork or self.server is not None:
            return
        from paperbench.sweeps.launchers.server import ForkServer

        server = ForkServer(self._modules, threads=self._threads)
        try:
            server.ensure_running()
        except OSError as error:
            raise EnvironmentError_(f"no process could be started: {error}; launcher.start=fresh may do") from error
        self.server = server

    def submit(self, job: Job) -> LocalHandle:
        self._handles = [handle for handle in self._handles if handle.poll() is None]
        self.warm_up()
        gpus = self._gpus_for(job)
        environment = {VISIBLE: ",".join(gpus)} if gpus else {}
        try:
            handle = LocalHandle(self, self._start(job, environment), gpus=gpus)
        except (OSError, EOFError) as error:
            message = self.on_server_exit(self.server) or error
            reason = f"no process could be started for it ({message})"
            return LocalHandle(
                self, None, gpus=(), exit_status=ExitStatus(exit_code=None, signal=None, reason=reason, lost=True)
            )
        self._handles.append(handle)
        return handle

    def _handed_out(self) -> tuple[str, ...]:
        """Return the names of the GPUs to hand out. Raises `EnvironmentError_` for one that is not there."""
        visible = visible_gpus()
        if any(number >= len(visible) for number in self._wanted):
            there = f"sees {len(visible)} (0 to {len(visible) - 1})" if visible else "sees none"
            raise EnvironmentError_(f"launcher.gpus={list(self._wanted)}: torch {there} of this machine's GPUs")
        return tuple(visible[number] for number in self._wanted) or visible

    def _gpus_for(self, job: Job) -> tuple[str, ...]:
        """Return the GPUs that fewest other runs have, one for each process of the job; none where there is nothing to choose.

        Raises `RunRefused` for a job of more processes than there are GPUs to hand out.
        """
        if job.device not in ("auto", "cuda"):  # a CPU, Apple's GPU, or one GPU by its number
            return ()
        if self._gpus is None:
            self._gpus = self._handed_out()
        if self._gpus and job.processes > len(self._gpus):
            raise RunRefused(
                f"nproc={job.processes}: each process needs a GPU of its own, and the sweep has {len(self._gpus)} to hand out "
                f"({', '.join(self._gpus)}); lower nproc, or take device=cpu"
            )
        taken = Counter(name for handle in self._handles for name in handle.gpus)
        return tuple(sorted(self._gpus, key=lambda name: taken[name])[: job.processes])

    def _start(self, job: Job, environment: Mapping[str, str]) -> ForkedProcess | subprocess.Popen[bytes]:
        if self.server is None:
            return _start_interpreter(job, environment, threads=self._threads)
        process = self.server.start(job.arguments(), environment)
        self._server_exits = 0
        return process

    def wait(self, seconds: float) -> None:
        processes = [handle.process for handle in self._handles if handle.exit_status is None]
        pipes = [status for process in processes if (status := getattr(process, "status", None)) is not None]
        if pipes:
            connection.wait(pipes, seconds)
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not any(process and process.poll() is not None for process in processes):
            time.sleep(_SECONDS_BETWEEN_POLLS)

    def close(self) -> None:
        """End the server. Runs that are still at work are asked to save."""
        if self.server is not None:
            self.server.close()
            self.server = None
        else:
            for handle in self._handles:
                handle.stop()

    def on_server_exit(self, server: ForkServer | None) -> str:
        """Let go of a server that has died, which has asked its runs to save, and return the last line that it printed.

        Raises `EnvironmentError_` if that happens again and again.
        """
        if server is None or server is not self.server:
            return ""
        code, message = server.close(kill=False)
        self.server = None
        self._server_exits += 1
        if self._server_exits > _MOST_SERVER_EXITS:
            raise EnvironmentError_(
                f"the process that starts the runs ends by itself (exit code {code}): {message}; "
                "launcher.start=fresh does without it"
            )
        return message


def _start_interpreter(job: Job, environment: Mapping[str, str], *, threads: int) -> subprocess.Popen[bytes]:
    """Start a new interpreter for the job. Raises `OSError` where there is no room for one more process."""
    variables = {**os.environ, **dict.fromkeys(worker.THREAD_VARIABLES, str(threads)), **environment}
    command = [sys.executable, "-m", worker.__name__, "--parent", str(os.getpid()), *job.arguments()]
    with Path(job.directories[-1], "log.txt").open("ab") as log:  # what Python says before the worker has begun
        process: subprocess.Popen[Any] = subprocess.Popen(
            command,
            env=variables,
            # On Windows the run notices by it that the sweep has died: see `engine.processes`.
            stdin=subprocess.PIPE if ON_WINDOWS else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **group_options(),
        )
    return process
