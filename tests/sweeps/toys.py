"""Sweeps of the engine's toy: a folder of configurations that names it, and the environment that makes it known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import yaml

from paperbench.config.compose import Composed
from paperbench.config.validate import dump, validate
from paperbench.sweeps import worker
from paperbench.sweeps.launchers.base import Context, ExitStatus, Handle, Job
from paperbench.sweeps.launchers.local import LocalSettings
from paperbench.sweeps.plan import Member, Request, Sweep, member_of, sweep_id
from paperbench.sweeps.watch import MemberStatus, SilentWatcher
from tests.engine import toy


def conf(folder: Path, **changes: object) -> Path:
    """A folder for `--conf-dir` with one experiment, `toy`."""
    file = folder / "experiment" / "toy.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {key: value for key, value in toy.config(**changes).items() if key != "experiment"}
    file.write_text("# @package _global_\n" + yaml.safe_dump(values), encoding="utf-8")
    return folder


def member(root: Path, task: ModuleType = toy, *, labels: Mapping[str, str] | None = None, **changes: Any) -> Member:
    """A member without Hydra. `task` is a module with `SPEC` and `config`, and has been registered."""
    resolved = {**task.config(**changes), "output": {"root": str(root)}}
    config = validate(task.SPEC, resolved)
    request = Request(experiment=config.experiment, labels=labels or {})
    composed = Composed(
        experiment=config.experiment,
        task=task.SPEC,
        config=config,
        resolved=dump(config),
        overrides=(),
        choices={},
        source=None,
    )
    return member_of(request, composed)


def sweep(root: Path, count: int, task: ModuleType = toy, **changes: Any) -> Sweep:
    """`count` runs that differ in their seed."""
    return sweep_of(
        root, [member(root, task, labels={"seed": str(seed)}, seed=seed, **changes) for seed in range(count)]
    )


def sweep_of(root: Path, members: Sequence[Member]) -> Sweep:
    made = sweep_id(members)
    name = members[0].request.experiment
    return Sweep(name=name, id=made, directory=root / name / "sweeps" / made, members=tuple(members))


class Heard(SilentWatcher):
    """What a watcher is told."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        self.messages: list[str] = []

    def changed(self, status: MemberStatus) -> None:
        self.states.append((status.member.hash, status.state))

    def message(self, text: str) -> None:
        self.messages.append(text)


class InThisProcess:
    """A launcher whose jobs are done by the time they are submitted, in the test's own process."""

    Settings: ClassVar[type] = LocalSettings
    DEFAULT_JOBS: ClassVar[int] = 1

    def __init__(self, settings: LocalSettings | None = None, context: Context | None = None) -> None:
        self.jobs: list[Job] = []
        self.context = context

    def submit(self, job: Job) -> Handle:
        self.jobs.append(job)
        return Ended(ExitStatus(exit_code=worker.main(job.arguments(), watch_parent=False), signal=None))

    def wait(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Ended:
    """The handle of a job that is over."""

    ending: ExitStatus

    def poll(self) -> ExitStatus:
        return self.ending

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        pass
