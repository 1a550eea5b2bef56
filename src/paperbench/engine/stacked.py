"""Several runs of one task in one process, their weights stacked: they share the overhead of a step."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, cast

from paperbench.catalog import TaskSpec
from paperbench.config.commands import command
from paperbench.config.validate import load_file
from paperbench.engine import device as devices
from paperbench.engine.device_errors import explained
from paperbench.engine.precision import numerics, prepare_determinism
from paperbench.engine.ranks import process_group
from paperbench.engine.reporter import LoggingReporter, Outcome, Reporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import DONE, FAILED, RUNNING, STOPPED, RunDirectory, refuse_losses
from paperbench.engine.session import announce, finish, open_run, torch_settings
from paperbench.engine.signals import StopFlag
from paperbench.engine.task import Stacks, Task
from paperbench.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    ConfigError,
    EnvironmentError_,
    OutOfMemoryError,
    PaperbenchError,
    Stopped,
)


def execute_stacked(
    directories: Sequence[RunDirectory], reporters: Sequence[Reporter], stop: StopFlag
) -> list[Outcome]:
    """Do the runs stacked, by their task's `run_stacked`, and return the outcome of each; one reporter for each.

    All are of one task and have one `stack_key` (`ConfigError` otherwise). Each gets its own results, status and log, as if it
    were alone. A run for which `run_stacked` returns an error has failed, and the others have not. When the work as a whole
    fails, the error is raised and the runs are left in state `stopped`: each is then continued alone, which shows the one that
    fails. A failure of the environment is the failure of all.
    """
    logged = [LoggingReporter(reporter, directory) for reporter, directory in zip(reporters, directories, strict=True)]
    try:
        for directory in directories:
            directory.acquire()
            directory.update_status(state=RUNNING, message="", error="", exit_code=None)
        with ExitStack() as stack:
            return _work(directories, logged, stop, stack)
    except Stopped as stopped:
        refuse_losses(directories, stopped)
        reason = f" on {stop.reason}" if stop.reason else ""
        return [_stopped(directory, f"stopped{reason}") for directory in directories]
    except BaseException as error:
        if isinstance(error, Exception):
            refuse_losses(directories, error)
        known = explained(error, directories[0].config(), stacked=len(directories))
        for directory in directories:
            _record_failure(directory, known or error, len(directories))
        if known is not None:
            raise known from error
        raise
    finally:
        for reporter, directory in zip(logged, directories, strict=True):
            reporter.close()
            directory.release()


def _work(
    directories: Sequence[RunDirectory], reporters: Sequence[Reporter], stop: StopFlag, stack: ExitStack
) -> list[Outcome]:
    loaded = [load_file(directory.config_file) for directory in directories]
    spec, first, _ = loaded[0]
    configs = [config for _, config, _ in loaded]
    task = _stacking_task([spec for spec, _, _ in loaded], configs)
    prepare_determinism(first.deterministic)
    device = devices.resolve(first.device)
    precision = devices.resolve_precision(first.precision, device)
    ranks = stack.enter_context(process_group(device))
    stack.enter_context(torch_settings(device, first.threads))
    stack.enter_context(numerics(device, precision, deterministic=first.deterministic))
    data: list[str] = []
    runs: list[Run] = []
    for (_, config, resolved), directory, reporter in zip(loaded, directories, reporters, strict=True):
        data.append(announce(spec, cast(Task, task), config, directory, device, precision, ranks, reporter))
        runs.append(
            stack.enter_context(open_run(config, resolved, directory, device, precision, ranks, reporter, stop))
        )
    metrics = task.run_stacked(configs, runs)
    if len(metrics) != len(runs):
        raise ValueError(f"{spec.module}.run_stacked returned {len(metrics)} results for {len(runs)} runs")
    outcomes: list[Outcome] = []
    for run, (_, _, resolved), values, description in zip(runs, loaded, metrics, data, strict=True):
        if isinstance(values, PaperbenchError):
            outcomes.append(_failed(run.directory, values))
        else:
            results = finish(run, resolved, values, description, stacked=len(runs))
            outcomes.append(Outcome(run.directory.path, results, DONE, EXIT_DONE))
    return outcomes


def _stacking_task(specs: Sequence[TaskSpec], configs: Sequence[Any]) -> Stacks:
    """The one module that does all of them."""
    spec = specs[0]
    if not spec.stacks or any(other.name != spec.name for other in specs):
        names = ", ".join(dict.fromkeys(other.name for other in specs))
        raise ConfigError(f"these runs cannot be stacked: task {names}")
    task = cast(Stacks, importlib.import_module(spec.module))
    machine = {(c.device, c.precision, c.deterministic, c.threads, c.nproc) for c in configs}
    keys = {task.stack_key(config) for config in configs}
    if len(machine) > 1 or len(keys) > 1 or None in keys or configs[0].nproc != 1:
        raise ConfigError("these runs cannot be stacked: they differ in more than runs of one stack may")
    return task


def _stopped(directory: RunDirectory, why: str) -> Outcome:
    message = f"{why}; `{command('resume', directory.path)}` continues"
    directory.update_status(state=STOPPED, message=message, exit_code=EXIT_STOPPED)
    directory.write_log(message)
    return Outcome(directory.path, None, STOPPED, EXIT_STOPPED, message)


def _failed(directory: RunDirectory, error: PaperbenchError) -> Outcome:
    """Record the failure of one run, while the others of its stack continue."""
    directory.update_status(state=FAILED, message=str(error), error=type(error).__name__, exit_code=error.exit_code)
    directory.write_log(f"failed: {error}")
    return Outcome(directory.path, None, FAILED, error.exit_code, str(error))


def _record_failure(directory: RunDirectory, error: BaseException, count: int) -> None:
    """Leave the reason with a run of the stack that is not done. Never hides the error itself."""
    directory.write_log(traceback.format_exc())
    reason = f"{type(error).__name__}: {error}"
    with suppress(Exception):  # a disk that is full refuses this as well
        if directory.status().get("state") == DONE:
            return
        if isinstance(error, EnvironmentError_) and not isinstance(error, OutOfMemoryError):
            directory.update_status(
                state=FAILED, message=str(error), error=type(error).__name__, exit_code=error.exit_code
            )
            return
        message = f"failed when stacked with {count - 1} other runs ({reason}); alone it may not"
        directory.update_status(state=STOPPED, message=message, error=type(error).__name__, exit_code=EXIT_FAILED)
