"""A sweep, from its overrides to its outcome: planned while its launcher starts, then run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paperbench.config.compose import OUTPUT_ROOT, output_root
from paperbench.config.paths import search_path
from paperbench.config.quoting import quoted
from paperbench.errors import ConfigError
from paperbench.records.record import read_status
from paperbench.sweeps import record
from paperbench.sweeps.launchers.base import DEFAULT, Launcher, SupportsReattach, SupportsWarmUp, launcher_class
from paperbench.sweeps.launchers.settings import compose_settings, setting_key, split
from paperbench.sweeps.plan import Sweep, jobs_of, plan_overrides
from paperbench.sweeps.run import SweepOutcome, cancel_jobs, launcher_for, run_sweep
from paperbench.sweeps.watch import SilentWatcher, Watcher


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Options of how a sweep's runs are started; `jobs` None is the launcher's default, `launcher` None `local`.

    `retry_failed` tries runs again that failed earlier, `fail_fast` stops at the first failure, `stacked` trains runs together
    in one process where their task can.
    """

    jobs: int | None = None
    launcher: str | None = None
    retry_failed: bool = False
    fail_fast: bool = False
    stacked: bool = False
    detach: bool = False
    """Leave the jobs to the cluster once it has all of them."""


def run_experiment(
    experiment: str,
    overrides: Sequence[str] = (),
    *,
    options: SweepOptions | None = None,
    conf_dir: Path | None = None,
    watcher: Watcher | None = None,
) -> tuple[Sweep, SweepOutcome]:
    """Plan the sweep of an experiment and do what is missing of it.

    A failed run is part of the outcome. Raises an error of `paperbench.errors` for mistakes, before anything is written.
    """
    options = options or SweepOptions()
    planned, launcher = plan_sweep(experiment, overrides, options=options, conf_dir=conf_dir)
    return planned, run_planned(planned, launcher, options=options, watcher=watcher or SilentWatcher())


def plan_sweep(
    experiment: str | None,
    overrides: Sequence[str],
    *,
    options: SweepOptions,
    conf_dir: Path | None = None,
    resume: str | None = None,
    dry_run: bool = False,
) -> tuple[Sweep, Launcher | None]:
    """Plan a sweep and begin its launcher, or that of the recorded sweep that `resume` names; no launcher for a dry run.

    Raises one `ConfigError` with the mistakes in the runs and in the launcher's settings.
    """
    if resume is not None:
        own, others = split([*([experiment] if experiment else []), *overrides])
        recorded = _recorded(resume, others)
        name = options.launcher or recorded.launcher
        # The settings of another launcher say nothing to this one.
        kept = recorded.settings if name == recorded.launcher else ()
        given = {setting_key(text) for text in own}
        own = [*(text for text in kept if setting_key(text) not in given), *own]
    else:
        own, others = split(overrides)
        recorded, name = None, options.launcher or DEFAULT
    options = replace(options, launcher=name)
    starting = _Launching(name, own, options, conf_dir, dry_run=dry_run)
    try:
        if recorded is not None:
            planned = recorded
            starting.begin(planned)
        elif experiment is None:
            raise ConfigError("name an experiment (see `paperbench ls`), or a sweep to continue with --resume ID")
        else:
            planned = plan_overrides(experiment, others, conf_dir=conf_dir, on_composed=starting.begin)
    except ConfigError as error:
        starting.close()
        raise ConfigError(*starting.mistakes, *error.mistakes) from None
    except BaseException:
        starting.close()
        raise
    if starting.mistakes:
        raise ConfigError(*starting.mistakes)
    planned = replace(planned, launcher=name, settings=tuple(own), preview=starting.preview)
    return planned, starting.launcher


def run_planned(planned: Sweep, launcher: Launcher | None, *, options: SweepOptions, watcher: Watcher) -> SweepOutcome:
    """Run what is missing of a planned sweep with the launcher that was begun for it, by default one of its own."""
    return run_sweep(
        planned,
        launcher=launcher or planned.launcher,
        jobs=options.jobs,
        watcher=watcher,
        retry_failed=options.retry_failed,
        fail_fast=options.fail_fast,
        stacked=options.stacked,
        detach=options.detach,
    )


def cancel(name: str, root: Path) -> tuple[Sweep, tuple[str, ...]]:
    """Withdraw the waiting jobs of a recorded sweep, and have those that run save and end; return it, and their ids.

    Returns when all have ended. Raises `ConfigError` for a sweep whose jobs end with it, and `RunLockedError` for one that is
    being run.
    """
    planned = record.load(record.find(name, root, option="--cancel"))
    settings = compose_settings(planned.launcher, planned.settings, search_path(None))
    launcher = launcher_for(planned, planned.launcher, settings)
    with closing(launcher):
        if not isinstance(launcher, SupportsReattach):
            raise ConfigError(
                f"--cancel {name}: the jobs of --launcher {planned.launcher} end with their sweep; Ctrl-C there"
            )
        return planned, cancel_jobs(planned, launcher)


class _Launching:
    """The launcher, which may take seconds to start: it does while the tasks check their configurations."""

    def __init__(
        self, name: str, own: Sequence[str], options: SweepOptions, conf_dir: Path | None, *, dry_run: bool
    ) -> None:
        self._name = name
        self._options = options
        self._dry_run = dry_run
        self.mistakes: tuple[str, ...] = ()
        self.launcher: Launcher | None = None
        """None before `begin`, and for a dry run."""
        self.preview: tuple[str, ...] = ()
        """Of a dry run: what the launcher would ask its cluster for."""
        try:
            launcher_class(name)
            self._settings = compose_settings(name, own, search_path(conf_dir))
        except ConfigError as error:
            self.mistakes = error.mistakes

    def begin(self, planned: Sweep) -> None:
        """Start the launcher of the composed sweep. Raises `ConfigError` for runs that cannot be stacked."""
        options = self._options
        jobs_of(planned.members, stacked=options.stacked)
        if self.mistakes:
            return
        if options.detach:
            self._refuse_detaching(len(planned.members))
        if self._dry_run:
            self._preview(planned)
            return
        self.launcher = launcher_for(planned, self._name, self._settings, jobs=options.jobs, stacked=options.stacked)
        missing = any(read_status(member.directory).state != "done" for member in planned.members)
        if missing and isinstance(self.launcher, SupportsWarmUp):
            self.launcher.warm_up()

    def _refuse_detaching(self, runs: int) -> None:
        kind = launcher_class(self._name)
        if not hasattr(kind, "all_submitted") or getattr(self._settings, "executor", "slurm") == "local":
            raise ConfigError(
                f"--detach: the jobs of --launcher {self._name} end with the sweep; --launcher slurm can be left alone, and on a "
                "Ray cluster `ray job submit -- paperbench sweep …` runs the sweep itself there"
            )
        if self._options.jobs is not None and self._options.jobs < runs:
            raise ConfigError(
                f"--detach --jobs {self._options.jobs}: nobody would be there to submit the rest; use "
                "launcher.jobs_at_once to limit how many of them run"
            )

    def _preview(self, planned: Sweep) -> None:
        kind: Any = launcher_class(self._name)
        if hasattr(kind, "preview"):
            groups = jobs_of(planned.members, stacked=self._options.stacked)
            configs = [[member.composed.resolved for member in group] for group in groups]
            self.preview = tuple(kind.preview(self._settings, planned.name, configs))

    def close(self) -> None:
        """End the launcher: nothing is going to be run."""
        if self.launcher is not None:
            self.launcher.close()


def _recorded(name: str, overrides: Sequence[str]) -> Sweep:
    given = [text for text in overrides if not text.lstrip("+").startswith(f"{OUTPUT_ROOT}=")]
    if given:
        raise ConfigError(
            f"--resume {name}: the sweep's record says what to run; leave out {quoted(*given)} "
            "(--jobs, --launcher and launcher.KEY=VALUE may change)"
        )
    return record.load(record.find(name, output_root(overrides)))
