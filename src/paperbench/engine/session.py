"""One process's part of a run, from its config.yaml to its results: alone, or as one rank under torchrun."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

import torch

from paperbench.catalog import TaskSpec
from paperbench.config import digests
from paperbench.config.validate import dump, identity, load_file, task_named
from paperbench.engine import device as devices
from paperbench.engine import torchrun
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.device_errors import explained
from paperbench.engine.environment import describe_environment
from paperbench.engine.metriclog import JsonLines, MetricLog, MetricSink, TensorBoard
from paperbench.engine.precision import describe_numerics, numerics, prepare_determinism
from paperbench.engine.published_data import departures_of
from paperbench.engine.ranks import Ranks, process_group
from paperbench.engine.reporter import LoggingReporter, Outcome, Reporter, SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import DONE, FAILED, RUNNING, STOPPED, RunDirectory, refuse_losses
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.engine.signals import StopFlag
from paperbench.engine.task import Task
from paperbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, PaperbenchError, Stopped


def execute(directory: RunDirectory, reporter: Reporter, stop: StopFlag, *, config: Any = None) -> Outcome:
    """Do the run that `directory` describes and return how it ended; a failure is recorded there and raised again.

    `config` is the directory's validated configuration, where the caller has it; else it is read from its `config.yaml`.
    Under torchrun every rank calls it; rank 0 alone holds the lock, writes and reports. The reporter is closed at the end.
    """
    main = torchrun.rank() == 0
    if main:
        directory.acquire()
    reporter = LoggingReporter(reporter, directory) if main else SilentReporter()
    # The process group is closed last: ranks that lose their connection fail too, and must find the reason recorded.
    with ExitStack() as group:
        try:
            if main:
                directory.update_status(state=RUNNING, message="", error="", exit_code=None)
            results = _work(directory, reporter, stop, group, config)
        except Stopped as stopped:
            if main:
                directory.refuse_loss()
                directory.update_status(state=STOPPED, message=str(stopped), exit_code=EXIT_STOPPED)
                directory.write_log(str(stopped))
            return Outcome(directory.path, None, STOPPED, EXIT_STOPPED, str(stopped))
        except BaseException as error:
            if isinstance(error, Exception):
                refuse_losses([directory], error)
            known = explained(error, directory.config())
            _record_failure(directory, known or error, main=main)
            if known is not None:
                raise known from error
            raise
        finally:
            reporter.close()
            if main:
                directory.release()
    return Outcome(directory.path, results, DONE, EXIT_DONE)


def _work(directory: RunDirectory, reporter: Reporter, stop: StopFlag, group: ExitStack, config: Any) -> dict[str, Any]:
    if config is None:
        spec, config, resolved = load_file(directory.config_file)
    else:
        spec, resolved = task_named(config.task), dump(config)
    digests.check(type(config), resolved, directory.config_file)
    prepare_determinism(config.deterministic)
    device = devices.resolve(config.device, local_rank=torchrun.local_rank(), nproc=torchrun.world_size())
    precision = spec.precision or devices.resolve_precision(config.precision, device)
    ranks = group.enter_context(process_group(device))
    with torch_settings(device, config.threads), numerics(device, precision, deterministic=config.deterministic):
        return _run_task(spec, config, resolved, directory, device, precision, ranks, reporter, stop)


def _run_task(
    spec: TaskSpec,
    config: Any,
    resolved: Mapping[str, Any],
    directory: RunDirectory,
    device: torch.device,
    precision: str,
    ranks: Ranks,
    reporter: Reporter,
    stop: StopFlag,
) -> dict[str, Any]:
    task = cast(Task, importlib.import_module(spec.module))
    data = announce(spec, task, config, directory, device, precision, ranks, reporter) if ranks.is_main else ""
    with open_run(config, resolved, directory, device, precision, ranks, reporter, stop) as run:
        seed_everything(config.seed, MODEL_INIT)
        metrics = task.run(config, run)
    return finish(run, resolved, metrics, data) if ranks.is_main else {}


def announce(
    spec: TaskSpec,
    task: Task,
    config: Any,
    directory: RunDirectory,
    device: torch.device,
    precision: str,
    ranks: Ranks,
    reporter: Reporter,
) -> str:
    """Report the start of the run, write env.json, and return the description of the data."""
    facts = dict(task.plan(config))
    processes_note = f", {ranks.world} processes" if ranks.world > 1 else ""
    reporter.start(
        f"{config.experiment or spec.name} · {spec.name}",
        {
            **facts,
            "device": f"{devices.describe(device)}, {precision}{processes_note}",
            "run directory": str(directory.path),
        },
    )
    step, saved = directory.lost_progress()
    if step:
        why = f"the checkpoints in {directory.checkpoints} are gone" if saved else "no checkpoint had been saved"
        reporter.message(f"begins again at step 0: it had come to step {step}, and {why}")
    directory.write_environment(
        describe_environment(
            device=devices.describe(device),
            threads=torch.get_num_threads(),
            world=ranks.world,
            gpu=devices.describe_gpu(device),
            numerics=describe_numerics(precision),
        )
    )
    return facts.get("data", "")


@contextmanager
def open_run(
    config: Any,
    resolved: Mapping[str, Any],
    directory: RunDirectory,
    device: torch.device,
    precision: str,
    ranks: Ranks,
    reporter: Reporter,
    stop: StopFlag,
) -> Iterator[Run]:
    """The run as its task sees it, its metrics file open."""
    log = MetricLog(_sinks(directory, tensorboard=config.tensorboard) if ranks.is_main else ())
    try:
        yield Run(
            directory=directory,
            device=device,
            precision=precision,
            ranks=ranks,
            reporter=reporter,
            stop=stop,
            log=log,
            checkpoints=CheckpointStore(directory.checkpoints, reporter, sweep=ranks.is_main),
            seed=config.seed,
            config_hash=identity(directory.config_file),
        )
    finally:
        log.close()


def finish(
    run: Run, resolved: Mapping[str, Any], metrics: Mapping[str, float], data: str, *, stacked: int = 1
) -> dict[str, Any]:
    """Write the results, then the status, and report them: with its results a run is done."""
    results = run.directory.write_results(
        config=resolved,
        metrics=metrics,
        data=data,
        departures=departures_of(resolved.get("data")),
        device=devices.describe(run.device),
        precision=run.precision,
        stacked=stacked,
    )
    run.directory.update_status(state=DONE, exit_code=EXIT_DONE)
    run.reporter.finish(results, str(run.directory.path))
    return results


def _sinks(directory: RunDirectory, *, tensorboard: bool) -> list[MetricSink]:
    sinks: list[MetricSink] = [JsonLines(directory.metrics_file)]
    if tensorboard:
        sinks.append(TensorBoard(directory.path / "tensorboard"))
    return sinks


@contextmanager
def torch_settings(device: torch.device, threads: int) -> Iterator[None]:
    """Set the threads, and what a CPU does with freed memory, for the length of a run."""
    before = torch.get_num_threads()
    try:
        if threads > 0:
            torch.set_num_threads(threads)
        if device.type == "cpu":
            devices.keep_freed_memory()
            devices.keep_compiled_kernels()
        yield
    finally:
        torch.set_num_threads(before)


def _record_failure(directory: RunDirectory, error: BaseException, *, main: bool) -> None:
    """Leave the reason in status.json and the traceback in log.txt. Never hides the error itself."""
    several = torchrun.world_size() > 1
    directory.write_log((f"rank {torchrun.rank()}: " if several else "") + traceback.format_exc())
    name = type(error).__name__
    message = str(error) or name
    if not isinstance(error, PaperbenchError):
        message = f"{name}: {message} (the traceback is in {directory.log_file})"
    exit_code = error.exit_code if isinstance(error, PaperbenchError) else EXIT_FAILED
    failure: dict[str, Any] = {"message": message, "error": name, "exit_code": exit_code}
    with suppress(Exception):  # a disk that is full refuses this as well
        if not main:
            directory.write_rank_failure(**failure)
            return
        if several and isinstance(error, RuntimeError):
            failure = directory.rank_failure() or _lost_rank_failure(error, directory) or failure
        directory.update_status(state=FAILED, **failure)


def _lost_rank_failure(error: RuntimeError, directory: RunDirectory) -> dict[str, Any] | None:
    """Return the failure to record when `error` says that another rank is gone, and that one recorded none."""
    if not any(backend in str(error).lower() for backend in ("gloo", "nccl")):
        return None
    message = (
        "another process of the run exited without reporting a status, as when it is killed or memory runs out; see "
        f"{directory.log_file}, then give {torchrun.how_to_continue(directory.path)}"
    )
    return {"message": message, "error": "TrainingError", "exit_code": EXIT_FAILED}
