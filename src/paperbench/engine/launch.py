"""Starting and resuming runs: in this process, or in several under torchrun. Imports torch only when a run begins.

torchrun may also start the processes itself, on one host or on several that share a file system: `torchrun … -m paperbench train
EXPERIMENT`, the same command on every host. The hosts need not tell each other where the run is: its directory follows from its
configuration, as in a sweep, unless `--run-dir` names one. The same command typed again continues the run, and so do torchrun's
own restarts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperbench import errors
from paperbench.config.commands import command
from paperbench.config.validate import config_hash, dump, task_named, validate
from paperbench.engine import torchrun
from paperbench.engine.claims import confirm_done, prepare, refuse_other
from paperbench.engine.processors import usable_cores
from paperbench.engine.reporter import Outcome, Reporter
from paperbench.engine.rundir import DONE, FAILED, RUNNING, STOPPED, RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.engine.torchrun import WorkerReporter
from paperbench.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    ConfigError,
    EnvironmentError_,
    PaperbenchError,
    Stopped,
    TrainingError,
)

_HASH_DIGITS = 12
_SECONDS_FOR_THE_DIRECTORY = 120.0
"""Time for which the other hosts wait for the directory that rank 0 creates; network file systems take their time."""


def start(
    resolved: Mapping[str, Any],
    *,
    run_dir: Path | None,
    reporter: Reporter,
    worker_reporter: WorkerReporter | None = None,
    config: Any = None,
) -> Outcome:
    """Make a run directory for the resolved configuration and do the run.

    `config` is the validated instance that `resolved` is the plain form of, where the caller has it; else it is validated here.

    With `nproc` > 1 the display is in rank 0, which inherits this process's streams and makes it from `worker_reporter`;
    without that, only the end is reported here. A failed run raises its error after recording it in the directory. In a process
    that torchrun started this is the process's own part of the run, or continues it: `nproc` must be the number of processes.
    """
    if config is None:
        config = validate(task_named(resolved.get("task")), resolved)  # a mistake must not leave a directory behind
    torchrun.require(config.nproc)
    if torchrun.under_torchrun():
        return _start_rank(dump(config), run_dir=run_dir, reporter=reporter)
    root = str(resolved.get("output", {}).get("root", "outputs"))
    with StopFlag(on_abort=reporter.close) as stop:
        directory = RunDirectory.create(root, str(resolved.get("experiment", "")), resolved, run_dir)
        return proceed(directory, reporter, stop, worker_reporter=worker_reporter, config=config)


def resume(run_dir: Path, reporter: Reporter, *, worker_reporter: WorkerReporter | None = None) -> Outcome:
    """Continue a run from its last checkpoint, or from the start where none was saved.

    The results of a run that is done are reported again. Raises `ConfigError` when `run_dir` is no run and `RunLockedError`
    when another process is at work there.
    """
    if torchrun.under_torchrun():
        return _resume_rank(run_dir, reporter=reporter)
    directory = RunDirectory.open(run_dir)
    with StopFlag(on_abort=reporter.close) as stop:
        if directory.status().get("state") != DONE:
            directory.acquire()
            directory.begin_session()
        # A run that was not done is read again under its lock: the process that held it may have finished it.
        if confirm_done(directory):
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
    config: Any = None,
) -> Outcome:
    """Do or continue the run, whose lock is taken if this process does not hold it yet.

    `config` is the directory's validated configuration, where the caller has it; else it is read from its `config.yaml`.

    `threads` is this machine's share for a run whose configuration names no number; 0 is all of it. In this process it is the
    caller's to set. A failed run raises its error after recording it in the directory.
    """
    nproc = int(directory.config().get("nproc", 1)) if config is None else config.nproc
    torchrun.require(nproc)
    if nproc == 1:
        from paperbench.engine.session import execute

        return execute(directory, reporter, stop, config=config)
    directory.update_status(state=RUNNING, message="", error="", exit_code=None)
    directory.clear_rank_failure()
    directory.release()  # rank 0 takes it
    threads = int(directory.config().get("threads", 0)) or max(1, (threads or usable_cores()) // nproc)
    returncode = torchrun.run_workers(directory.path, nproc, stop, threads=threads, worker_reporter=worker_reporter)
    outcome = _outcome(directory, returncode)
    if worker_reporter is None and outcome.results is not None:
        reporter.finish(outcome.results, str(directory.path))
    reporter.close()
    return outcome


def _outcome(directory: RunDirectory, returncode: int) -> Outcome:
    """Return the outcome that the workers left in the directory; raise it if it is a failure."""
    directory = RunDirectory.open(directory.path)
    state = directory.status().get("state")
    if state == DONE:
        return Outcome(directory.path, directory.results(), DONE, EXIT_DONE)
    if state == STOPPED:
        return Outcome(directory.path, None, STOPPED, EXIT_STOPPED, str(directory.status().get("message", "")))
    if state == RUNNING:
        message = (
            f"the processes of the run exited without reporting a status (torchrun's exit code {returncode}), as when memory "
            f"runs out; see {directory.log_file}, then `{command('resume', directory.path)}`"
        )
        unreported = {"message": message, "error": "TrainingError", "exit_code": EXIT_FAILED}
        directory.update_status(state=FAILED, **(directory.rank_failure() or unreported))
    status = directory.status()
    kind = getattr(errors, str(status.get("error", "")), TrainingError)
    if not (isinstance(kind, type) and issubclass(kind, PaperbenchError)):
        kind = TrainingError
    raise kind(str(status.get("message", "")))


# --- one of the processes that torchrun started -----------------------------------------------------------------------


def directory_of(resolved: Mapping[str, Any], run_dir: Path | None) -> Path:
    """Return where a run of this configuration lies if several processes are to find it without exchanging a message."""
    if run_dir is not None:
        return Path(run_dir)
    root = Path(str(resolved.get("output", {}).get("root", "outputs")))
    return root / str(resolved.get("experiment") or "run") / config_hash(resolved)[:_HASH_DIGITS]


def _start_rank(resolved: Mapping[str, Any], *, run_dir: Path | None, reporter: Reporter) -> Outcome:
    """Do this process's part of the run, or continue it. `resolved` is complete, with `nproc` as torchrun has it.

    Raises `ConfigError` where `nproc` differs from that, or where another run lies in the directory.
    """
    _refuse_other_number(resolved, "")
    path = directory_of(resolved, run_dir)
    with StopFlag(watch_parent=True, on_abort=reporter.close) as stop:
        if torchrun.rank() == 0:
            prepare(path, resolved)
        else:
            _await(path, stop)
            refuse_other(path, resolved)
        return _proceed_rank(path, reporter, stop)


def _resume_rank(run_dir: Path, *, reporter: Reporter) -> Outcome:
    """Do this process's part of a run that was begun before, with as many processes as then."""
    directory = RunDirectory.open(run_dir)
    _refuse_other_number(directory.config(), f"{run_dir}: ")
    with StopFlag(watch_parent=True, on_abort=reporter.close) as stop:
        return _proceed_rank(directory.path, reporter, stop)


def _proceed_rank(path: Path, reporter: Reporter, stop: StopFlag) -> Outcome:
    directory = RunDirectory.open(path)
    results = directory.results()
    if results is not None and results.get("status") == DONE:
        # Every rank sees this for itself. Were one of them to go on, it would wait for the others in vain.
        return _done_already(directory, reporter)
    if torchrun.rank() == 0:
        directory.clear_rank_failure()
    from paperbench.engine.session import execute

    return execute(directory, reporter, stop)


def _refuse_other_number(resolved: Mapping[str, Any], where: str) -> None:
    wanted = int(resolved.get("nproc", 1))
    if wanted != torchrun.world_size():
        raise ConfigError(
            f"{where}nproc={wanted}, and torchrun started {torchrun.world_size()} processes in all; sums taken in another order "
            "are other numbers, so the two must agree (--nnodes times --nproc-per-node)"
        )


def _await(path: Path, stop: StopFlag) -> None:
    """Return once rank 0 has created the directory."""
    deadline = time.monotonic() + _SECONDS_FOR_THE_DIRECTORY
    while not (path / "config.yaml").is_file():
        if stop:
            raise Stopped(f"stopped on {stop.reason} before the run began")
        if time.monotonic() > deadline:
            raise EnvironmentError_(
                f"{path} has not appeared on this host within {_SECONDS_FOR_THE_DIRECTORY:.0f} s; all hosts must share the "
                "folder that runs are written to, and start in the same working directory"
            )
        time.sleep(0.1)
