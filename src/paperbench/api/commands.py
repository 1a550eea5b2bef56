"""What the commands do, for Python: the same checks, folders, locks and resume.

What a command prints as an error is raised as an exception of `paperbench.errors`. Overrides are the command line's
(`"optim.lr=0.01"`), or keyword arguments (`optim={"lr": 0.01}`); both name the same keys.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from paperbench.api.arguments import leaves, overrides_of, plain, written
from paperbench.api.notebook import NotebookReporter, inside_notebook
from paperbench.api.run import Run, Runs
from paperbench.api.tables import Reproduction, Reproductions, Sweep
from paperbench.config.paths import expanded
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import EXIT_STOPPED, ConfigError, Stopped
from paperbench.records.record import read_run

if TYPE_CHECKING:
    from paperbench.engine.reporter import Outcome, Reporter
    from paperbench.sweeps.watch import Watcher

ROOT = "outputs"
"""Folder that runs are looked for in, as `output.root` of every configuration unless it says otherwise."""

SHOWN = ("experiment", "scale", "state", "metric", "directory")
"""Keys that a table of runs has a column for anyway."""


class Options(NamedTuple):
    """The options that every function of one run takes."""

    run_dir: str | Path | None
    seed: int | None
    device: str | None
    nproc: int | None
    smoke: bool
    conf_dir: str | Path | None
    progress: bool


# --- one run ----------------------------------------------------------------------------------------------------------


def train(
    experiment: str,
    *overrides: str,
    run_dir: str | Path | None = None,
    seed: int | None = None,
    device: str | None = None,
    nproc: int | None = None,
    smoke: bool = False,
    conf_dir: str | Path | None = None,
    progress: bool = True,
    **values: Any,
) -> Run:
    """Train `experiment`, evaluate it and return the run, as `paperbench train` does.

    overrides, values: keys of the configuration, `"optim.lr=0.01"` or `optim={"lr": 0.01}`, groups too (`data="voc"`). run_dir: the
    run's folder, by default `outputs/<experiment>/<time>`. smoke: `scale=smoke`. conf_dir: a folder of configurations of one's own.
    progress: whether to show it. Raises `ConfigError` with every mistake before anything is written, `DataError` for missing or
    damaged data, `Stopped` after an interrupt (the run is saved; `resume` continues it), and `TrainingError`.
    """
    options = Options(run_dir, seed, device, nproc, smoke, conf_dir, progress)
    return _start("train", experiment, overrides, values, options)


def evaluate(
    experiment: str | Run,
    *overrides: str,
    run_dir: str | Path | None = None,
    seed: int | None = None,
    device: str | None = None,
    nproc: int | None = None,
    smoke: bool = False,
    conf_dir: str | Path | None = None,
    progress: bool = True,
    **values: Any,
) -> Run:
    """Evaluate a trained run, or files alone, as `paperbench eval` does; arguments and errors of `train`.

    A run is given in place of the experiment, or as `checkpoint=`; it is evaluated with its own configuration, which overrides
    change: `evaluate(run, "data=coco")`. Files are given by keys: `evaluate("detections", format="voc", gt=…, dt=…)`.
    """
    if isinstance(experiment, Run):
        values, experiment = {"checkpoint": experiment.path, **values}, experiment.experiment
    if isinstance(checkpoint := values.get("checkpoint"), Run):
        values["checkpoint"] = checkpoint.path
    options = Options(run_dir, seed, device, nproc, smoke, conf_dir, progress)
    return _start("eval", experiment, overrides, values, options)


def estimate(
    experiment: str,
    *overrides: str,
    run_dir: str | Path | None = None,
    seed: int | None = None,
    device: str | None = None,
    nproc: int | None = None,
    smoke: bool = False,
    conf_dir: str | Path | None = None,
    progress: bool = True,
    **values: Any,
) -> Run:
    """Estimate a quality without ground truth, as `paperbench estimate` does; arguments and errors of `train`.

    `estimate("rca", images="scans", masks="masks", reference={"images": "atlas", "masks": "atlas-masks"})`. For arrays instead of
    files see `estimate_quality`.
    """
    options = Options(run_dir, seed, device, nproc, smoke, conf_dir, progress)
    return _start("estimate", experiment, overrides, values, options)


def resume(run: str | Path | Run, *, from_start: bool = False, progress: bool = True) -> Run:
    """Continue an unfinished run from its last checkpoint and return it, as `paperbench resume` does; errors of `train`.

    from_start: begin again at step 0 where the checkpoints are gone, which is a `CheckpointError` otherwise.
    """
    from paperbench.records import launch

    path = run.path if isinstance(run, Run) else expanded(run)
    with _isolated():
        outcome = launch.resume(
            path,
            from_start=from_start,
            reporter=_reporter(progress),
            worker_reporter=_worker_reporter(progress),
        )
    return _result(outcome)


def load(path: str | Path) -> Run:
    """Return the run in a folder, or the one that a file in it belongs to. Raises `ConfigError` where there is none."""
    from paperbench.records.launch import run_of

    try:
        return Run(read_run(run_of(str(path))))
    except ConfigError as error:
        raise ConfigError(*(text.removeprefix("checkpoint=") for text in error.mistakes)) from None


def runs(
    *filters: str,
    root: str | Path = ROOT,
    sort: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
    **values: Any,
) -> Runs:
    """Return the runs below `root`, the most recently active first, as `paperbench runs` lists them.

    filters, values: conditions as of `--filter`, `"coco/AP50>=80"` or `state="done"`; all must hold. sort: a key or metric, its
    best value first. limit: how many. Raises `ConfigError` for a key that no run has, and for a root that does not exist.
    """
    from paperbench.records.selection import find_runs, select

    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: give 1 or more, or leave it out")
    folder = expanded(root).absolute()
    if not folder.is_dir() and str(root) != ROOT:
        raise ConfigError(f"root={str(root)!r}: no such folder {folder}; give the folder that runs were written to")
    found = find_runs(folder)
    if not found:
        return Runs([])
    conditions = [*filters, *overrides_of(values)]
    chosen = select(found, filters=conditions, sort=sort, reverse=reverse, limit=limit, root=folder)
    return Runs([Run(record) for record in chosen.runs], [key for key in chosen.keys if key not in SHOWN])


# --- many runs --------------------------------------------------------------------------------------------------------


def sweep(
    experiment: str,
    *overrides: str,
    jobs: int | None = None,
    launcher: str = "local",
    retry_failed: bool = False,
    fail_fast: bool = False,
    stacked: bool = False,
    seed: int | Sequence[int] | None = None,
    smoke: bool = False,
    conf_dir: str | Path | None = None,
    progress: bool = True,
    **values: Any,
) -> Sweep:
    """Run every combination of several values and return the runs in their order, as `paperbench sweep` does.

    A keyword argument that is a list is swept over, `seed=[0, 1, 2]`; in overrides the syntax is the command line's,
    `"seed=0,1,2"`. jobs: runs at a time. launcher: `local`, `slurm` or `ray`, with `"launcher.KEY=VALUE"` among the overrides.
    stacked: train runs that differ in little in one process. Runs that are done are not run again. One that fails is named in
    `failures` of the result and raises nothing; `ConfigError` names the mistakes of all runs before the first one starts.
    """
    from paperbench.sweeps.launch import SweepOptions, run_experiment

    given = [*overrides, *_choices({"seed": seed, **values} if seed is not None else values)]
    planned, outcome = run_experiment(
        experiment,
        [*given, *(["scale=smoke"] if smoke else [])],
        options=SweepOptions(
            jobs=jobs, launcher=launcher, retry_failed=retry_failed, fail_fast=fail_fast, stacked=stacked
        ),
        conf_dir=_folder(conf_dir),
        watcher=_watcher(progress),
    )
    if outcome.exit_code == EXIT_STOPPED:
        raise Stopped(f"the sweep in {planned.directory} was stopped; the same call continues it")
    return Sweep(planned.directory.absolute())


@overload
def reproduce(name: None = None, *, conf_dir: str | Path | None = None) -> Reproductions: ...
@overload
def reproduce(
    name: str,
    *overrides: str,
    scale: str = "short",
    seeds: int | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    jobs: int | None = None,
    launcher: str = "local",
    retry_failed: bool = False,
    stacked: bool = False,
    conf_dir: str | Path | None = None,
    progress: bool = True,
    **values: Any,
) -> Reproduction: ...
def reproduce(
    name: str | None = None,
    *overrides: str,
    scale: str = "short",
    seeds: int | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    jobs: int | None = None,
    launcher: str = "local",
    retry_failed: bool = False,
    stacked: bool = False,
    conf_dir: str | Path | None = None,
    progress: bool = True,
    **values: Any,
) -> Reproduction | Reproductions:
    """Make a published table and return it with its verdicts, as `paperbench reproduce` does; without a name, list the tables.

    scale: `smoke`, `short` or `paper`. seeds: how many, 0 to `seeds - 1`, by default as the table's file says. rows, columns:
    names of those to make now, by default all; the runs of a curve go no further than its last selected point. Other arguments
    and errors are those of `sweep`. Runs that are done are not run again.
    """
    from paperbench.report import reproductions
    from paperbench.report.reproduction import make, plan_reproduction
    from paperbench.sweeps.launch import SweepOptions

    folder = _folder(conf_dir)
    if name is None:
        found, mistakes = reproductions.listed(Path(ROOT), folder)
        if mistakes:
            raise ConfigError(*mistakes)
        return Reproductions(asdict(item) for item in found)
    given = [*overrides, *overrides_of(values)]
    prepared, settings = plan_reproduction(
        name, given, scale=scale, seeds=seeds, launcher=launcher, conf_dir=folder, rows=rows, columns=columns
    )
    options = SweepOptions(jobs=jobs, launcher=launcher, retry_failed=retry_failed, stacked=stacked)
    document, outcome = make(prepared, settings, options=options, watcher=_watcher(progress))
    if outcome.exit_code == EXIT_STOPPED:
        raise Stopped(f"the runs of {name} were stopped; the same call continues them")
    directory = prepared.directory.absolute()
    return Reproduction(document, directory, Sweep(directory))


# --- what they share --------------------------------------------------------------------------------------------------


def _folder(path: str | Path | None) -> Path | None:
    return expanded(path) if path is not None else None


def _choices(values: Mapping[str, Any]) -> list[str]:
    """`KEY=A,B` for a list of values, `KEY=VALUE` for one."""
    texts = []
    for key, given in leaves(values):
        value = plain(given)
        if isinstance(value, list | tuple | range):
            if not value:
                raise ConfigError(f"{key}: an empty list is no sweep; give at least one value")
            texts.append(f"{key}={','.join(written(item, key) for item in value)}")
        else:
            texts += overrides_of({key: value})
    return texts


_ONE_RUN = threading.Lock()


@contextmanager
def _isolated() -> Iterator[None]:
    """One run at a time in this process: it owns the global random generators, which are then as they were before.

    Runs of several threads wait for each other, since each would draw from the others' numbers.
    """
    with _ONE_RUN:
        import torch

        from paperbench.engine.seeding import random_state, restore_random_state

        device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
        state, environment = random_state(device), dict(os.environ)
        try:
            yield
        finally:
            restore_random_state(state, device)
            for name in set(os.environ) - set(environment):
                del os.environ[name]
            os.environ.update(environment)


def _start(
    verb: str,
    experiment: str,
    overrides: Sequence[str],
    values: Mapping[str, Any],
    options: Options,
) -> Run:
    from paperbench.records import launch

    wrong = [value for value in (experiment, *overrides) if not isinstance(value, str)]
    if wrong:
        raise ConfigError(
            f"{wrong[0]!r}: experiments and overrides are text; give keys by name, such as optim={{'lr': 0.01}}"
        )
    keys = {"seed": options.seed, "device": options.device, "nproc": options.nproc}
    given = [*overrides, *overrides_of({**values, **{key: value for key, value in keys.items() if value is not None}})]
    composed = launch.compose_for(
        verb, experiment, [*given, *(["scale=smoke"] if options.smoke else [])], conf_dir=_folder(options.conf_dir)
    )
    with _isolated():
        outcome = launch.start(
            composed,
            run_dir=_folder(options.run_dir),
            reporter=_reporter(options.progress),
            worker_reporter=_worker_reporter(options.progress),
        )
    return _result(outcome)


def _result(outcome: Outcome) -> Run:
    if outcome.exit_code == EXIT_STOPPED:
        raise Stopped(f"{outcome.message}; paperbench.resume({str(outcome.directory)!r}) continues it")
    return Run(read_run(outcome.directory.absolute()))


def _reporter(progress: bool) -> Reporter:
    if not progress:
        return SilentReporter()
    if inside_notebook():
        return NotebookReporter()
    from paperbench.cli.display import make_reporter

    return make_reporter()


def _worker_reporter(progress: bool) -> tuple[str, dict[str, Any]] | None:
    """How rank 0 of several processes reports; in a notebook its lines have no cell to go to."""
    return (
        None if inside_notebook() or not progress else ("paperbench.cli.display:make_reporter", {"json_output": False})
    )


def _watcher(progress: bool) -> Watcher:
    from paperbench.cli.sweep_display import make_watcher
    from paperbench.sweeps.watch import SilentWatcher

    return make_watcher() if progress else SilentWatcher()
