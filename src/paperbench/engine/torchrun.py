"""Runs whose processes torchrun started, on one host or on several that share a file system.

`torchrun … -m paperbench train EXPERIMENT`, the same command on every host. The hosts need not tell each other where the run
is: its directory follows from its configuration, as in a sweep, unless `--run-dir` names one. The same command given again
continues the run, and so do torchrun's own restarts. Imports torch only when a run begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperbench.engine.outcome import Outcome
from paperbench.engine.reporter import Reporter
from paperbench.engine.rundir import DONE, RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.errors import EXIT_DONE, ConfigError, EnvironmentError_, Stopped

_HASH_DIGITS = 12
_SECONDS_FOR_THE_DIRECTORY = 120.0
"""How long the other hosts wait until they see what rank 0 has made; network file systems take their time."""


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def rank() -> int:
    """This process's number; 0, the one that reports, outside torchrun."""
    return int(os.environ["RANK"]) if under_torchrun() else 0


def processes() -> int:
    """How many processes torchrun started on all hosts together; 1 outside it."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def directory_of(resolved: Mapping[str, Any], run_dir: Path | None) -> Path:
    """Where a run of this configuration lies if several processes are to find it without a word."""
    from paperbench.config.validate import config_hash

    if run_dir is not None:
        return Path(run_dir)
    root = Path(str(resolved.get("output", {}).get("root", "outputs")))
    return root / str(resolved.get("experiment") or "run") / config_hash(resolved)[:_HASH_DIGITS]


def start(resolved: Mapping[str, Any], *, run_dir: Path | None, reporter: Reporter) -> Outcome:
    """Does this process's part of the run, or continues it. `resolved` is complete, with `nproc` as torchrun has it.

    Raises `ConfigError` where `nproc` differs from that, or where another run lies in the directory.
    """
    from paperbench.engine.prepared import prepare, refuse_other

    _refuse_other_number(resolved, "")
    path = directory_of(resolved, run_dir)
    with StopFlag(watch_parent=True, on_abort=reporter.close) as stop:
        if rank() == 0:
            prepare(path, resolved)
        else:
            _await(path, stop)
            refuse_other(path, resolved)
        return _do(path, reporter, stop)


def resume(run_dir: Path, *, reporter: Reporter) -> Outcome:
    """Does this process's part of a run that was begun before, with as many processes as then."""
    directory = RunDirectory.open(run_dir)
    _refuse_other_number(directory.config(), f"{run_dir}: ")
    with StopFlag(watch_parent=True, on_abort=reporter.close) as stop:
        return _do(directory.path, reporter, stop)


def _do(path: Path, reporter: Reporter, stop: StopFlag) -> Outcome:
    directory = RunDirectory.open(path)
    results = directory.results()
    if results is not None and results.get("status") == DONE:
        # Every rank sees this for itself. Were one of them to go on, it would wait for the others in vain.
        reporter.message(f"{path} is done already; these are its results")
        reporter.finish(results, str(path))
        reporter.close()
        return Outcome(path, results, DONE, EXIT_DONE, "done already")
    if rank() == 0:
        directory.forget_rank_failure()
    from paperbench.engine.session import execute

    return execute(directory, reporter, stop)


def _refuse_other_number(resolved: Mapping[str, Any], where: str) -> None:
    wanted = int(resolved.get("nproc", 1))
    if wanted != processes():
        raise ConfigError(
            f"{where}nproc={wanted}, and torchrun started {processes()} processes in all; sums taken in another order are other "
            "numbers, so the two must agree (--nnodes times --nproc-per-node)"
        )


def _await(path: Path, stop: StopFlag) -> None:
    """Returns once rank 0 has made the directory."""
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
