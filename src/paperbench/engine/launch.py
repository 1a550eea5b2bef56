"""Starting and resuming runs: in this process, or in several under torchrun. Imports torch only when a run begins."""

from __future__ import annotations

import json
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

from paperbench import errors
from paperbench.config.validate import dump, task_named, validate
from paperbench.engine import torchrun
from paperbench.engine.environment import ENV_ARGV
from paperbench.engine.outcome import Outcome
from paperbench.engine.prepared import settle
from paperbench.engine.reporter import Reporter
from paperbench.engine.rundir import DONE, FAILED, RUNNING, STOPPED, RunDirectory
from paperbench.engine.signals import SignalHandlers, StopFlag
from paperbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, PaperbenchError, TrainingError

WorkerReporter = tuple[str, Mapping[str, Any]]
"""How rank 0 of several processes makes its own reporter: `module:callable` and keyword arguments that JSON can hold."""

ENV_REPORTER = "PAPERBENCH_WORKER_REPORTER"
ENV_PIDS = "PAPERBENCH_WORKER_PIDS"
"""A folder in which each rank writes its process id to a file named by its rank, once it is ready for signals."""
ENV_LAUNCHER = "PAPERBENCH_LAUNCHER_PID"


def start(
    resolved: Mapping[str, Any],
    *,
    run_dir: Path | None,
    reporter: Reporter,
    worker_reporter: WorkerReporter | None = None,
) -> Outcome:
    """Makes a run directory for the resolved configuration and does the run.

    With `nproc` > 1 the display is in rank 0, which inherits this process's streams and makes it from `worker_reporter`;
    without that, only the end is reported here. A failed run raises its error after recording it in the directory. In a process
    that torchrun started itself, see `torchrun.start`.
    """
    config = validate(task_named(resolved.get("task")), resolved)  # a mistake must not leave a directory behind
    if torchrun.under_torchrun():
        return torchrun.start(dump(config), run_dir=run_dir, reporter=reporter)
    root = str(resolved.get("output", {}).get("root", "outputs"))
    with StopFlag(on_abort=reporter.close) as stop:
        directory = RunDirectory.create(root, str(resolved.get("experiment", "")), resolved, run_dir)
        return proceed(directory, reporter, stop, worker_reporter=worker_reporter)


def resume(run_dir: Path, reporter: Reporter, *, worker_reporter: WorkerReporter | None = None) -> Outcome:
    """Continues a run from its last checkpoint, or from the start where none was saved.

    Of a run that is done the results are given again. Raises `ConfigError` when `run_dir` is no run and `RunLockedError`
    when another process is at work there.
    """
    if torchrun.under_torchrun():
        return torchrun.resume(run_dir, reporter=reporter)
    directory = RunDirectory.open(run_dir)
    with StopFlag(on_abort=reporter.close) as stop:
        if directory.status().get("state") != DONE:
            directory.acquire()
            directory.begin_session()
        # A run that was not done is looked at under its lock: whoever held that until now may have done it.
        if settle(directory):
            directory.release()
            return _done_already(directory, reporter)
        return proceed(directory, reporter, stop, worker_reporter=worker_reporter)


def _done_already(directory: RunDirectory, reporter: Reporter) -> Outcome:
    results = directory.results() or {}
    reporter.message(f"{directory.path} is done already; these are its results")
    reporter.finish(results, str(directory.path))
    reporter.close()
    return Outcome(directory.path, results, DONE, EXIT_DONE, "done already")


def proceed(
    directory: RunDirectory,
    reporter: Reporter,
    stop: StopFlag,
    *,
    worker_reporter: WorkerReporter | None = None,
    threads: int = 0,
) -> Outcome:
    """Does or continues the run, whose lock is taken if this process does not hold it yet.

    `threads` is this machine's share for a run whose configuration names no number; 0 is all of it. In this process it is the
    caller's to set. A failed run raises its error after recording it in the directory.
    """
    nproc = int(directory.config().get("nproc", 1))
    if nproc == 1:
        from paperbench.engine.session import execute

        return execute(directory, reporter, stop)
    directory.update_status(state=RUNNING, message="", error="", exit_code=None)
    directory.forget_rank_failure()
    directory.release()  # rank 0 takes it
    outcome = _under_torchrun(directory, nproc, worker_reporter, stop, threads)
    if worker_reporter is None and outcome.results is not None:
        reporter.finish(outcome.results, str(directory.path))
    reporter.close()
    return outcome


# --- several processes ------------------------------------------------------------------------------------------------


def _under_torchrun(
    directory: RunDirectory, nproc: int, worker_reporter: WorkerReporter | None, stop: StopFlag, share: int
) -> Outcome:
    threads = int(directory.config().get("threads", 0)) or max(1, (share or os.cpu_count() or 1) // nproc)
    with tempfile.TemporaryDirectory(prefix="paperbench-") as scratch:
        environment = {
            # DDP on a CPU is told to expect unused parameters (see `trainer`) and would remark that there are none.
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            ENV_PIDS: scratch,
            ENV_LAUNCHER: str(os.getpid()),
            ENV_ARGV: json.dumps(sys.argv),
            ENV_REPORTER: json.dumps(worker_reporter) if worker_reporter else "",
        }
        command = [sys.executable, "-m", "paperbench.engine.agent", str(nproc), str(directory.path.resolve())]
        # A session of its own: Ctrl-C at the terminal reaches this process alone, which passes it on once.
        with (
            subprocess.Popen(command, env=environment, start_new_session=True) as agent,
            _Forwarding(agent, Path(scratch)) as forwarding,
        ):
            told = False
            while agent.poll() is None:
                if stop and not told:  # a signal before there was anybody to pass it on to, or the parent's death
                    forwarding.waiting.append(signal.SIGTERM)
                    told = True
                forwarding.deliver()
                with suppress(subprocess.TimeoutExpired):
                    agent.wait(timeout=0.2)
    return _outcome(directory, agent.returncode)


def _outcome(directory: RunDirectory, returncode: int) -> Outcome:
    """What the workers left in the directory, raised if it is a failure."""
    directory = RunDirectory.open(directory.path)
    state = directory.status().get("state")
    if state == DONE:
        return Outcome(directory.path, directory.results(), DONE, EXIT_DONE)
    if state == STOPPED:
        return Outcome(directory.path, None, STOPPED, EXIT_STOPPED, str(directory.status().get("message", "")))
    if state == RUNNING:
        message = (
            f"the processes of the run ended without a word (torchrun's exit code {returncode}), as when memory runs out; "
            f"see {directory.log_file}, then `paperbench resume {directory.path}`"
        )
        unheard = {"message": message, "error": "TrainingError", "exit_code": EXIT_FAILED}
        directory.update_status(state=FAILED, **(directory.rank_failure() or unheard))
    status = directory.status()
    kind = getattr(errors, str(status.get("error", "")), TrainingError)
    if not (isinstance(kind, type) and issubclass(kind, PaperbenchError)):
        kind = TrainingError
    raise kind(str(status.get("message", "")))


class _Forwarding(SignalHandlers):
    """Passes signals on to rank 0, which tells the other ranks; a second SIGINT ends all of them and this process."""

    def __init__(self, agent: subprocess.Popen[bytes], pids: Path) -> None:
        super().__init__()
        self.waiting: list[int] = []
        self._agent = agent
        self._pids = pids
        self._interrupts = 0

    def deliver(self) -> None:
        """Sends what has arrived, once rank 0 has said that it is ready for signals."""
        if not self.waiting:
            return
        with suppress(OSError, ValueError):
            pid = int((self._pids / "0").read_text(encoding="ascii"))
            while self.waiting:
                os.kill(pid, self.waiting.pop(0))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self._abort()
        self.waiting.append(number)

    def _abort(self) -> None:
        with suppress(OSError):
            self._agent.kill()
        for file in self._pids.iterdir():
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text(encoding="ascii")), signal.SIGKILL)
        shutil.rmtree(self._pids, ignore_errors=True)
        os._exit(EXIT_INTERRUPTED)
